"""The catalog as the control plane publishes it (`serin.control.v1`). Knows nothing about how lanes are chosen."""

import asyncio
from collections.abc import Iterable, Mapping

from serin.control.v1 import config_pb2, lane_pb2, registry_pb2
from serin_mesh.errors import MeshError, Reason
from serin_mesh.lanes import LaneWatch, Snapshot

from serin_gateway.catalog import RETRY_AFTER_S, Catalog, Lane, Policy, ServedModel, Trial, Worker
from serin_gateway.guards.detector import DetectorName
from serin_gateway.guards.policy import Action, GuardPolicies, GuardPolicy
from serin_gateway.keys.issuer import TokenIssuer
from serin_gateway.keys.records import Role
from serin_gateway.ledger.price import Price
from serin_gateway.limits.limiter import Limits
from serin_gateway.responses.store import Bounds
from serin_gateway.upstream.naming import to_cascade, to_tenant

DAY_S = 86_400.0


class PublishedCatalog:
    """Follows a lane watch; each snapshot is translated once."""

    def __init__(self, watch: LaneWatch) -> None:
        self._watch = watch
        self._snapshot: Snapshot | None = None
        self._catalog = Catalog()

    def current(self) -> Catalog:
        """The catalog in force."""
        snapshot = self._watch.current
        if snapshot is None:
            raise MeshError(
                Reason.NOT_READY, "the control plane has not published any model yet", retry_after_s=RETRY_AFTER_S
            )
        if snapshot is not self._snapshot:
            self._snapshot, self._catalog = snapshot, to_catalog(snapshot)
        return self._catalog

    async def changed(self, timeout_s: float) -> bool:
        """Wait for another snapshot."""
        before = self._watch.current
        try:
            async with asyncio.timeout(timeout_s):
                async for snapshot in self._watch.changes():
                    if snapshot is not before:
                        return True
        except TimeoutError:
            pass
        return False


def to_catalog(snapshot: lane_pb2.WatchLanesResponse) -> Catalog:
    """One snapshot as a catalog."""
    return Catalog(
        models=[
            ServedModel(
                model.name,
                list(model.aliases),
                [_lane(lane) for lane in model.lanes],
                model.default_max_token_count,
                _trial(model.trial) if model.HasField("trial") else None,
                _limits(model.limits),
                list(model.fallbacks),
            )
            for model in snapshot.models
        ],
        policy=_policy(snapshot.policy) if snapshot.HasField("policy") else Policy(),
        has_caches=bool(snapshot.caches),
        cascades={one.name: to_cascade(one) for one in snapshot.cascades},
        tenants={(one.organization, one.project): to_tenant(one) for one in snapshot.tenants},
    )


def _trial(trial: lane_pb2.Trial) -> Trial:
    return Trial(trial.stable_lane, trial.canary_lane, trial.shadow_rate, trial.calibration_rate)


def _lane(lane: lane_pb2.Lane) -> Lane:
    members = {member.service: member for member in lane.members}
    worker = members.get(registry_pb2.SERVICE_KIND_WORKER, lane_pb2.LaneMember())
    tokenizer = members.get(registry_pb2.SERVICE_KIND_TOKENIZER, lane_pb2.LaneMember())
    cache = members.get(registry_pb2.SERVICE_KIND_CACHE, lane_pb2.LaneMember())
    workers = _usable(worker.endpoints)
    return Lane(
        lane=lane.lane,
        weight=lane.weight,
        vocabulary_digest=lane.vocabulary_digest,
        kv_digest=lane.kv_digest,
        context_length=lane.context_length,
        block_size=lane.block_size,
        workers=[Worker(one.instance, one.endpoint, worker.cluster, one.capacity.sequence_count) for one in workers],
        tokenizers=[one.endpoint for one in _usable(tokenizer.endpoints)],
        cache_version=cache.version,
        version=worker.version,
        price=Price(lane.price.input, lane.price.cached_input, lane.price.output),
        num_dimensions=max((one.capacity.embedding_dimension_count for one in workers), default=0),
    )


def _usable(endpoints: Iterable[lane_pb2.Endpoint]) -> list[lane_pb2.Endpoint]:
    """Those that are ready; where none is, those under suspicion: the control plane may be what was away."""
    by_state: dict[int, list[lane_pb2.Endpoint]] = {}
    for endpoint in endpoints:
        by_state.setdefault(endpoint.state, []).append(endpoint)
    return by_state.get(registry_pb2.INSTANCE_STATE_READY) or by_state.get(registry_pb2.INSTANCE_STATE_SUSPECT) or []


def _policy(policy: config_pb2.GatewayPolicy) -> Policy:
    return Policy(
        _limits(policy.default_limits),
        policy.max_body_byte_count or Policy().max_body_bytes,
        policy.allow_anonymous,
        policy.shadow_scoring,
        policy.currency,
        tuple(_issuer(one) for one in policy.token_issuers),
        _guards(policy.guards),
        _kept_responses(policy),
    )


def _guards(guards: config_pb2.GuardPolicies) -> GuardPolicies:
    known = {one.name: _guard_policy(one) for one in guards.policies}

    def named(names: Mapping[str, str]) -> dict[str, GuardPolicy]:
        return {who: known[name] for who, name in names.items() if name in known}

    return GuardPolicies(
        known.get(guards.default_policy), named(guards.organizations), named(guards.projects), named(guards.keys)
    )


def _guard_policy(one: config_pb2.GuardPolicy) -> GuardPolicy:
    return GuardPolicy(
        one.name,
        _guard_rules(one.input_rules),
        _guard_rules(one.output_rules),
        tuple(one.countries),
        tuple(one.blocked_terms),
    )


def _guard_rules(rules: Iterable[config_pb2.GuardRule]) -> tuple[tuple[DetectorName, Action], ...]:
    """What a newer control plane knows and this gateway does not: a detector that fails, the strictest action."""
    detectors = {name.value: name for name in DetectorName}
    actions = {action.value: action for action in Action}
    return tuple(
        (detectors.get(one.detector, DetectorName.UNKNOWN), actions.get(one.action, Action.REFUSE)) for one in rules
    )


def _kept_responses(policy: config_pb2.GatewayPolicy) -> Bounds:
    if not policy.HasField("responses"):  # a control plane that does not know of them
        return Policy().kept_responses
    return Bounds(policy.responses.kept_day_count * DAY_S, policy.responses.project_byte_count)


def _issuer(one: config_pb2.TokenIssuer) -> TokenIssuer:
    return TokenIssuer(
        one.issuer,
        one.audience,
        one.jwks_url,
        tuple(one.algorithms),
        one.project_claim,
        one.project,
        one.organization_claim,
        one.role_claim,
        {value: Role(role) for value, role in one.roles.items() if role in set(Role)},
    )


def _limits(limits: config_pb2.Limits) -> Limits:
    return Limits(
        limits.requests_per_minute,
        limits.tokens_per_minute,
        limits.concurrent_request_count,
        limits.tokens_per_day,
        limits.money_per_month,
    )
