"""The keys of `serin.yaml`, their types, ranges and defaults.

Knows nothing about files, lines or YAML: a declaration is a value. The docstrings below are the descriptions in the
JSON Schema.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from serin_mesh.engine_ranges import MAX_COUNT, MAX_SEQUENCES, MAX_THREADS

ModelName = Annotated[str, Field(pattern=r"^[a-z0-9._-]{1,64}$", description="1 to 64 of a-z 0-9 . _ -")]
VersionName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$", description="1 to 64 of A-Z a-z 0-9 . _ -")]
AliasName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:/-]{1,128}$", description="1 to 128 of A-Z a-z 0-9 . _ : / -")]
Path = Annotated[
    str,
    Field(
        min_length=1,
        max_length=1024,
        description="a model folder (relative to this file), a hub id or registry:NAME:VERSION",
    ),
]
IssuerName = Annotated[str, Field(pattern=r"^[a-z0-9._-]{1,64}$", description="1 to 64 of a-z 0-9 . _ -")]
Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
PolicyName = Annotated[str, Field(pattern=r"^[a-z0-9._-]{1,64}$", description="1 to 64 of a-z 0-9 . _ -")]
TenantName = Annotated[str, Field(pattern=r"^[a-z0-9._-]{1,64}$", description="1 to 64 of a-z 0-9 . _ -")]
KeyName = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9._:/@|-]{1,256}$",
        description="the public name of a key, key_..., as `serin key list` shows",
    ),
]
Term = Annotated[str, Field(pattern=r"^.*\S.*$", max_length=128, description="1 to 128 characters")]
Country = Literal[
    "au", "ca", "de", "es", "fi", "in", "it", "kr", "ng", "ph", "pl", "se", "sg", "th", "tr", "uk", "us", "za"
]  # fmt: skip
GuardAction = Literal["none", "count", "mask", "refuse"]
Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:[0-9]{1,3})?)$", description="auto, cpu, cuda or cuda:N")]
Port = Annotated[int, Field(ge=0, le=65535)]
Count = Annotated[int, Field(ge=0, le=2**53 - 1)]
Money = Annotated[int, Field(ge=0, le=10**12)]
Rate = Annotated[int, Field(ge=0, le=2**32 - 1)]
LogProbability = Annotated[float, Field(ge=-100, lt=0, strict=False)]
Pattern = Annotated[str, Field(min_length=1, max_length=512, description="a regular expression, 1 to 512 characters")]

DEFAULT_VERSION = "v1"


class _Keys(BaseModel):
    """Keys are exactly these, values exactly of these types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


class PriceConfig(_Keys):
    """What tokens cost: micro-units (10^-6) of the currency for a million tokens; 150000 is 0.15 for a million."""

    input: Money
    """Tokens of the prompt that were computed."""
    cached_input: Money | None = None
    """Tokens of the prompt that were reused; at most as much as `input`. Default: as `input`."""
    output: Money
    """Tokens of the answer."""


class LimitsConfig(_Keys):
    """Limits. 0: none."""

    requests_per_minute: Rate = 0
    """Requests a minute."""
    tokens_per_minute: Rate = 0
    """Tokens a minute, prompt and answer together."""
    concurrent_requests: Rate = 0
    """Requests at the same time."""
    tokens_per_day: Count = 0
    """Tokens a calendar day (UTC), prompt and answer together."""
    money_per_month: Money = 0
    """Money a calendar month (UTC), in micro-units (10^-6) of the currency; 5000000 is 5."""


class EngineConfig(_Keys):
    """How a version is run. Absent: the service's own default."""

    workers: Annotated[int, Field(ge=0, le=256)] | None = None
    """Worker processes; 0: none are started here. Default 1."""
    tokenizers: Annotated[int, Field(ge=0, le=256)] | None = None
    """Tokenizer processes; 0: none are started here. Default 1."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] | None = None
    """Type the model computes in."""
    quantize: Literal["none", "int8", "fp8"] | None = None
    """`int8`, or `fp8` (GPU; on a CPU for its answers, not for speed): linear layers in 8 bits, weights and what
    they are given; the rest in `precision`. `none`: as the checkpoint holds them."""
    numerics: Literal["auto", "fast", "invariant"] | None = None
    """`invariant`: the same tokens alone, in any batch and after a resume. `auto`, the default: where the model can."""
    device: Device | None = None
    """Device of the workers."""
    threads: Annotated[int, Field(ge=0, le=MAX_THREADS)] | None = None
    """CPU threads of a worker, at most one for each processor. 0: by the size of the model."""
    context_length: Annotated[int, Field(ge=0, le=MAX_COUNT)] | None = None
    """Longest prompt and output together, in tokens. 0: what the model was made for."""
    kv_cache_bytes: Annotated[int, Field(ge=0)] | None = None
    """Bytes of a worker's KV cache. A sequence of `context_length` must fit. 0: by what is free."""
    kv_blocks: Annotated[int, Field(ge=0, le=MAX_COUNT)] | None = None
    """Blocks of a worker's KV cache, instead of bytes. A sequence of `context_length` must fit. 0: by memory."""
    max_batched_tokens: Annotated[int, Field(ge=0, le=MAX_COUNT)] | None = None
    """Most tokens a worker computes in one step; `max_sequences` or more. 0: 512 on cpu, 8192 on cuda."""
    max_sequences: Annotated[int, Field(ge=1, le=MAX_SEQUENCES)] | None = None
    """Most sequences a worker runs at once."""


class VersionConfig(EngineConfig):
    """One version of a model."""

    path: Path
    """Folder of the model, relative to this file, its hub id, or what was pushed as registry:NAME:VERSION."""
    weight: Annotated[int, Field(ge=0, le=10_000)] | None = None
    """Share of new sessions, relative to the model's other versions. Where no version names one, the last has all."""
    price: PriceConfig | None = None
    """What its tokens cost. Default: the model's price."""


class ModelConfig(EngineConfig):
    """One model. What it says about running holds for all its versions that do not say otherwise."""

    path: Path | None = None
    """Folder of the model or its hub id: the model's only version, `v1`. Instead of `versions`."""
    versions: Annotated[dict[VersionName, VersionConfig], Field(min_length=1)] | None = None
    """Its versions, oldest first. Instead of `path`."""
    aliases: list[AliasName] = Field(default_factory=list)
    """Further names that mean it."""
    default_max_tokens: Annotated[int, Field(ge=1, le=2**31 - 1)] = 256
    """Tokens reserved for an answer whose length the caller did not bound."""
    price: PriceConfig | None = None
    """What its tokens cost, of versions that do not say otherwise. Default: nothing."""
    limits: LimitsConfig | None = None
    """Limits of all callers together on this model."""
    fallback: Annotated[list[ModelName], Field(max_length=4)] = Field(default_factory=list)
    """Models that answer in its place, in this order, where it cannot take a request; only before the first token."""

    def releases(self) -> Iterator["Release"]:
        """Its versions, oldest first, with everything they inherit and every weight decided."""
        versions = self.versions or ({DEFAULT_VERSION: VersionConfig(path=self.path)} if self.path else {})
        weighted = any(version.weight is not None for version in versions.values())
        for index, (name, version) in enumerate(versions.items(), start=1):
            own = {key: getattr(version, key) for key in EngineConfig.model_fields}
            merged = {key: getattr(self, key) if value is None else value for key, value in own.items()}
            by_default = 0 if weighted or index < len(versions) else 100
            yield Release(
                version=name,
                path=version.path,
                weight=by_default if version.weight is None else version.weight,
                workers=_or_one(merged.pop("workers")),
                tokenizers=_or_one(merged.pop("tokenizers")),
                engine={key: value for key, value in merged.items() if value is not None},
            )


class Release(_Keys):
    """One version of a model as it is to be run: nothing left to inherit."""

    version: str
    path: str
    weight: int
    workers: int
    tokenizers: int
    engine: Mapping[str, str | int]
    """Settings of the worker that were given, by their key in `serin.yaml`; its flags have the same names."""


class ClassifierConfig(_Keys):
    """A classifier of prompts, as `serin cascade train` makes one."""

    weights: Annotated[str, Field(min_length=1, max_length=131_072)]
    """The classifier as text."""
    above: Annotated[float, Field(ge=0, le=1, strict=False)] = 0.5
    """Probability above which the prompt goes to the second model."""


class EscalationConfig(_Keys):
    """When the second model of a cascade answers: where any of these holds."""

    mean_logprob_below: LogProbability | None = None
    """The mean log-probability (nats) of the first answer's tokens is below it."""
    min_logprob_below: LogProbability | None = None
    """The log-probability (nats) of some token of the first answer is below it."""
    schema_fails: bool = False
    """The first answer is not what was asked for: no JSON of the schema, arguments a tool does not take, cut short."""
    prompt_matches: Annotated[list[Pattern], Field(max_length=16)] = Field(default_factory=list)
    """Regular expressions; one is found in the prompt's last turn. The first model is not asked."""
    prompt_longer_than: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    """Characters of the prompt's last turn beyond which the first model is not asked."""
    classifier: ClassifierConfig | None = None
    """A classifier of the prompt's last turn says so. The first model is not asked."""
    hint: bool = False
    """True lets callers decide, by the header `serin-cascade`: `first`, `then` or `auto`."""


class CascadeConfig(_Keys):
    """A name behind which two models stand: the first answers, and where a rule holds the second one does."""

    first: ModelName
    """Model whose answer is held back until it is judged."""
    then: ModelName
    """Model that answers where a rule holds."""
    escalate_when: EscalationConfig
    """The rules."""


class ProjectConfig(_Keys):
    """What one project means by names."""

    aliases: dict[AliasName, AliasName] = Field(default_factory=dict)
    """Names of its own, and the names they lead to, as its organization knows them."""
    fallbacks: bool | None = None
    """False: no other model answers in the place of one that cannot. Default: as its organization."""


class TenantConfig(_Keys):
    """What one organization means by names."""

    aliases: dict[AliasName, AliasName] = Field(default_factory=dict)
    """Names of its own, and the names they lead to: models, cascades, general aliases. They hide those of all."""
    fallbacks: bool | None = None
    """False: no other model answers in the place of one that cannot. Default: true."""
    projects: dict[ModelName, ProjectConfig] = Field(default_factory=dict)
    """Its projects, where they differ."""


class ResponsesConfig(_Keys):
    """What is kept of the Responses API."""

    kept_days: Annotated[int, Field(ge=0, le=365)] = 30
    """Days from the last time that a conversation was continued; 0: nothing is kept."""
    project_bytes: Annotated[int, Field(ge=1_048_576, le=2**40)] = 67_108_864
    """Most bytes of all responses of one project; conversations continued longest ago go first."""


class GatewayConfig(_Keys):
    """The front door."""

    port: Port = 8080
    """Port of REST; 0: any free one."""
    grpc_port: Port = 9080
    """Port of gRPC; 0: any free one."""
    max_body_bytes: Annotated[int, Field(ge=1024, le=2**31 - 1)] = 4_194_304
    """Most bytes of a request body."""
    allow_anonymous: bool = False
    """True lets everybody ask without a key; only for meshes on loopback."""
    shadow_scoring: bool = True
    """False: no answer is scored again in the background; rollouts then cannot compare what their lanes answer."""
    responses: ResponsesConfig = Field(default_factory=ResponsesConfig)
    """What is kept of the Responses API, in the state Redis."""
    version: VersionName = DEFAULT_VERSION
    """Version that gets the calls, as long as it runs and until a rollout says otherwise."""


class IssuerConfig(_Keys):
    """Whose tokens (JWT) are believed, and what their claims mean."""

    issuer: Annotated[str, Field(min_length=1, max_length=1024)]
    """The `iss` of its tokens, exactly."""
    audience: Annotated[str, Field(min_length=1, max_length=1024)]
    """What the `aud` of its tokens must name."""
    jwks_url: Annotated[
        str,
        Field(
            pattern=r"^(https://|http://(127\.0\.0\.1|localhost|\[::1\])[:/])",
            description="an https URL, or http on loopback",
        ),
    ]
    """Where its keys are."""
    algorithms: Annotated[list[Algorithm], Field(min_length=1)] = ["RS256", "ES256"]
    """Signature algorithms that are accepted; asymmetric ones only."""
    project_claim: str = ""
    """Claim that names the caller's project. Empty: all are in `project`."""
    project: str = ""
    """Project of callers whose token names none. Empty: they are refused."""
    organization_claim: str = ""
    """Claim that names the caller's organization, which must be the project's. Empty: it is not looked at."""
    role_claim: str = ""
    """Claim that names the caller's role, or a list of them. Empty: all have the role `app`."""
    roles: dict[str, Literal["app", "viewer", "operator", "admin"]] = Field(default_factory=dict)
    """What values of `role_claim` mean; the highest that a token has counts, without one it is `app`."""


class GuardRuleConfig(_Keys):
    """What happens with what a detector finds.

    `none`: it does not look. `count`: it is counted. `mask`: something else stands in its place. `refuse`: the request
    is refused, or the answer ends there.
    """

    input: GuardAction = "none"
    """In what callers write."""
    output: GuardAction = "none"
    """In what models write."""


class PersonalDataConfig(GuardRuleConfig):
    """Personal data by pattern: e-mail addresses, cards, accounts, telephone numbers, numbers of identity papers."""

    countries: list[Country] = Field(default_factory=list)
    """Countries whose numbers are looked for, beside what is the same everywhere."""


class BlockListConfig(GuardRuleConfig):
    """Words and phrases."""

    terms: Annotated[list[Term], Field(max_length=1000)] = Field(default_factory=list)
    """What to find, as whole words, whatever their case."""


class GuardPolicyConfig(_Keys):
    """What is looked for, and what happens with what is found. What is not named is not looked for."""

    pii: PersonalDataConfig = Field(default_factory=PersonalDataConfig)
    """Personal data. Needs `serin-gateway[pii]` at the gateways."""
    secrets: GuardRuleConfig = Field(default_factory=GuardRuleConfig)
    """Keys, tokens, private keys and passwords."""
    blocked: BlockListConfig = Field(default_factory=BlockListConfig)
    """A block list."""
    unicode: GuardRuleConfig = Field(default_factory=GuardRuleConfig)
    """Characters that nobody sees and that change what a text says."""
    injection: GuardRuleConfig = Field(default_factory=GuardRuleConfig)
    """Phrases that try to make a model forget whose instructions it follows. A heuristic."""


class GuardsConfig(_Keys):
    """Policies, and who has which: the narrowest that is named counts, key, project, organization, everybody."""

    policies: dict[PolicyName, GuardPolicyConfig] = Field(default_factory=dict)
    """The policies, by a name of your choice."""
    default: PolicyName | None = None
    """Policy of whoever nothing else names. Default: none."""
    organizations: dict[TenantName, PolicyName] = Field(default_factory=dict)
    """Policies of organizations."""
    projects: dict[TenantName, PolicyName] = Field(default_factory=dict)
    """Policies of projects."""
    keys: dict[KeyName, PolicyName] = Field(default_factory=dict)
    """Policies of keys, by their public names."""


class CacheConfig(_Keys):
    """The service that remembers what was computed."""

    version: VersionName = DEFAULT_VERSION
    """Version that gets the calls, as long as it runs and until a rollout says otherwise."""


class MeshConfig(_Keys):
    """A mesh: its models, limits and front door."""

    models: Annotated[dict[ModelName, ModelConfig], Field(min_length=1)]
    """The models, by name."""
    limits: LimitsConfig = Field(default_factory=LimitsConfig)
    """Limits of keys that bring none of their own."""
    gateway: GatewayConfig = Field(default_factory=GatewayConfig)
    """The front door."""
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$", description="three letters A-Z, as in ISO 4217")] = "USD"
    """Currency of all prices and budgets; a label, nothing is converted."""
    token_issuers: dict[IssuerName, IssuerConfig] = Field(default_factory=dict)
    """Issuers whose tokens (JWT, OpenID Connect) are believed beside keys, by a name of your choice."""
    guards: GuardsConfig = Field(default_factory=GuardsConfig)
    """What is looked for in what callers and models write. No security boundary."""
    cache: CacheConfig = Field(default_factory=CacheConfig)
    """The service that remembers what was computed."""
    cascades: Annotated[dict[ModelName, CascadeConfig], Field(max_length=64)] = Field(default_factory=dict)
    """Names behind which two models stand, a small one that answers first and a larger one."""
    tenants: dict[ModelName, TenantConfig] = Field(default_factory=dict)
    """What organizations mean by names, by organization. Who they are and their limits: `serin tenant`."""


def _or_one(count: str | int | None) -> int:
    return 1 if count is None else int(count)
