"""The gRPC services as callers meet them: streams, refusals by reason, identities."""

import asyncio

import pytest
from control_running import controlled, echo, topology_where
from serin.control.v1 import config_pb2, config_pb2_grpc, lane_pb2, lane_pb2_grpc, registry_pb2, registry_pb2_grpc
from serin_control.assembly import CALLERS, Control
from serin_control.instance import Service
from serin_mesh.channels import connect
from serin_mesh.errors import MeshError, Reason
from serin_mesh.settings import ServiceSettings
from serin_mesh.testing import running

CONFIG = "models: {small: {path: x, aliases: [s], default_max_tokens: 99}}\nlimits: {tokens_per_minute: 7}\n"


@pytest.fixture
async def plane():
    """A control plane and a channel to it."""
    async with controlled(CONFIG) as (control, address), connect(address, ServiceSettings()) as channel:
        yield control, address, channel


def register_message(**changes) -> registry_pb2.AnnounceRequest:
    """A worker's registration."""
    fields = {
        "instance": "w1",
        "service": registry_pb2.SERVICE_KIND_WORKER,
        "model": "small",
        "version": "v1",
        "endpoint": "127.0.0.1:4000",
    } | changes
    return registry_pb2.AnnounceRequest(registration=registry_pb2.Registration(**fields))


def beat_message(artifact: str = "aa") -> registry_pb2.AnnounceRequest:
    """A worker that is ready."""
    return registry_pb2.AnnounceRequest(
        heartbeat=registry_pb2.Heartbeat(
            state=registry_pb2.INSTANCE_STATE_READY,
            digests=registry_pb2.Digests(artifact=artifact, vocabulary="bb", kv="cc"),
            capacity=registry_pb2.Capacity(context_length=128, block_size=16),
        )
    )


async def refusal(channel, *messages) -> MeshError:
    """What an announcement of these messages is refused with."""
    call = registry_pb2_grpc.RegistryServiceStub(channel).Announce(iter(messages))
    with pytest.raises(MeshError) as refused:
        async for _ in call:
            pass
    return refused.value


async def test_an_instance_is_seen_from_registration_to_withdrawal(plane):
    """Starting, ready, gone; the answer says how often to beat."""
    _, _, channel = plane
    stub = registry_pb2_grpc.RegistryServiceStub(channel)
    watch = stub.WatchInstances(registry_pb2.WatchInstancesRequest())
    assert list((await watch.read()).instances) == []
    call = stub.Announce()
    await call.write(register_message(endpoint="localhost:4000"))
    answer = await call.read()
    assert (answer.heartbeat_seconds, answer.lease_seconds) == (1.0, 3.0)
    (seen,) = (await watch.read()).instances
    assert (seen.heartbeat.state, seen.registration.endpoint) == (
        registry_pb2.INSTANCE_STATE_STARTING,
        "127.0.0.1:4000",
    )
    await call.write(beat_message())
    (seen,) = (await watch.read()).instances
    assert seen.heartbeat.state == registry_pb2.INSTANCE_STATE_READY
    assert (seen.heartbeat.digests.artifact, seen.heartbeat.capacity.context_length) == ("aa", 128)
    assert seen.registered_at.seconds > 1_700_000_000
    await call.write(registry_pb2.AnnounceRequest(withdrawal=registry_pb2.Withdrawal()))
    assert list((await watch.read()).instances) == []
    watch.cancel()


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([beat_message()], "a registration comes first"),
        ([register_message(), register_message()], "a registration comes first, and once"),
        ([registry_pb2.AnnounceRequest()], "a registration comes first"),
        ([register_message(service=0)], "service: 0: must be one of gateway,"),
        ([register_message(endpoint="nowhere.invalid:1")], "endpoint: host 'nowhere.invalid' does not resolve here"),
        ([register_message(endpoint="x")], "endpoint: 'x': must be host:port"),
        ([register_message(model="")], "model: '': must be 1 to 64"),
        (
            [register_message(), registry_pb2.AnnounceRequest(heartbeat=registry_pb2.Heartbeat())],
            "state: 0: must be STARTING",
        ),
    ],
)
async def test_announcements_that_cannot_be_true_are_refused(plane, messages, said):
    """REGISTRATION_INVALID, naming the field; nothing of it stays."""
    control, _, channel = plane
    error = await refusal(channel, *messages)
    assert error.reason is Reason.REGISTRATION_INVALID
    assert said in error.message
    assert all(held.suspect for held in control.plane.registry.instances())


async def test_other_files_under_the_same_version_are_refused(plane):
    """VERSION_MISMATCH on the stream of the newcomer; the sibling serves on, and whoever watches sees both."""
    _, _, channel = plane
    stub = registry_pb2_grpc.RegistryServiceStub(channel)
    sibling = stub.Announce()
    await sibling.write(register_message())
    await sibling.read()
    await sibling.write(beat_message())
    error = await refusal(channel, register_message(instance="w2", endpoint="127.0.0.1:4001"), beat_message("dd"))
    assert error.reason is Reason.VERSION_MISMATCH
    watch = stub.WatchInstances(registry_pb2.WatchInstancesRequest())
    while not (found := await watch.read()).alarms:
        pass
    starting, ready = registry_pb2.INSTANCE_STATE_STARTING, registry_pb2.INSTANCE_STATE_READY
    assert [one.heartbeat.state for one in found.instances] == [ready, starting]
    assert [one.refusal for one in found.instances] == ["", error.message]
    assert found.alarms[0] == f"w2 gets no traffic: {error.message}"
    sibling.cancel()


async def test_lanes_say_everything_a_gateway_needs(plane):
    """Model, aliases, defaults, policy, lanes with members and endpoints; revisions grow with each change."""
    control, address, channel = plane
    watch = lane_pb2_grpc.LaneServiceStub(channel).WatchLanes(lane_pb2.WatchLanesRequest())
    async with (
        echo(address, "t1", Service.TOKENIZER),
        echo(address, "c1", Service.CACHE),
        echo(address, "w1") as worker,
    ):
        last = 0
        while True:
            found = await watch.read()
            assert found.revision > last
            last = found.revision
            if found.models[0].lanes and found.caches:
                break
        (model,) = found.models
        assert (model.name, list(model.aliases), model.default_max_token_count) == ("small", ["s"], 99)
        assert found.policy.default_limits.tokens_per_minute == 7
        assert found.policy.max_body_byte_count == 4_194_304
        assert (found.policy.responses.kept_day_count, found.policy.responses.project_byte_count) == (30, 67_108_864)
        (lane,) = model.lanes
        assert (lane.weight, lane.context_length, lane.block_size, len(lane.lane)) == (10_000, 512, 16, 32)
        tokenizer, member = lane.members
        assert (tokenizer.service, member.service) == (
            registry_pb2.SERVICE_KIND_TOKENIZER,
            registry_pb2.SERVICE_KIND_WORKER,
        )
        assert (member.cluster, member.version) == ("worker.small@v1", "v1")
        (endpoint,) = member.endpoints
        assert (endpoint.instance, endpoint.endpoint, endpoint.state) == (
            "w1",
            worker.address,
            registry_pb2.INSTANCE_STATE_READY,
        )
        assert endpoint.capacity.sequence_count == 8
        assert [cache.instance for cache in found.caches] == ["c1"]
    await topology_where(control, lambda t: not t.models[0].lanes)
    watch.cancel()


async def test_names_are_published_and_change_without_a_restart(plane):
    """Cascades, fallbacks and tenants' aliases: all of them after one apply, to whoever watches."""
    _, _, channel = plane
    watch = lane_pb2_grpc.LaneServiceStub(channel).WatchLanes(lane_pb2.WatchLanesRequest())
    found = await watch.read()
    assert (list(found.cascades), list(found.tenants)) == ([], [])
    text = """
models: {small: {path: x, fallback: [mini]}, mini: {path: y}}
cascades:
  smart: {first: mini, then: small, escalate_when: {mean_logprob_below: -0.5, prompt_matches: [why], hint: true}}
tenants:
  acme:
    aliases: {chat: smart}
    projects: {web: {aliases: {best: chat}, fallbacks: false}}
"""
    stub = config_pb2_grpc.ConfigServiceStub(channel)
    await stub.ApplyConfig(config_pb2.ApplyConfigRequest(yaml=text))
    while not found.cascades:
        found = await watch.read()
    (smart,) = found.cascades
    assert (smart.name, smart.first, smart.then) == ("smart", "mini", "small")
    assert (smart.rules.mean_logprob_below, list(smart.rules.prompt_patterns), smart.rules.hint) == (
        -0.5,
        ["why"],
        True,
    )
    assert not smart.rules.HasField("min_logprob_below")
    assert {model.name: list(model.fallbacks) for model in found.models} == {"small": ["mini"], "mini": []}
    acme, web = found.tenants
    assert (acme.organization, acme.project, dict(acme.aliases)) == ("acme", "", {"chat": "smart"})
    assert (web.project, dict(web.aliases), web.refuse_fallbacks) == ("web", {"best": "chat"}, True)
    assert not acme.HasField("refuse_fallbacks")
    watch.cancel()


async def test_limits_and_issuers_are_published_and_change_without_a_restart(plane):
    """Limits of models and of keys' defaults, the currency, and whose tokens are believed: after one apply."""
    _, _, channel = plane
    watch = lane_pb2_grpc.LaneServiceStub(channel).WatchLanes(lane_pb2.WatchLanesRequest())
    found = await watch.read()
    text = """
models: {small: {path: x, limits: {tokens_per_day: 1000, money_per_month: 5000000}}}
limits: {concurrent_requests: 3}
currency: EUR
token_issuers:
  staff:
    issuer: https://login.example/
    audience: serin
    jwks_url: https://login.example/keys
    project_claim: team
    role_claim: groups
    roles: {sre: operator}
"""
    stub = config_pb2_grpc.ConfigServiceStub(channel)
    await stub.ApplyConfig(config_pb2.ApplyConfigRequest(yaml=text))
    while not found.policy.token_issuers:
        found = await watch.read()
    limits = found.models[0].limits
    assert (limits.tokens_per_day, limits.money_per_month, limits.requests_per_minute) == (1000, 5_000_000, 0)
    assert found.policy.default_limits.concurrent_request_count == 3
    assert found.policy.currency == "EUR"
    (issuer,) = found.policy.token_issuers
    assert (issuer.issuer, issuer.audience, issuer.jwks_url) == (
        "https://login.example/",
        "serin",
        "https://login.example/keys",
    )
    assert list(issuer.algorithms) == ["RS256", "ES256"]
    assert (issuer.project_claim, issuer.role_claim, dict(issuer.roles)) == ("team", "groups", {"sre": "operator"})
    watch.cancel()


async def test_configuration_is_read_applied_and_watched(plane):
    """Applying answers with what changed; bad text and old revisions are refused by reason; watchers see good ones."""
    _, _, channel = plane
    stub = config_pb2_grpc.ConfigServiceStub(channel)
    watch = stub.WatchConfig(config_pb2.WatchConfigRequest())
    assert (await watch.read()).yaml == CONFIG
    found = await stub.GetConfig(config_pb2.GetConfigRequest())
    assert (found.yaml, found.revision) == (CONFIG, 1)
    applied = await stub.ApplyConfig(config_pb2.ApplyConfigRequest(yaml=CONFIG.replace("7", "8"), expected_revision=1))
    assert (applied.revision, list(applied.changes)) == (2, ["limits.tokens_per_minute: 7 -> 8"])
    assert (await watch.read()).revision == 2
    for request, reason, said in (
        (
            config_pb2.ApplyConfigRequest(yaml="models:\n  a: {pth: x}"),
            Reason.CONFIG_INVALID,
            "serin.yaml:2: models.a.pth: unknown key",
        ),
        (
            config_pb2.ApplyConfigRequest(yaml=CONFIG, expected_revision=1),
            Reason.CONFIG_CONFLICT,
            "revision 2 is in force, not 1",
        ),
    ):
        with pytest.raises(MeshError) as refused:
            await stub.ApplyConfig(request)
        assert refused.value.reason is reason
        assert said in refused.value.message
    assert (await stub.GetConfig(config_pb2.GetConfigRequest())).revision == 2
    watch.cancel()


async def test_identities_decide_who_announces_what_and_who_applies(tls_dirs):
    """A worker cannot announce a gateway, only operators apply, everybody of the mesh may look."""
    control = Control()
    await control.start()
    settings = ServiceSettings(tls_dir=tls_dirs("control"), drain_grace_s=1, drain_notice_s=0)
    async with running(control.register, "control", settings=settings, callers=CALLERS) as server:
        loop = asyncio.create_task(control.run())

        def channel_of(service: str):
            return connect(server.address, ServiceSettings(tls_dir=tls_dirs(service)), service="control")

        async with channel_of("worker") as worker, channel_of("cli") as operator:
            error = await refusal(worker, register_message(service=registry_pb2.SERVICE_KIND_GATEWAY, model=""))
            assert error.reason is Reason.IDENTITY_REFUSED
            assert "names worker; it announces a gateway" in error.message
            assert (await refusal(operator, register_message())).reason is Reason.IDENTITY_REFUSED
            call = registry_pb2_grpc.RegistryServiceStub(worker).Announce()
            await call.write(register_message())
            assert (await call.read()).lease_seconds == 3.0
            request = config_pb2.ApplyConfigRequest(yaml=CONFIG)
            with pytest.raises(MeshError) as refused:
                await config_pb2_grpc.ConfigServiceStub(worker).ApplyConfig(request)
            assert refused.value.reason is Reason.IDENTITY_REFUSED
            assert (await config_pb2_grpc.ConfigServiceStub(operator).ApplyConfig(request)).revision == 1
            call.cancel()
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)
