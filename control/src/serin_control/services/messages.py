"""Protobuf to our own types and back. Knows nothing about calls."""

from collections.abc import Iterable

from google.protobuf import timestamp_pb2
from serin.control.v1 import config_pb2, lane_pb2, registry_pb2

from serin_control.config.declaration import GuardPolicyConfig, GuardRuleConfig, GuardsConfig
from serin_control.errors import RegistrationInvalid
from serin_control.instance import Capacity, Digests, Formats, Instance, Registration, Service, State, Status
from serin_control.lanes import Lane, Member
from serin_control.plan import Limits, ModelPlan, Policy
from serin_control.plane import Standing
from serin_control.services.naming_messages import cascade_messages, tenant_messages
from serin_control.topology import ModelLanes, Topology

SERVICES = {
    registry_pb2.SERVICE_KIND_GATEWAY: Service.GATEWAY,
    registry_pb2.SERVICE_KIND_TOKENIZER: Service.TOKENIZER,
    registry_pb2.SERVICE_KIND_WORKER: Service.WORKER,
    registry_pb2.SERVICE_KIND_CACHE: Service.CACHE,
    registry_pb2.SERVICE_KIND_CONTROL: Service.CONTROL,
}
KINDS = {service: kind for kind, service in SERVICES.items()}
_STATES = {
    registry_pb2.INSTANCE_STATE_STARTING: State.STARTING,
    registry_pb2.INSTANCE_STATE_READY: State.READY,
    registry_pb2.INSTANCE_STATE_DRAINING: State.DRAINING,
    registry_pb2.INSTANCE_STATE_SUSPECT: State.SUSPECT,
}
_STATE_NUMBERS = {state: number for number, state in _STATES.items()}


def registration_from(message: registry_pb2.Registration) -> Registration:
    """A registration.

    Raises:
        RegistrationInvalid: it names no service.
    """
    service = SERVICES.get(message.service)
    if service is None:
        raise RegistrationInvalid(f"service: {message.service}: must be one of {', '.join(KINDS)}")
    return Registration(
        message.instance,
        service,
        message.model,
        message.version,
        message.endpoint,
        message.http_endpoint,
        Formats(message.formats.written, tuple(message.formats.read)),
    )


def status_from(message: registry_pb2.Heartbeat) -> Status:
    """What an instance says about itself.

    Raises:
        RegistrationInvalid: it names no state.
    """
    state = _STATES.get(message.state)
    if state is None:
        raise RegistrationInvalid(f"state: {message.state}: must be STARTING, READY or DRAINING")
    digests, capacity = message.digests, message.capacity
    return Status(
        state=state,
        progress=message.progress,
        activity=message.activity[:200],
        digests=Digests(digests.artifact, digests.vocabulary, digests.kv, digests.numerics_class),
        capacity=Capacity(
            capacity.sequence_count,
            capacity.block_count,
            capacity.block_size,
            capacity.context_length,
            max(1, capacity.group_size),
            capacity.embedding_dimension_count,
        ),
    )


def standing_message(standing: Standing) -> registry_pb2.WatchInstancesResponse:
    """All instances and alarms."""
    return registry_pb2.WatchInstancesResponse(
        instances=[instance_message(instance) for instance in standing.instances], alarms=standing.alarms
    )


def instance_message(instance: Instance) -> registry_pb2.Instance:
    """One instance."""
    who, said = instance.registration, instance.status
    beat = registry_pb2.Heartbeat(
        state=_STATE_NUMBERS[instance.state],
        progress=said.progress,
        activity=said.activity,
        capacity=_capacity(instance),
    )
    digests = said.digests
    beat.digests.artifact, beat.digests.vocabulary = digests.artifact, digests.vocabulary
    beat.digests.kv, beat.digests.numerics_class = digests.kv, digests.numerics_class
    registered_at = timestamp_pb2.Timestamp()
    registered_at.FromNanoseconds(int(instance.registered_at * 1e9))
    return registry_pb2.Instance(
        registration=registry_pb2.Registration(
            instance=who.instance,
            service=KINDS[who.service],
            model=who.model,
            version=who.version,
            endpoint=who.endpoint,
            http_endpoint=who.http_endpoint,
            formats=registry_pb2.Formats(written=who.formats.written, read=who.formats.read)
            if who.formats.written
            else None,
        ),
        heartbeat=beat,
        registered_at=registered_at,
        refusal=instance.refusal,
    )


def lanes_message(topology: Topology, revision: int) -> lane_pb2.WatchLanesResponse:
    """All models and their lanes."""
    return lane_pb2.WatchLanesResponse(
        revision=revision,
        models=[_model(model) for model in topology.models],
        caches=_endpoints(topology.caches),
        policy=_policy(topology.policy),
        cascades=cascade_messages(topology.naming),
        tenants=tenant_messages(topology.naming),
    )


def _model(model: ModelLanes) -> lane_pb2.Model:
    trial = model.plan.trial
    return lane_pb2.Model(
        trial=lane_pb2.Trial(
            rollout_id=trial.rollout,
            stable_lane=trial.stable_lane,
            canary_lane=trial.canary_lane,
            shadow_rate=trial.shadow_rate,
            calibration_rate=trial.calibration_rate,
        )
        if trial
        else None,
        name=model.plan.name,
        aliases=model.plan.aliases,
        lanes=[_lane(lane, model.plan) for lane in model.lanes],
        default_max_token_count=model.plan.default_max_tokens,
        limits=_limits(model.plan.limits),
        fallbacks=model.plan.fallbacks,
    )


def _lane(lane: Lane, plan: ModelPlan) -> lane_pb2.Lane:
    version = next((member.version for member in lane.members if member.service is Service.WORKER), "")
    price = plan.price_of(version)
    return lane_pb2.Lane(
        lane=lane.id,
        weight=lane.weight,
        vocabulary_digest=lane.vocabulary,
        kv_digest=lane.kv,
        context_length=lane.context_length,
        block_size=lane.block_size,
        members=[_member(member) for member in lane.members],
        price=config_pb2.Price(input=price.input, cached_input=price.cached_input, output=price.output),
    )


def _member(member: Member) -> lane_pb2.LaneMember:
    return lane_pb2.LaneMember(
        service=KINDS[member.service],
        version=member.version,
        artifact_digest=member.artifact_digest,
        cluster=member.cluster,
        endpoints=_endpoints(member.instances),
    )


def _endpoints(instances: Iterable[Instance]) -> list[lane_pb2.Endpoint]:
    return [
        lane_pb2.Endpoint(
            instance=instance.registration.instance,
            endpoint=instance.registration.endpoint,
            state=_STATE_NUMBERS[instance.state],
            capacity=_capacity(instance),
        )
        for instance in instances
    ]


def _capacity(instance: Instance) -> registry_pb2.Capacity:
    capacity = instance.status.capacity
    return registry_pb2.Capacity(
        sequence_count=capacity.num_sequences,
        block_count=capacity.num_blocks,
        block_size=capacity.block_size,
        context_length=capacity.context_length,
        group_size=capacity.group_size,
        embedding_dimension_count=capacity.num_embedding_dimensions,
    )


def _policy(policy: Policy) -> config_pb2.GatewayPolicy:
    return config_pb2.GatewayPolicy(
        default_limits=_limits(policy.limits),
        max_body_byte_count=policy.max_body_bytes,
        allow_anonymous=policy.allow_anonymous,
        shadow_scoring=policy.shadow_scoring,
        currency=policy.currency,
        token_issuers=[config_pb2.TokenIssuer(**issuer.model_dump()) for issuer in policy.token_issuers],
        guards=_guards(policy.guards),
        responses=config_pb2.ResponsePolicy(
            kept_day_count=policy.responses.kept_days, project_byte_count=policy.responses.project_bytes
        ),
    )


def _guards(guards: GuardsConfig) -> config_pb2.GuardPolicies:
    return config_pb2.GuardPolicies(
        policies=[_guard_policy(name, one) for name, one in guards.policies.items()],
        default_policy=guards.default or "",
        organizations=guards.organizations,
        projects=guards.projects,
        keys=guards.keys,
    )


def _guard_policy(name: str, one: GuardPolicyConfig) -> config_pb2.GuardPolicy:
    rules: dict[str, GuardRuleConfig] = {key: getattr(one, key) for key in GuardPolicyConfig.model_fields}

    def chosen(direction: str) -> list[config_pb2.GuardRule]:
        actions = {detector: getattr(rule, direction) for detector, rule in rules.items()}
        return [
            config_pb2.GuardRule(detector=key, action=action) for key, action in actions.items() if action != "none"
        ]

    return config_pb2.GuardPolicy(
        name=name,
        input_rules=chosen("input"),
        output_rules=chosen("output"),
        countries=one.pii.countries,
        blocked_terms=one.blocked.terms,
    )


def _limits(limits: Limits) -> config_pb2.Limits:
    return config_pb2.Limits(
        requests_per_minute=limits.requests_per_minute,
        tokens_per_minute=limits.tokens_per_minute,
        concurrent_request_count=limits.concurrent_requests,
        tokens_per_day=limits.tokens_per_day,
        money_per_month=limits.money_per_month,
    )
