"""Real `xds:///` clients of grpcio against the control plane: splits, lanes, pins, changes, restarts."""

import asyncio
import collections
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import grpc
import pytest
from control_envoy import enveloped
from control_running import Arrivals, caller, controlled, echo, lanes, topology_where
from serin.control.v1 import lane_pb2, lane_pb2_grpc
from serin_control import plane
from serin_control.instance import Service, State
from serin_control.plan import ModelPlan, Share, TrafficPlan
from serin_control.store import MemoryStore
from serin_control.xds import clusters
from serin_control.xds.edge import EdgeSettings
from serin_control.xds.resources import Audience, Kind
from serin_mesh.channels import connect, pick_cookie
from serin_mesh.load import LoadReport
from serin_mesh.settings import ServiceSettings

CONFIG = "models: {small: {versions: {v1: {path: x, weight: %d}, v2: {path: y, weight: %d}}}}"


@pytest.fixture
async def mesh():
    """Two versions of a model, one tokenizer and one worker each (two of v1), a control plane and a caller."""
    async with AsyncExitStack() as stack:
        control, address = await stack.enter_async_context(controlled(CONFIG % (80, 20), MemoryStore()))
        hosts = {}
        for name, service, version in (
            ("t1", Service.TOKENIZER, "v1"),
            ("t2", Service.TOKENIZER, "v2"),
            ("w1a", Service.WORKER, "v1"),
            ("w1b", Service.WORKER, "v1"),
            ("w2", Service.WORKER, "v2"),
        ):
            hosts[name] = await stack.enter_async_context(echo(address, name, service, version))
        await topology_where(
            control,
            lambda t: (
                len(lanes(t)) == 2
                and sum(len(m.instances) for one in t.models for lane in one.lanes for m in lane.members) == 5
            ),
        )
        yield control, hosts, await stack.enter_async_context(caller(address))


async def test_splits_lanes_and_pins(mesh):
    """Weights without a lane, exactly one version with it, exactly one endpoint with a pick, no other lane at all."""
    control, hosts, client = mesh
    counts = await client.call("worker.small", 400)
    assert set(counts) == {"w1a", "w1b", "w2"}
    assert 40 <= counts["w2"] <= 130, "20 % of 400, more than 4 standard deviations away"
    counts = await client.call("tokenizer.small", 100)
    assert set(counts) == {"t1", "t2"}
    both = lanes(control.plane.topologies.value)
    assert await client.call("worker.small", 50, serin_lane=both["v2"][0]) == {"w2": 50}
    assert set(await client.call("worker.small", 50, serin_lane=both["v1"][0])) == {"w1a", "w1b"}
    key, cookie = pick_cookie("worker.small@v1", hosts["w1b"].address)
    assert await client.call("worker.small", 50, **{key: cookie, "serin_lane": both["v1"][0]}) == {"w1b": 50}
    assert await client.call("worker.small", 30, **{key: cookie}) == {"w1b": 30}
    assert await client.call("worker.small", 30, **{key: cookie, "serin_lane": both["v2"][0]}) == {"w2": 30}


async def test_unknown_lanes_are_refused_never_sent_by_weight(mesh):
    """A lane that does not exist is LANE_GONE on the first call and on every other."""
    _, _, client = mesh
    assert await client.call("worker.small", 20, serin_lane="0" * 32) == {"LANE_GONE": 20}


async def test_calls_with_ids_stay_in_their_vocabulary(mesh):
    """Both versions hold one vocabulary here: the header splits by weight; one of another does not reach by lane."""
    control, _, client = mesh
    vocabulary = control.plane.topologies.value.models[0].lanes[0].vocabulary
    assert set(await client.call("worker.small", 200, serin_vocabulary=vocabulary)) == {"w1a", "w1b", "w2"}


async def test_callers_split_alike_where_lanes_share_a_tokenizer(monkeypatch):
    """A rollout of the worker alone: who begins at the shared tokenizer meets the canary as often as others."""
    shares = [
        Share(((Service.TOKENIZER, "v1"), (Service.WORKER, worker)), weight)
        for worker, weight in (("v1", 7), ("v2", 3))
    ]
    planned = TrafficPlan({"small": ModelPlan("small", shares=tuple(shares))})
    monkeypatch.setattr(plane, "declared_plan", lambda config: planned)
    async with AsyncExitStack() as stack:
        control, address = await stack.enter_async_context(controlled("models: {small: {path: x}}"))
        for name, service, version in (
            ("t1", Service.TOKENIZER, "v1"),
            ("w1", Service.WORKER, "v1"),
            ("w2", Service.WORKER, "v2"),
        ):
            await stack.enter_async_context(echo(address, name, service, version))
        await topology_where(control, lambda topology: len(lanes(topology)) == 2)
        client = await stack.enter_async_context(caller(address))
        await eventually(lambda: client.call("worker.small", 30), lambda counts: set(counts) == {"w1", "w2"})
        counts = await client.converse("tokenizer.small", "worker.small", 400)
        assert 83 <= counts["w2"] <= 157, "30 % of 400, more than 4 standard deviations away"


async def test_a_weight_change_reaches_clients_and_pins_survive_it(mesh):
    """New weights are in force without a new channel; a pin to the version that gave its traffic up still holds."""
    control, hosts, client = mesh
    assert "w1a" in await client.call("worker.small", 50)
    changes = await control.plane.declared.apply(CONFIG % (0, 100))
    assert changes == ["models.small.versions.v1.weight: 80 -> 0", "models.small.versions.v2.weight: 20 -> 100"]
    await published(control, lambda: lanes(control.plane.topologies.value)["v2"][1] == 9999)
    await eventually(lambda: client.call("worker.small", 40), lambda counts: counts == {"w2": 40})
    key, cookie = pick_cookie("worker.small@v1", hosts["w1a"].address)
    assert await client.call("worker.small", 40, **{key: cookie}) == {"w1a": 40}
    assert set(await client.call("worker.small", 40, serin_lane=lanes(control.plane.topologies.value)["v1"][0])) == {
        "w1a",
        "w1b",
    }


async def test_a_lane_that_drains_answers_who_names_it_and_nobody_else(mesh):
    """Weight 0, and the pin to one of its endpoints holds as long as the call names the lane."""
    control, hosts, client = mesh
    before = lanes(control.plane.topologies.value)
    assert "w1a" in await client.call("worker.small", 50)
    sets = [lane.versions for lane in control.plane.topologies.value.models[0].lanes]  # v1 is the heavier one

    def drained(plan: TrafficPlan) -> TrafficPlan:
        small = replace(plan.models["small"], shares=(Share(sets[1], 1),), draining=(sets[0],))
        return replace(plan, models={"small": small})

    control.plane.steer(drained)
    assert lanes(control.plane.topologies.value) == {"v1": (before["v1"][0], 0), "v2": (before["v2"][0], 10_000)}
    await eventually(lambda: client.call("worker.small", 40), lambda counts: counts == {"w2": 40})
    assert await client.call("tokenizer.small", 20, serin_lane=before["v1"][0]) == {"t1": 20}
    key, cookie = pick_cookie("worker.small@v1", hosts["w1a"].address)
    assert await client.call("worker.small", 40, **{key: cookie, "serin_lane": before["v1"][0]}) == {"w1a": 40}


async def test_a_lane_is_given_sessions_only_once_callers_know_it(mesh):
    """Make before break: whoever hears in `WatchLanes` that a lane has sessions can call it at once, every time."""
    control, _, client = mesh
    assert set(await client.call("worker.small", 5)) <= {"w1a", "w1b", "w2"}
    async with AsyncExitStack() as stack:
        channel = await stack.enter_async_context(connect(client.control, ServiceSettings(), echo_lane=False))
        watch = lane_pb2_grpc.LaneServiceStub(channel).WatchLanes(lane_pb2.WatchLanesRequest())
        for number in range(3, 5):
            await stack.enter_async_context(echo(client.control, f"t{number}", Service.TOKENIZER, f"v{number}"))
            await stack.enter_async_context(echo(client.control, f"w{number}", version=f"v{number}"))
            newer = "".join(f", v{n}: {{path: x, weight: 20}}" for n in range(3, number + 1))
            await control.plane.declared.apply((CONFIG % (80, 20)).replace("}}}}", f"}}{newer}}}}}}}"))
            async for found in watch:
                having = {lane.members[1].version: lane.lane for lane in found.models[0].lanes if lane.weight}
                if f"v{number}" in having:
                    break
            lane = having[f"v{number}"]
            assert await client.call("worker.small", 20, serin_lane=lane) == {f"w{number}": 20}


async def test_a_draining_worker_gets_no_new_calls_and_keeps_its_pins(mesh):
    """SIGTERM on one of two: others take over at once, who holds a pin is still served."""
    control, hosts, client = mesh
    lane = lanes(control.plane.topologies.value)["v1"][0]
    assert await client.call("worker.small", 20, serin_lane=lane)
    hosts["w1a"].readiness.draining()
    await topology_where(
        control,
        lambda t: (
            State.DRAINING in {i.state for one in t.models for x in one.lanes for m in x.members for i in m.instances}
        ),
    )
    await eventually(lambda: client.call("worker.small", 20, serin_lane=lane), lambda counts: counts == {"w1b": 20})
    key, cookie = pick_cookie("worker.small@v1", hosts["w1a"].address)
    assert await client.call("worker.small", 20, **{key: cookie, "serin_lane": lane}) == {"w1a": 20}


async def test_a_model_that_nothing_serves_answers_at_once():
    """Declared but not running: refused now, not after a timer."""
    async with controlled("models: {small: {path: x}}") as (_, address), caller(address) as client:
        assert await client.call("worker.small", 2) == {"LANE_GONE": 2}
        assert await client.call("cache", 1) == {"LANE_GONE": 1}


async def test_empty_never_replaces_full():
    """When the last worker withdraws, lanes are honest at once, while routes keep their last endpoints."""
    async with AsyncExitStack() as stack:
        control, address = await stack.enter_async_context(controlled("models: {small: {path: x}}"))
        await stack.enter_async_context(echo(address, "t1", Service.TOKENIZER))
        client = await stack.enter_async_context(caller(address))
        async with echo(address, "w1") as host:
            await eventually(lambda: client.call("worker.small", 5), lambda counts: counts == {"w1": 5})
            held = control.publisher.snapshots.value
        await topology_where(control, lambda t: not t.models[0].lanes)
        await control.publisher.publish(control.plane.topologies.value)
        now = control.publisher.snapshots.value
        for place, resources in held.resources.items():
            assert set(now.resources[place]) >= set(resources)
        kept = now.resources[Audience.MESH, Kind.ASSIGNMENT]["worker.small@v1"].spec.endpoints
        assert [f"{endpoint.host}:{endpoint.port}" for endpoint in kept] == [host.address]
        async with echo(address, "w2"):
            await eventually(lambda: client.call("worker.small", 5), lambda counts: counts == {"w2": 5})


async def test_a_restart_of_the_control_plane_is_invisible():
    """Calls go on while it is away and after it is back, from what was stored and what announces itself again."""
    store = MemoryStore()
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(AsyncExitStack())
        control, address = await first.enter_async_context(controlled("models: {small: {path: x}}", store))
        port = int(address.rpartition(":")[2])
        for name, service in (("t1", Service.TOKENIZER), ("w1", Service.WORKER)):
            await stack.enter_async_context(echo(address, name, service))
        client = await stack.enter_async_context(caller(address))
        await eventually(lambda: client.call("worker.small", 5), lambda counts: counts == {"w1": 5})
        await eventually(store.read_mesh, lambda mesh: len(mesh.instances) == 2 and mesh.carried)
        before = control.publisher.snapshots.value

        await first.aclose()
        assert await client.call("worker.small", 20) == {"w1": 20}
        control, again = await stack.enter_async_context(controlled("models: {small: {path: x}}", store, port=port))
        assert again == address
        assert await client.call("worker.small", 20) == {"w1": 20}
        after = (await control.publisher.snapshots.after(0))[1]
        assert after.resources == before.resources
        while control.ads.num_streams == 0:
            assert await client.call("worker.small", 5) == {"w1": 5}
        async with echo(address, "w2"):
            await eventually(lambda: client.call("worker.small", 20), lambda counts: set(counts) == {"w1", "w2"})


@pytest.mark.long
async def test_versions_come_and_go_without_a_failed_call(tmp_path):
    """Six releases under load, by `xds:///` and through Envoy: every single call is answered.

    Each is a new version's start, all weight moved to it, and the old one's end: make before break, both ways.
    """
    answers = {"xds": collections.Counter(), "envoy": collections.Counter()}
    async with AsyncExitStack() as stack:
        edge = EdgeSettings(mesh_port=0)
        control, address = await stack.enter_async_context(controlled(releases(0), edge=edge))
        for number in range(7):
            await stack.enter_async_context(echo(address, f"t{number}", Service.TOKENIZER, f"v{number}"))
        client = await stack.enter_async_context(caller(address))
        where = await stack.enter_async_context(enveloped(address, tmp_path))
        running = AsyncExitStack()
        await running.enter_async_context(echo(address, "0", version="v0", drain_notice_s=1))
        await eventually(lambda: client.call("worker.small", 5), lambda counts: set(counts) == {"0"})
        options = [("grpc.default_authority", "worker.small")]
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(await where("mesh"), options=options))
        say = channel.unary_unary("/echo.Echo/Say")
        await eventually(lambda: ends_of(say, wait_for_ready=True), lambda ends: set(ends) == {"0"})
        news = asyncio.Event()

        async def load(kind: str, ask) -> None:
            while True:
                latest[kind] = await ask()
                answers[kind] += latest[kind]
                news.set()

        latest: dict[str, collections.Counter[str]] = {}
        loads = [
            asyncio.create_task(load("xds", lambda: client.call("worker.small", 20))),
            asyncio.create_task(load("envoy", lambda: ends_of(say))),
        ]
        for number in range(1, 7):
            newer = AsyncExitStack()
            await newer.enter_async_context(echo(address, str(number), version=f"v{number}", drain_notice_s=1))
            await control.plane.declared.apply(releases(number))
            while [set(counts) for counts in latest.values()] != [{str(number)}] * 2:
                news.clear()
                await news.wait()
            await running.aclose()
            running = newer
        for task in loads:
            task.cancel()
        await asyncio.gather(*loads, return_exceptions=True)
        await running.aclose()
    for kind, counts in answers.items():
        assert set(counts) == {str(number) for number in range(7)}, kind
        assert sum(counts.values()) > 500, kind


def releases(heavy: int) -> str:
    """Seven versions, of which one has all the weight."""
    versions = ", ".join(f"v{number}: {{path: x, weight: {100 * (number == heavy)}}}" for number in range(7))
    return f"models: {{small: {{versions: {{{versions}}}}}}}"


async def ends_of(say, **options) -> collections.Counter[str]:
    """How twenty calls through Envoy ended: who answered, or the status."""
    ends: collections.Counter[str] = collections.Counter()
    for _ in range(20):
        try:
            ends[(await say(b"", timeout=60, **options)).decode()] += 1
        except grpc.aio.AioRpcError as error:
            ends[f"{error.code().name}: {error.details()}"] += 1
    return ends


@pytest.mark.long
async def test_calls_follow_the_load_that_workers_tell(mesh_of):
    """ORCA out of band: a worker that is ten times as used gets clearly less."""
    busy, idle = LoadReport(utilization=1.0, requests_per_s=10), LoadReport(utilization=0.1, requests_per_s=10)
    async with mesh_of({"busy": {"load": busy}, "idle": {"load": idle}}) as client:
        await eventually(
            lambda: client.call("worker.small", 100), lambda counts: counts.get("idle", 0) > 3 * counts.get("busy", 0)
        )


@pytest.mark.long
async def test_an_endpoint_that_only_fails_is_left_out(mesh_of):
    """Outlier detection works with two endpoints, and for the only one of a version."""
    async with mesh_of({"good": {}, "bad": {"fails": True}}) as client:
        await eventually(lambda: client.call("worker.small", 60), lambda counts: counts == {"good": 60})
    async with mesh_of({"bad": {"fails": True}}) as client:
        await eventually(lambda: client.call("worker.small", 60), lambda counts: "UPSTREAM_UNAVAILABLE" in counts)


@pytest.mark.long
async def test_what_a_caller_cancels_does_not_cost_it_its_only_worker(mesh_of):
    """Cancels are failures to grpcio: fewer than 100 in two seconds have no effect, and pinned calls always arrive."""
    arrivals = Arrivals()
    async with mesh_of({"w1": {"holding": arrivals}}) as client:
        await client.hold("worker.small", 90)
        await arrivals.until(90)
        assert await client.cancel() == {"CANCELLED": 90}
        begun = time.monotonic()
        while time.monotonic() - begun < 5:  # two intervals; so few that they do not outweigh the cancels
            assert await client.call("worker.small") == {"w1": 1}
            await asyncio.sleep(0.5)


@pytest.mark.long
async def test_a_pinned_call_reaches_an_endpoint_that_is_left_out(mesh_of):
    """A gateway that places its calls itself is not kept from its only worker, whatever others cancelled."""
    arrivals = Arrivals()
    async with mesh_of({"w1": {"holding": arrivals}}) as client:
        await client.call("worker.small")
        await client.hold("worker.small", 1_000)
        await arrivals.until(1_000)
        await client.cancel()
        await eventually(lambda: client.call("worker.small"), lambda counts: "UPSTREAM_UNAVAILABLE" in counts)
        key, cookie = pick_cookie("worker.small@v1", client.addresses["w1"])
        assert await client.call("worker.small", 5, **{key: cookie}) == {"w1": 5}
        await eventually(lambda: client.call("worker.small"), lambda counts: counts == {"w1": 1})


async def test_calls_above_the_fuse_are_refused_at_once(mesh_of, monkeypatch):
    """Circuit breaker: of ten calls at once to a cluster that may have four, six fail and four run on."""
    monkeypatch.setattr(clusters, "MAX_REQUESTS", 4)
    arrivals = Arrivals()
    async with mesh_of({"w1": {"holding": arrivals}}) as client:
        await client.hold("worker.small", 10)
        await arrivals.until(4)
        assert await client.call("worker.small") == {"UPSTREAM_UNAVAILABLE": 1}
        assert await client.cancel() == {"CANCELLED": 4, "UPSTREAM_UNAVAILABLE": 6}
        await eventually(lambda: client.call("worker.small"), lambda counts: counts == {"w1": 1})


@pytest.fixture
def mesh_of():
    """A mesh of one version with these workers; yields a caller, who knows their addresses."""

    @asynccontextmanager
    async def make(workers: dict[str, dict]):
        async with AsyncExitStack() as stack:
            control, address = await stack.enter_async_context(controlled("models: {small: {path: x}}"))
            await stack.enter_async_context(echo(address, "t1", Service.TOKENIZER))
            hosts = {name: await stack.enter_async_context(echo(address, name, **w)) for name, w in workers.items()}
            await topology_where(
                control, lambda t: t.complete and len(t.models[0].lanes[0].members[1].instances) == len(workers)
            )
            client = await stack.enter_async_context(caller(address))
            client.addresses = {name: host.address for name, host in hosts.items()}
            yield client

    return make


async def published(control, holds):
    """Wait until something holds of what is published."""
    seen = 0
    while not holds():
        seen, _ = await control.publisher.snapshots.after(seen)


async def eventually(ask, holds):
    """Ask until the answer is right; the test's own time limit is the end."""
    while not holds(answer := await ask()):  # noqa: ASYNC110 - a client process tells nobody when it changed
        await asyncio.sleep(0.05)
    return answer
