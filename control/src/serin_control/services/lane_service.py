"""LaneService: the topology as gateways see it."""

import time
from collections.abc import AsyncIterator
from typing import Any

from serin.control.v1 import lane_pb2, lane_pb2_grpc

from serin_control.latest import Latest
from serin_control.services.messages import lanes_message
from serin_control.topology import Topology


class LaneService(lane_pb2_grpc.LaneServiceServicer):
    """Serves topologies. Revisions grow also over a restart: they begin at the time of the start in milliseconds."""

    def __init__(self, topologies: Latest[Topology]) -> None:
        self._topologies = topologies
        self._first_revision = time.time_ns() // 1_000_000
        self._message: lane_pb2.WatchLanesResponse | None = None

    async def WatchLanes(  # noqa: N802 - the method's name in the contract
        self, request: lane_pb2.WatchLanesRequest, context: Any
    ) -> AsyncIterator[lane_pb2.WatchLanesResponse]:
        """Everything now, and again after each change."""
        async for topology in self._topologies.watch():
            yield self._current(topology)

    def _current(self, topology: Topology) -> lane_pb2.WatchLanesResponse:
        """The message of a topology, made once for all watchers."""
        revision = self._first_revision + self._topologies.version
        if self._message is None or self._message.revision != revision:
            self._message = lanes_message(topology, revision)
        return self._message
