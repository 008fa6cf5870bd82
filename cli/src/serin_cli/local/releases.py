"""Which versions of models run on this machine: the declared ones that nobody took away, and those that were added.

Pure; knows nothing about processes.
"""

from collections.abc import Iterator

from serin_control.config import MeshConfig, Release

from serin_cli.local.additions import MODEL_SERVICES, Addition, Additions, Which


def declared_releases(config: MeshConfig, additions: Additions) -> Iterator[tuple[str, Release]]:
    """Models and their declared versions, as far as nobody took them away here."""
    for name, model in config.models.items():
        for release in model.releases():
            taken = {
                f"{service}s": 0
                for service in MODEL_SERVICES
                if Which(service, name, release.version) in additions.withheld
            }
            yield name, release.model_copy(update=taken)


def num_declared(config: MeshConfig, which: Which) -> int:
    """How many processes of a version are declared to run here."""
    fronts = {"gateway": config.gateway.version, "cache": config.cache.version}
    if which.service in fronts:
        return int(fronts[which.service] == which.version)
    model = config.models.get(which.model)
    releases = model.releases() if model is not None else ()
    counts = (r.workers if which.service == "worker" else r.tokenizers for r in releases if r.version == which.version)
    return next(counts, 0)


def declared_path(config: MeshConfig, which: Which) -> str:
    """The path that is declared of a model's version; empty: none is."""
    model = config.models.get(which.model)
    releases = model.releases() if model is not None else ()
    return next((release.path for release in releases if release.version == which.version), "")


def added_releases(config: MeshConfig, additions: Additions) -> Iterator[tuple[str, Release, Addition]]:
    """Models and their added versions, as far as the model is declared and the version is not.

    An added version runs like the model's version with the most traffic, except for what was said of it.
    """
    for addition in additions.added:
        which = addition.which
        if which.model in config.models and not num_declared(config, which):
            like = heaviest(config, which.model)
            yield which.model, _added(addition, like), addition


def taken_away(config: MeshConfig | None, additions: Additions, which: Which) -> Additions:
    """Additions with which a version runs here no more: not as added and, where it serves a model, not as declared.

    A gateway or cache that was added runs beside the declared one of its version, which stays. ``config`` None: what is
    declared is not known; then the version is taken as added only.
    """
    is_declared = config is not None and which.service in MODEL_SERVICES and num_declared(config, which) > 0
    return additions.without(which).withholding(which, is_declared)


def heaviest(config: MeshConfig, model: str) -> Release:
    """The declared version of a model with the most traffic."""
    return max(config.models[model].releases(), key=lambda release: release.weight)


def _added(addition: Addition, like: Release) -> Release:
    sizes = ("kv_cache_bytes", "kv_blocks")  # one says what the other says
    inherited = {
        key: value
        for key, value in like.engine.items()
        if not (key in sizes and any(size in addition.engine for size in sizes))
    }
    is_worker = addition.which.service == "worker"
    return Release(
        version=addition.which.version,
        path=addition.path,
        weight=0,
        workers=addition.num_processes if is_worker else 0,
        tokenizers=0 if is_worker else addition.num_processes,
        engine={**inherited, **addition.engine},
    )
