"""Brings what the control plane knows onto the board: who is loading what, who is ready, at which address.

Also follows the declared configuration. Knows nothing about processes.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import TypeVar

import grpc
from serin.control.v1 import (
    config_pb2,
    config_pb2_grpc,
    lane_pb2,
    lane_pb2_grpc,
    registry_pb2,
    registry_pb2_grpc,
    rollout_pb2,
    rollout_pb2_grpc,
)
from serin_mesh.channels import connect
from serin_mesh.errors import MeshError
from serin_mesh.settings import ServiceSettings

from serin_cli.local.board import Board, Phase

RETRY_S = 0.2
CALL_S = 10.0
SUSPEND_S = 3.0  # nobody waits longer for a mesh to stop because its state Redis hangs
NUM_ROLLOUTS = 100  # one runs for each model at most, and it is its newest

_PHASES = {
    registry_pb2.INSTANCE_STATE_STARTING: Phase.STARTING,
    registry_pb2.INSTANCE_STATE_READY: Phase.READY,
    registry_pb2.INSTANCE_STATE_DRAINING: Phase.DRAINING,
}
M = TypeVar("M")


class ControlPlane:
    """The command's connection to a control plane; an async context manager."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._channel = connect(address, ServiceSettings(control=address, instance="serin-cli"), deadline_s=CALL_S)
        self._registry = registry_pb2_grpc.RegistryServiceStub(self._channel)
        self._config = config_pb2_grpc.ConfigServiceStub(self._channel)
        self._rollouts = rollout_pb2_grpc.RolloutServiceStub(self._channel)
        self._lanes = lane_pb2_grpc.LaneServiceStub(self._channel)

    async def __aenter__(self) -> "ControlPlane":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Hang up."""
        await self._channel.close()

    async def instances(self) -> registry_pb2.WatchInstancesResponse:
        """All instances as they are now."""
        async for snapshot in self._registry.WatchInstances(registry_pb2.WatchInstancesRequest(), timeout=CALL_S):
            return snapshot
        return registry_pb2.WatchInstancesResponse()

    def watch_instances(self) -> AsyncIterator[registry_pb2.WatchInstancesResponse]:
        """All instances, again after each change, across restarts of the control plane. Never ends by itself."""
        return _forever(lambda: self._registry.WatchInstances(registry_pb2.WatchInstancesRequest()))

    def watch_config(self) -> AsyncIterator[config_pb2.WatchConfigResponse]:
        """The configuration in force, again after each change. Never ends by itself."""
        return _forever(lambda: self._config.WatchConfig(config_pb2.WatchConfigRequest()))

    async def lanes(self) -> lane_pb2.WatchLanesResponse:
        """All models and their lanes as they are now."""
        async for published in self._lanes.WatchLanes(lane_pb2.WatchLanesRequest(), timeout=CALL_S):
            return published
        return lane_pb2.WatchLanesResponse()

    async def rollouts(self) -> list[rollout_pb2.Rollout]:
        """The newest rollouts, whatever their state."""
        newest = rollout_pb2.ListRolloutsRequest(page_size=NUM_ROLLOUTS)
        return list((await self._rollouts.ListRollouts(newest, timeout=CALL_S)).rollouts)

    async def suspend_rollouts(self) -> None:
        """Say that the mesh is being stopped, so that what goes is not taken for a failure.

        Raises:
            MeshError: it was not heard; what goes may be taken for one.
        """
        await self._rollouts.SuspendRollouts(rollout_pb2.SuspendRolloutsRequest(), timeout=SUSPEND_S)

    async def config(self) -> config_pb2.GetConfigResponse:
        """The configuration in force."""
        return await self._config.GetConfig(config_pb2.GetConfigRequest(), timeout=CALL_S)

    async def apply(self, text: str, expected_revision: int = 0) -> config_pb2.ApplyConfigResponse:
        """Replace the configuration.

        Raises:
            MeshError: it was refused; the old one keeps serving.
        """
        request = config_pb2.ApplyConfigRequest(yaml=text, expected_revision=expected_revision)
        return await self._config.ApplyConfig(request, timeout=CALL_S)


def put_on_board(snapshot: registry_pb2.WatchInstancesResponse, board: Board) -> None:
    """Tell the board what instances say about themselves.

    An instance that registered before its process was started is the one before it, and is passed over.
    """
    for instance in snapshot.instances:
        registration, heartbeat = instance.registration, instance.heartbeat
        row, phase = board.row(registration.instance), _PHASES.get(heartbeat.state)
        if row is None or row.pid is None or phase is None or row.phase is Phase.DRAINING:
            continue
        if instance.registered_at.ToMicroseconds() < row.started_at * 1_000_000:
            continue
        loading, is_gateway = phase is Phase.STARTING, registration.service == registry_pb2.SERVICE_KIND_GATEWAY
        board.update(
            row.name,
            phase=phase,
            activity=heartbeat.activity if loading else "",
            progress=heartbeat.progress if loading and heartbeat.progress > 0 else None,
            refusal=instance.refusal if loading else "",
            address=registration.http_endpoint if is_gateway else registration.endpoint,
        )


async def _forever(call: Callable[[], AsyncIterable[M]]) -> AsyncIterator[M]:
    while True:
        try:
            async for message in call():
                yield message
        except (MeshError, grpc.RpcError):
            pass
        await asyncio.sleep(RETRY_S)
