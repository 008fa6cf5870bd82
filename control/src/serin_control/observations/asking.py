"""The seam to a lane that is asked a golden question. Knows nothing about how it is reached.

`mesh_asker` carries it out over the mesh; :class:`ScriptedLanes` answers in memory.
"""

from collections.abc import Callable
from typing import Protocol

from serin_control.rollouts.golden_set import GoldenCase


class LaneAway(Exception):
    """The lane cannot be asked right now; the question is asked again later."""


class LaneFailed(Exception):
    """The lane was asked and failed at the question."""


class Asker(Protocol):
    """Asks lanes."""

    async def ask(self, model: str, lane: str, case: GoldenCase) -> str:
        """The lane's answer, greedily.

        Raises:
            LaneAway: it cannot be asked now.
            LaneFailed: it failed.
        """


class ScriptedLanes:
    """Lanes that answer by a rule; every question is kept."""

    def __init__(self, rule: Callable[[str, GoldenCase], str]) -> None:
        self._rule = rule
        self.asked: list[tuple[str, str]] = []

    async def ask(self, model: str, lane: str, case: GoldenCase) -> str:
        """What the rule says, or raises."""
        self.asked.append((lane, case.id))
        return self._rule(lane, case)
