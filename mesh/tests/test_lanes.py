"""Watching lanes: the newest answer is in force, and the last one stays while the control plane is away."""

import asyncio
import signal
import sys
from pathlib import Path

from serin.control.v1 import lane_pb2, registry_pb2
from serin_mesh.announce import Announcement
from serin_mesh.interceptors.lane_echo import draw_lane
from serin_mesh.lanes import LaneWatch
from serin_mesh.settings import ServiceSettings
from serin_mesh.testing import ControlTwin, free_port, running

PROGRAM = Path(__file__).with_name("lanes_process.py")
WORKER = registry_pb2.SERVICE_KIND_WORKER


def lanes(revision: int, **weights: int) -> lane_pb2.WatchLanesResponse:
    """Lanes of one model by weight; a lane's worker has the version that is its name's last letter."""
    model = lane_pb2.Model(name="small")
    for lane, weight in weights.items():
        member = lane_pb2.LaneMember(service=WORKER, version=f"v{lane[-1]}")
        model.lanes.append(lane_pb2.Lane(lane=lane, weight=weight, members=[member]))
    return lane_pb2.WatchLanesResponse(revision=revision, models=[model])


async def test_first_and_changes(echo) -> None:
    """The first snapshot as soon as there is one, then each newest."""
    twin = ControlTwin()
    await twin.publish(lanes(1, a1=1))
    async with (
        running(twin.register, "control") as control,
        LaneWatch(ServiceSettings(control=control.address)) as watch,
    ):
        assert (await watch.first()).revision == 1
        changes = watch.changes()
        assert (await anext(changes)).revision == 1
        await twin.publish(lanes(2, a1=1))
        assert (await anext(changes)).revision == 2
        await changes.aclose()


async def test_the_last_answer_outlives_the_control_plane(echo) -> None:
    """A restart of the control plane is a gap in news, not in service."""
    twin = ControlTwin()
    await twin.publish(lanes(1, a1=1))
    async with running(twin.register, "control") as control:
        port = control.port
        watch = LaneWatch(ServiceSettings(control=control.address))
        await watch.__aenter__()
        await watch.first()
    assert watch.current is not None
    assert watch.current.revision == 1
    again = ControlTwin()
    await again.publish(lanes(2, a1=1))
    changes = watch.changes()
    await anext(changes)
    async with running(again.register, "control", settings=ServiceSettings(port=port, drain_grace_s=1)):
        assert (await anext(changes)).revision == 2
        await changes.aclose()
        await watch.__aexit__()


async def test_another_control_plane_takes_over() -> None:
    """With the first one dead the second one's answer is used."""
    twin = ControlTwin()
    await twin.publish(lanes(5, a1=1))
    async with running(ControlTwin().register, "control") as dead:
        gone = dead.address
    async with (
        running(twin.register, "control") as control,
        LaneWatch(ServiceSettings(control=f"{gone},{control.address}")) as watch,
        asyncio.timeout(60),
    ):
        assert (await watch.first()).revision == 5


async def test_one_that_hangs_is_left_for_another() -> None:
    """SIGSTOP of the one that is listened to: its stream stands, and the other one's answer is used."""
    port, twin = free_port(), ControlTwin()
    await twin.publish(lanes(5, a1=1))
    hanging = await asyncio.create_subprocess_exec(
        sys.executable, str(PROGRAM), str(port), "1", stdout=asyncio.subprocess.PIPE
    )
    try:
        assert hanging.stdout is not None
        assert await hanging.stdout.readline() == b"serving\n"
        async with (
            running(twin.register, "control") as control,
            LaneWatch(ServiceSettings(control=f"127.0.0.1:{port},{control.address}")) as watch,
            asyncio.timeout(60),
        ):
            changes = watch.changes()
            assert (await anext(changes)).revision == 1
            hanging.send_signal(signal.SIGSTOP)
            assert (await anext(changes)).revision == 5
            await changes.aclose()
    finally:
        hanging.kill()
        await hanging.wait()


async def test_lanes_of_a_version_heaviest_first() -> None:
    """Only lanes that hold the version count."""
    twin = ControlTwin()
    await twin.publish(lanes(1, a1=1, b1=9, c2=90))
    async with (
        running(twin.register, "control") as control,
        LaneWatch(ServiceSettings(control=control.address)) as watch,
    ):
        await watch.first()
        assert watch.lanes_of(WORKER, "small", "v1") == {"b1": 9, "a1": 1}
        assert list(watch.lanes_of(WORKER, "small", "v1")) == ["b1", "a1"]
        assert watch.lanes_of(WORKER, "small", "v3") == {}
        assert watch.lanes_of(WORKER, "large", "v1") == {}


async def test_an_instance_answers_with_its_own_lane(echo, stub_of) -> None:
    """A server that announces itself learns its lanes and tells its callers one that has weight."""
    twin = ControlTwin()
    await twin.publish(lanes(1, a1=0, b1=9))
    async with running(twin.register, "control") as control:
        settings = ServiceSettings(control=control.address, drain_notice_s=0, drain_grace_s=5)
        async with running(echo.register, settings=settings, announce=Announcement(model="small")) as server:
            await server.lanes.first()
            async with server.connect() as channel:
                call = stub_of(channel).unary(b"x")
                await call
                assert dict(await call.initial_metadata())["serin-lane"] == "b1"


def test_callers_without_a_lane_are_spread_by_weight_over_shared_lanes() -> None:
    """An instance of two lanes sends as many conversations to each as its weight says; one of weight 0 gets none."""
    drawn = [draw_lane({"a": 9_000, "b": 1_000, "c": 0}) for _ in range(4_000)]
    assert set(drawn) == {"a", "b"}
    assert 300 < drawn.count("b") < 500, "10 % of 4,000, more than 5 standard deviations away"
    assert draw_lane({"a": 0, "b": 0}) == "a"
