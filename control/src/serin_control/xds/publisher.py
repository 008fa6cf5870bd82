"""Decides when a snapshot is published: consistent, encoded off the event loop, nothing pulled from under a call.

A topology that would break clients is not published: the last good snapshot serves on and an alarm stands. Clusters
that no route names any more stay for a while, so that calls on their way end well. Knows nothing about clients.
"""

import asyncio
from collections.abc import Callable

from serin_control.alarms import Alarms
from serin_control.latest import Latest
from serin_control.topology import Topology
from serin_control.xds.edge import EdgeSettings
from serin_control.xds.routing import Cluster, Routing, carry_over, inconsistencies, linger, route
from serin_control.xds.snapshot import Snapshot, encode

LINGER_S = 10.0


class Publisher:
    """Makes snapshots of topologies. ``snapshots`` holds the newest, ``served`` the topology that it is of.

    Whoever draws lanes goes by ``served``: a lane that is drawn before its routes are there is refused as gone.

    Args:
        topologies: what to publish, as it changes.
        edge: how Envoy should listen.
        alarms: where a topology that cannot be published is reported.
        clock: seconds, monotonic.
        linger_s: how long clusters stay that nothing names.
    """

    def __init__(
        self,
        topologies: Latest[Topology],
        edge: EdgeSettings,
        alarms: Alarms,
        clock: Callable[[], float],
        linger_s: float = LINGER_S,
    ) -> None:
        self.snapshots: Latest[Snapshot] = Latest()
        self.served: Latest[Topology] = Latest()
        self._topologies = topologies
        self._edge = edge
        self._alarms = alarms
        self._clock = clock
        self._linger_s = linger_s
        self._routing: Routing | None = None
        self._leaving: dict[str, tuple[Cluster, float]] = {}

    async def run(self) -> None:
        """Publish until cancelled."""
        seen = 0
        while True:
            try:
                async with asyncio.timeout(self._next_end()):
                    seen, _ = await self._topologies.after(seen)
            except TimeoutError:
                pass  # a cluster has lingered long enough
            assert self._topologies.value is not None
            await self.publish(self._topologies.value)

    async def publish(self, topology: Topology) -> bool:
        """Publish a topology if it is consistent; returns whether it was."""
        routing = carry_over(self._routing, route(topology))
        wrong = list(inconsistencies(routing))
        if wrong:
            self._alarms.raise_(
                "xds/inconsistent", f"routing not published, the last one serves on: {'; '.join(wrong)}"
            )
            return False
        self._alarms.clear("xds/inconsistent")
        self._note_leaving(routing)
        whole = linger(routing, [cluster for cluster, _ in self._leaving.values()])
        try:
            snapshot = await asyncio.to_thread(encode, whole, self._edge, self.snapshots.value)
        except (ValueError, TypeError) as error:  # what messages raise for a value that they cannot hold
            self._alarms.raise_("xds/encoding", f"routing not published, the last one serves on: {error}")
            return False
        self._alarms.clear("xds/encoding")
        self._routing = routing
        before = self.snapshots.value
        if before is None or before.resources != snapshot.resources:
            self.snapshots.set(snapshot)
        self.served.set(topology)
        return True

    def _note_leaving(self, routing: Routing) -> None:
        now = self._clock()
        before = self._routing.clusters if self._routing else {}
        for name, cluster in before.items():
            if name not in routing.clusters:
                self._leaving.setdefault(name, (cluster, now + self._linger_s))
        self._leaving = {
            name: (cluster, end)
            for name, (cluster, end) in self._leaving.items()
            if end > now and name not in routing.clusters
        }

    def _next_end(self) -> float | None:
        if not self._leaving:
            return None
        return max(0.0, min(end for _, end in self._leaving.values()) - self._clock()) + 0.001
