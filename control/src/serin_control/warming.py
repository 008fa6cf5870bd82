"""Make before break, for lanes: a new one gets sessions only once every connected caller has the route to it.

Whoever draws lanes (gateways, by `WatchLanes`) and whoever sends calls to them (channels, by xDS) hear of a new lane on
streams of their own, in any order. So a new lane is published without weight first, and with its weight when callers
have said that they took its routes, clusters and endpoints, or have had their time. Knows nothing about xDS.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace

from serin_control.lanes import Lane, share_out
from serin_control.latest import Latest
from serin_control.topology import ModelLanes, Topology

PATIENCE_S = 2.0
"""So long a caller that does not answer keeps a new lane from its first sessions."""

LOOK_EVERY_S = 0.02


class Warming:
    """Makes of each topology the one that may be published.

    Args:
        drawn: topologies as they should be.
        published: told what may be published.
        is_known: whether every caller that is connected for a model can call a lane of it.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        drawn: Latest[Topology],
        published: Latest[Topology],
        is_known: Callable[[str, Lane], bool],
        clock: Callable[[], float],
    ) -> None:
        self._drawn = drawn
        self._published = published
        self._is_known = is_known
        self._clock = clock
        self._warm: frozenset[str] = frozenset()
        self._cold_since: Mapping[str, float] = {}

    async def run(self) -> None:
        """Publish until cancelled."""
        seen = 0
        while True:
            try:
                async with asyncio.timeout(LOOK_EVERY_S if self._cold_since else None):
                    seen, _ = await self._drawn.after(seen)
            except TimeoutError:
                pass  # callers may have answered
            self.look()

    def look(self) -> None:
        """Publish what may be published now."""
        topology = self._drawn.value
        assert topology is not None
        now = self._clock()
        here = {lane.id for model in topology.models for lane in model.lanes}
        warm, since = set(self._warm & here), dict[str, float]()
        for model in topology.models:
            for lane in self._cold(model):
                began = self._cold_since.get(lane.id, now)
                if not self._is_known(model.plan.name, lane) and now - began < PATIENCE_S:
                    since[lane.id] = began
            warm |= {lane.id for lane in model.lanes if lane.weight and lane.id not in since}
        self._warm, self._cold_since = frozenset(warm), since
        self._published.set(replace(topology, models=tuple(map(self._without_cold, topology.models))))

    def _cold(self, model: ModelLanes) -> list[Lane]:
        """Lanes that should have sessions and never had some, where others can take them meanwhile."""
        having = [lane for lane in model.lanes if lane.weight]
        if not any(lane.id in self._warm and lane.takes_calls for lane in having):
            return []
        return [lane for lane in having if lane.id not in self._warm]

    def _without_cold(self, model: ModelLanes) -> ModelLanes:
        """The model with the weight of lanes that are not known yet given to the others, and without their trial."""
        cold = self._cold_since
        if not any(lane.id in cold for lane in model.lanes):
            return model
        having = [lane for lane in model.lanes if lane.weight and lane.id not in cold]
        weights = dict(zip((lane.id for lane in having), share_out([lane.weight for lane in having]), strict=True))
        lanes = tuple(replace(lane, weight=weights.get(lane.id, 0)) for lane in model.lanes)
        trial = model.plan.trial
        is_early = trial is not None and bool({trial.stable_lane, trial.canary_lane} & cold.keys())
        return ModelLanes(replace(model.plan, trial=None) if is_early else model.plan, lanes)
