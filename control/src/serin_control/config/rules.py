"""Rules of `serin.yaml` that no key can check alone: names that collide, keys that exclude or need each other.

Knows nothing about lines: a rule names the path of the key that breaks it.
"""

from collections.abc import Iterator

from serin_mesh.engine_ranges import BLOCK_TOKENS, DEFAULT_SEQUENCES, SHORT_REQUEST_TOKENS

from serin_control.config.declaration import EngineConfig, GuardsConfig, MeshConfig, ModelConfig
from serin_control.config.routing_rules import broken_routing
from serin_control.config.yaml_lines import Broken, KeyPath

LEAST_TOKEN_BYTES = 32
"""Keys and values of a token take that much in the smallest model: one layer, one head of 8, 16 bits each."""


def broken_rules(config: MeshConfig) -> Iterator[Broken]:
    """Every rule that ``config`` breaks."""
    for name, model in config.models.items():
        yield from _path_or_versions(("models", name), model)
        yield from _weights(("models", name), model)
        yield from _one_cache_size(("models", name), model)
        yield from _cache_holds_a_sequence(("models", name), model)
        yield from _a_token_for_each_sequence(("models", name), model)
        yield from _cached_is_cheaper(("models", name), model)
    yield from _names(config)
    yield from broken_routing(config)
    yield from _guards(config.guards)


def _guards(guards: GuardsConfig) -> Iterator[Broken]:
    known = ", ".join(guards.policies) or "none is declared"
    named: list[tuple[KeyPath, str]] = [(("default",), guards.default)] if guards.default is not None else []
    for scope in ("organizations", "projects", "keys"):
        named += [((scope, who), policy) for who, policy in getattr(guards, scope).items()]
    for path, policy in named:
        if policy not in guards.policies:
            yield Broken(("guards", *path), f"no policy is named {policy!r}", f"one of 'guards.policies': {known}")
    for name, policy_config in guards.policies.items():
        blocked = policy_config.blocked
        if (blocked.input, blocked.output) != ("none", "none") and not blocked.terms:
            yield Broken(
                ("guards", "policies", name, "blocked"), "no 'terms'", "at least one term, or the action 'none'"
            )


def _path_or_versions(at: KeyPath, model: ModelConfig) -> Iterator[Broken]:
    if model.path is None and model.versions is None:
        yield Broken(at, "neither 'path' nor 'versions'", "one of the two")
    if model.path is not None and model.versions is not None:
        yield Broken((*at, "path"), "both 'path' and 'versions'", "one of the two")


def _weights(at: KeyPath, model: ModelConfig) -> Iterator[Broken]:
    releases = list(model.releases())
    if releases and not any(release.weight for release in releases):
        yield Broken((*at, "versions"), "every weight is 0", "at least one weight above 0")


def _one_cache_size(at: KeyPath, model: ModelConfig) -> Iterator[Broken]:
    for path, options in _engines(at, model):
        if options.kv_cache_bytes and options.kv_blocks:
            yield Broken((*path, "kv_blocks"), "both 'kv_cache_bytes' and 'kv_blocks'", "one of the two")


def _cache_holds_a_sequence(at: KeyPath, model: ModelConfig) -> Iterator[Broken]:
    """A worker refuses a cache into which no sequence fits; said here, it costs no restart."""
    for path, options in _engines(at, model):
        asked = model.context_length if options.context_length is None else options.context_length
        what = f"'context_length' of {asked}" if asked else f"a short sequence of {SHORT_REQUEST_TOKENS}"
        least = -(-(asked or SHORT_REQUEST_TOKENS) // BLOCK_TOKENS)
        if options.kv_blocks and options.kv_blocks < least:
            accepted = f"{least} or more, so that {what} tokens fits, {BLOCK_TOKENS} in a block"
            yield Broken((*path, "kv_blocks"), f"{options.kv_blocks} blocks hold no sequence", accepted)
        # How much a token takes is the model's; below this no model's sequence fits.
        least_bytes = (asked or SHORT_REQUEST_TOKENS) * LEAST_TOKEN_BYTES
        if options.kv_cache_bytes and options.kv_cache_bytes < least_bytes:
            accepted = f"0, or as many as hold {what} tokens: {least_bytes} at the very least"
            yield Broken((*path, "kv_cache_bytes"), f"{options.kv_cache_bytes} bytes hold no sequence", accepted)


def _a_token_for_each_sequence(at: KeyPath, model: ModelConfig) -> Iterator[Broken]:
    for path, options in _engines(at, model):
        tokens = model.max_batched_tokens if options.max_batched_tokens is None else options.max_batched_tokens
        asked = model.max_sequences if options.max_sequences is None else options.max_sequences
        sequences = DEFAULT_SEQUENCES if asked is None else asked
        is_said_here = options.max_batched_tokens is not None or options.max_sequences is not None
        if tokens and tokens < sequences and is_said_here:
            key = "max_sequences" if options.max_batched_tokens is None else "max_batched_tokens"
            accepted = f"'max_batched_tokens' of {sequences} or more, or fewer 'max_sequences'"
            yield Broken((*path, key), f"{tokens} tokens in a step for {sequences} sequences", accepted)


def _engines(at: KeyPath, model: ModelConfig) -> list[tuple[KeyPath, EngineConfig]]:
    """The model's own settings and those of its versions, with their places."""
    versions = (model.versions or {}).items()
    return [(at, model), *(((*at, "versions", name), version) for name, version in versions)]


def _cached_is_cheaper(at: KeyPath, model: ModelConfig) -> Iterator[Broken]:
    priced = [(at, model.price)]
    priced += [((*at, "versions", name), version.price) for name, version in (model.versions or {}).items()]
    for path, price in priced:
        if price is not None and price.cached_input is not None and price.cached_input > price.input:
            yield Broken(
                (*path, "price", "cached_input"), f"{price.cached_input} is more than 'input'", f"at most {price.input}"
            )


def _names(config: MeshConfig) -> Iterator[Broken]:
    taken = {name: f"model {name!r}" for name in config.models}
    for name, model in config.models.items():
        for index, alias in enumerate(model.aliases):
            if alias in taken:
                yield Broken(
                    ("models", name, "aliases", index),
                    f"{alias!r} is already the name of {taken[alias]}",
                    "a name that means one model only",
                )
            taken.setdefault(alias, f"an alias of {name!r}")
