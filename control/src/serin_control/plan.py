"""What somebody wants traffic to do: which sets of versions should share a model's sessions, and how.

The declared configuration makes a plan; a rollout replaces the plan of its model. Knows nothing about what runs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from serin_control.config import (
    CascadeConfig,
    GuardsConfig,
    IssuerConfig,
    LimitsConfig,
    MeshConfig,
    PriceConfig,
    ResponsesConfig,
    TenantConfig,
)
from serin_control.instance import LANE_SERVICES, Service


@dataclass(frozen=True, slots=True)
class Share:
    """A set of versions, one for each lane service, and its share of new sessions relative to the others."""

    versions: tuple[tuple[Service, str], ...]
    weight: int


@dataclass(frozen=True, slots=True)
class Trial:
    """Two lanes of a model that are compared; rates are 0 to 1, of finished requests and of those that are scored."""

    rollout: str
    stable_lane: str
    canary_lane: str
    shadow_rate: float
    calibration_rate: float


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a scope; 0: none. ``money_per_month`` in micro-units of the currency."""

    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    concurrent_requests: int = 0
    tokens_per_day: int = 0
    money_per_month: int = 0


@dataclass(frozen=True, slots=True)
class Price:
    """What tokens cost, in micro-units of the currency for a million."""

    input: int = 0
    cached_input: int = 0
    output: int = 0


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """One model: its names, its defaults, who shares its traffic.

    Attributes:
        kept: sets of versions that have the least weight beside their share: traffic may go back to them. The first
            of them that takes calls has everything while nothing that has a share does.
        draining: sets of versions that get no new session while another can take it. Where they carried traffic their
            lanes stay, at weight 0, so that answers end where they began.
        retired: sets of versions that get nothing, not even a lane.
        trial: the comparison that is under way.
        limits: of all callers together on it.
        price, version_prices: what tokens cost.
        fallbacks: models that answer where it cannot.
    """

    name: str
    aliases: tuple[str, ...] = ()
    default_max_tokens: int = 256
    shares: tuple[Share, ...] = ()
    kept: tuple[tuple[tuple[Service, str], ...], ...] = ()
    draining: tuple[tuple[tuple[Service, str], ...], ...] = ()
    retired: tuple[tuple[tuple[Service, str], ...], ...] = ()
    trial: Trial | None = None
    limits: Limits = Limits()
    price: Price = Price()
    version_prices: Mapping[str, Price] = field(default_factory=dict)
    fallbacks: tuple[str, ...] = ()

    def price_of(self, version: str) -> Price:
        """What the tokens of a version cost; one that declares no price has the model's."""
        return self.version_prices.get(version, self.price)


@dataclass(frozen=True, slots=True)
class Policy:
    """What gateways carry out; ``limits`` are those of keys that bring none of their own."""

    limits: Limits = Limits()
    max_body_bytes: int = 4_194_304
    allow_anonymous: bool = False
    shadow_scoring: bool = True
    currency: str = "USD"
    token_issuers: tuple[IssuerConfig, ...] = ()
    guards: GuardsConfig = field(default_factory=GuardsConfig)
    responses: ResponsesConfig = field(default_factory=ResponsesConfig)


@dataclass(frozen=True, slots=True)
class Naming:
    """Names beside those of models: cascades by name, and what organizations mean by names."""

    cascades: Mapping[str, CascadeConfig] = field(default_factory=dict)
    tenants: Mapping[str, TenantConfig] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TrafficPlan:
    """All models, by name, the policy of gateways, and further names.

    ``service_shares``: of a service that serves all models (gateway, cache), version to its share of calls relative
    to the others; a version that is not named gets none. A service that is not named shares by how many run.
    """

    models: Mapping[str, ModelPlan] = field(default_factory=dict)
    policy: Policy = field(default_factory=Policy)
    service_shares: Mapping[Service, Mapping[str, int]] = field(default_factory=dict)
    naming: Naming = field(default_factory=Naming)


def declared_plan(config: MeshConfig) -> TrafficPlan:
    """The plan that a configuration declares: each version's services together, by the version's weight."""
    models = {
        name: ModelPlan(
            name,
            tuple(model.aliases),
            model.default_max_tokens,
            tuple(
                Share(tuple((service, release.version) for service in LANE_SERVICES), release.weight)
                for release in model.releases()
            ),
            limits=_limits(model.limits),
            price=_price(model.price),
            version_prices={
                version: _price(one.price) for version, one in (model.versions or {}).items() if one.price is not None
            },
            fallbacks=tuple(model.fallback),
        )
        for name, model in config.models.items()
    }
    policy = Policy(
        _limits(config.limits),
        config.gateway.max_body_bytes,
        config.gateway.allow_anonymous,
        config.gateway.shadow_scoring,
        config.currency,
        tuple(config.token_issuers.values()),
        config.guards,
        config.gateway.responses,
    )
    shares = {Service.GATEWAY: {config.gateway.version: 1}, Service.CACHE: {config.cache.version: 1}}
    return TrafficPlan(models, policy, shares, Naming(config.cascades, config.tenants))


def _limits(declared: LimitsConfig | None) -> Limits:
    return Limits(**declared.model_dump()) if declared is not None else Limits()


def _price(declared: PriceConfig | None) -> Price:
    if declared is None:
        return Price()
    cached = declared.input if declared.cached_input is None else declared.cached_input
    return Price(declared.input, cached, declared.output)
