"""Which lanes carried traffic: their answers may still run, whoever has the new sessions by now.

A lane is not there for some seconds while its only tokenizer starts again; forgotten then, it would come back without
routes, and its answers would look in vain for who can write them. Knows nothing about where this is stored.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from serin_control.lanes import Versions
from serin_control.plan import ModelPlan
from serin_control.topology import Carried, ModelLanes, Topology

FORGET_AFTER_S = 60.0
"""So long a lane that is not there is remembered: longer than answers wait for a tokenizer that starts again (20 s)."""


@dataclass(frozen=True, slots=True)
class _Remembered:
    """A lane and when it is forgotten, on the memory's clock; one that is there is not."""

    versions: Versions
    until: float = math.inf


class LaneMemory:
    """Lanes that carried traffic, by model.

    One that is not there is forgotten after `FORGET_AFTER_S`, one that the plan drains only with the plan, one that it
    retires at once.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lanes: dict[str, dict[str, _Remembered]] = {}

    @property
    def carried(self) -> Carried:
        """What is remembered now."""
        now = self._clock()
        alive = {
            model: {lane: one.versions for lane, one in lanes.items() if one.until > now}
            for model, lanes in self._lanes.items()
        }
        return {model: lanes for model, lanes in alive.items() if lanes}

    def restore(self, carried: Carried) -> None:
        """Remember what was stored, beside what this process has seen itself."""
        for model, lanes in carried.items():
            stored = {lane: _Remembered(versions) for lane, versions in lanes.items()}
            self._lanes[model] = stored | self._lanes.get(model, {})

    def note(self, topology: Topology) -> None:
        """Remember lanes that have traffic now, keep those that are there, let time run for the others."""
        self._lanes = {model.plan.name: self._noted(model) for model in topology.models}

    def _noted(self, model: ModelLanes) -> dict[str, _Remembered]:
        now = self._clock()
        known = {lane: one for lane, one in self._lanes.get(model.plan.name, {}).items() if one.until > now}
        there = {lane.id: _Remembered(lane.versions) for lane in model.lanes if lane.weight or lane.id in known}
        return there | _away({lane: one for lane, one in known.items() if lane not in there}, model.plan, now)


def _away(lanes: Mapping[str, _Remembered], plan: ModelPlan, now: float) -> dict[str, _Remembered]:
    """Lanes that are not there, with the time that each still has."""
    found = {}
    for lane, one in lanes.items():
        if one.versions in plan.draining:
            found[lane] = replace(one, until=math.inf)
        elif one.versions not in plan.retired:
            found[lane] = replace(one, until=min(one.until, now + FORGET_AFTER_S))
    return found
