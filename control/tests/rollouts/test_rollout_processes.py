"""Rollouts over real processes and a real Valkey: a control plane dies in every step; two of them share the work."""

import asyncio
import time
from contextlib import AsyncExitStack

import pytest
from control_process import PATIENCE_S, Process, control_process
from control_running import echo
from serin.control.v1 import lane_pb2, lane_pb2_grpc, registry_pb2, rollout_pb2, rollout_pb2_grpc
from serin_control.instance import Service
from serin_mesh.channels import connect
from serin_mesh.errors import MeshError, Reason
from serin_mesh.settings import ServiceSettings
from serin_mesh.testing import free_port

CONFIG = "models: {small: {versions: {v1: {path: /m/v1, weight: 1}, v2: {path: /m/v2, weight: 0}}}}\n"
AGAIN_S = 0.1


class Planes:
    """Control planes by number, on ports that they keep, and what they say."""

    def __init__(self, stack: AsyncExitStack, url: str, folder, num: int) -> None:
        self._stack, self._flags = stack, ("--state-redis", url, "--config-file", str(folder / "serin.yaml"))
        (folder / "serin.yaml").write_text(CONFIG)
        self.addresses = [f"127.0.0.1:{free_port()}" for _ in range(num)]
        self.processes: list[Process | None] = [None] * num

    async def start(self, number: int) -> None:
        """Start one."""
        port = self.addresses[number].rpartition(":")[2]
        flags = ("--port", port, "--instance", f"c{number}", *self._flags)
        self.processes[number] = await self._stack.enter_async_context(control_process(*flags))

    async def kill(self, number: int) -> None:
        """SIGKILL one."""
        await self.processes[number].kill()

    async def ask(self, method: str, request, number: int = 0):
        """Ask one, as often as it takes until it answers and somebody leads."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                async with connect(self.addresses[number], ServiceSettings(), echo_lane=False) as channel:
                    try:
                        return await getattr(rollout_pb2_grpc.RolloutServiceStub(channel), method)(request, timeout=5)
                    except MeshError as error:
                        if error.reason not in (Reason.UPSTREAM_UNAVAILABLE, Reason.NOT_LEADING, Reason.NOT_READY):
                            raise
                        await asyncio.sleep(AGAIN_S)

    async def act(self, action, number: int = 0) -> rollout_pb2.Rollout:
        """Do something to the rollout."""
        request = rollout_pb2.ActOnRolloutRequest(rollout_id="small-1", action=action, actor="ann")
        return (await self.ask("ActOnRollout", request, number)).rollout

    async def history(self, number: int = 0) -> list[tuple[str, int]]:
        """What was done in which term, oldest first."""
        acts = (await self.ask("ListActs", rollout_pb2.ListActsRequest(), number)).acts
        return [(act.what, act.term) for act in reversed(acts)]

    async def weights_become(self, wanted: dict[str, int], number: int = 0) -> None:
        """Wait until the lanes' weights are these, by version of the worker; they are never anything unknown."""
        async with asyncio.timeout(PATIENCE_S), connect(self.addresses[number], ServiceSettings()) as channel:
            await channel.channel_ready()
            watch = lane_pb2_grpc.LaneServiceStub(channel).WatchLanes(lane_pb2.WatchLanesRequest())
            async for found in watch:
                if {lane.members[1].version: lane.weight for lane in found.models[0].lanes} == wanted:
                    break
            watch.cancel()


def start_request() -> rollout_pb2.StartRolloutRequest:
    """Worker v1 to v2, one step before everything."""
    steps = [rollout_pb2.RolloutStep(weight_percent=1.0), rollout_pb2.RolloutStep(weight_percent=100.0)]
    return rollout_pb2.StartRolloutRequest(
        model="small",
        service=registry_pb2.SERVICE_KIND_WORKER,
        to_version="v2",
        intent=rollout_pb2.ROLLOUT_INTENT_SAME,
        steps=steps,
        actor="ann",
    )


async def running_mesh(stack: AsyncExitStack, valkey, folder, num: int) -> Planes:
    """Control planes, a tokenizer and two versions of a worker that announce to all of them."""
    planes = Planes(stack, valkey.url, folder, num)
    for number in range(num):
        await planes.start(number)
    control = ",".join(planes.addresses)
    await stack.enter_async_context(echo(control, "t1", Service.TOKENIZER))
    await stack.enter_async_context(echo(control, "w1"))
    await stack.enter_async_context(echo(control, "w2", version="v2"))
    for number in range(num):
        await planes.weights_become({"v1": 10_000}, number)
    return planes


async def begun(planes: Planes) -> None:
    """Start the rollout once the new version is announced."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                assert (await planes.ask("StartRollout", start_request())).rollout_id == "small-1"
            except MeshError as error:
                assert "nobody announces" in error.message  # noqa: PT017 - it may be a moment too early
                await asyncio.sleep(AGAIN_S)
            else:
                return


async def test_the_other_control_plane_leads_when_one_dies(valkey, tmp_path):
    """Both serve the same weights; after SIGKILL of the leader the other goes on; the first comes back and follows.

    Then state Redis hangs, and dies.
    """
    async with AsyncExitStack() as stack:
        planes = await running_mesh(stack, valkey, tmp_path, 2)
        await begun(planes)
        for number in range(2):
            await planes.weights_become({"v1": 9_900, "v2": 100}, number)
        await planes.kill(0)
        died = time.monotonic()
        paused = await planes.act(rollout_pb2.ROLLOUT_ACTION_PAUSE, 1)
        print(f"the other one led {time.monotonic() - died:.2f} s after the death of the first")
        assert (paused.state, paused.weight_percent) == (rollout_pb2.ROLLOUT_STATE_PAUSED, 1.0)
        await planes.start(0)
        await planes.weights_become({"v1": 9_900, "v2": 100}, 0)
        async with connect(planes.addresses[0], ServiceSettings()) as channel:
            stub = rollout_pb2_grpc.RolloutServiceStub(channel)
            with pytest.raises(MeshError) as refused:
                await stub.Freeze(rollout_pb2.FreezeRequest(frozen=True), timeout=5)
            assert (refused.value.reason, refused.value.metadata["leader"]) == (
                Reason.NOT_LEADING,
                planes.addresses[1],
            )
        assert await planes.history(0) == [("start", 1), ("step", 1), ("pause", 2)]
        await taken_back_without_redis(planes, valkey)


async def taken_back_without_redis(planes: Planes, valkey) -> None:
    """State Redis hangs: an abort at both control planes counts at both before any call to it has given up.

    It outlives that Redis is killed, and is written once.
    """
    valkey.freeze()
    request = rollout_pb2.ActOnRolloutRequest(
        rollout_id="small-1", action=rollout_pb2.ROLLOUT_ACTION_ABORT, actor="ann", reason="no"
    )
    answers = await asyncio.gather(*(planes.ask("ActOnRollout", request, number) for number in range(2)))
    assert [(answer.effective, answer.unwritten) for answer in answers] == [(True, True), (True, True)]
    await asyncio.gather(*(planes.weights_become({"v1": 10_000, "v2": 0}, number) for number in range(2)))
    await valkey.stop()
    await valkey.start()
    async with asyncio.timeout(PATIENCE_S):
        while (await planes.history())[-1][0] != "abort":  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(AGAIN_S)
    for number in range(2):
        await planes.weights_become({"v1": 10_000, "v2": 0}, number)
        found = await planes.ask("GetRollout", rollout_pb2.GetRolloutRequest(rollout_id="small-1"), number)
        assert found.rollout.reason.startswith("Aborted at 1 %: by ann: no. ")  # who led may have seen more of it
    assert [what for what, _ in await planes.history()] == ["start", "step", "pause", "abort"]


@pytest.mark.long
async def test_a_control_plane_that_dies_in_every_step_loses_and_repeats_nothing(valkey, tmp_path):
    """SIGKILL after each act: it comes back with the same rollout, the same traffic, and every line once."""
    async with AsyncExitStack() as stack:
        planes = await running_mesh(stack, valkey, tmp_path, 1)
        await begun(planes)
        happened = [
            (None, {"v1": 9_900, "v2": 100}, rollout_pb2.ROLLOUT_STATE_RUNNING),
            (rollout_pb2.ROLLOUT_ACTION_PAUSE, {"v1": 9_900, "v2": 100}, rollout_pb2.ROLLOUT_STATE_PAUSED),
            (rollout_pb2.ROLLOUT_ACTION_RESUME, {"v1": 9_900, "v2": 100}, rollout_pb2.ROLLOUT_STATE_RUNNING),
            (rollout_pb2.ROLLOUT_ACTION_PROMOTE, {"v1": 1, "v2": 9_999}, rollout_pb2.ROLLOUT_STATE_PROMOTED),
        ]
        for action, weights, state in happened:
            if action is not None:
                await planes.act(action)
            await planes.weights_become(weights)
            await planes.kill(0)
            await planes.start(0)
            await planes.weights_become(weights)
            found = await planes.ask("GetRollout", rollout_pb2.GetRolloutRequest(rollout_id="small-1"))
            assert found.rollout.state == state
        await planes.ask("Rollback", rollout_pb2.RollbackRequest(model="small", actor="ann"))
        await planes.kill(0)
        await planes.start(0)
        await planes.weights_become({"v1": 9_999, "v2": 1})
        assert await planes.history() == [
            ("start", 1),
            ("step", 1),
            ("pause", 2),
            ("resume", 3),
            ("promote", 4),
            ("rollback", 5),
        ]
