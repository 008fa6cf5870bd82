"""A promise of the engine: a figure, its goal, and whether it was met. Knows nothing about how figures are measured."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from report import show


@dataclass(frozen=True)
class Promise:
    """What was measured beside what was promised.

    Attributes:
        what: the figure, in words.
        figure: what was measured.
        goal: the bound that it has to keep.
        is_most: whether the goal is the most that is allowed, or the least.
    """

    what: str
    figure: float
    goal: float
    is_most: bool

    @property
    def is_met(self) -> bool:
        """Whether the figure keeps its bound."""
        return self.figure <= self.goal if self.is_most else self.figure >= self.goal

    @property
    def verdict(self) -> str:
        """For people."""
        return "met" if self.is_met else "MISSED"


def at_most(what: str, figure: float, goal: float) -> Promise:
    """A figure that may not be larger."""
    return Promise(what, figure, goal, is_most=True)


def at_least(what: str, figure: float, goal: float) -> Promise:
    """A figure that may not be smaller."""
    return Promise(what, figure, goal, is_most=False)


def show_promises(title: str, promises: Sequence[Promise], notes: Sequence[str] = ()) -> None:
    """A table of them."""
    rows = [
        (one.what, f"{one.figure:,.2f}", f"{'<=' if one.is_most else '>='} {one.goal:,.2f}", one.verdict)
        for one in promises
    ]
    show(title, ("figure", "measured", "goal", ""), rows, notes)


def kept(promises: Sequence[Promise], **more: Any) -> dict[str, Any]:
    """For the JSON file."""
    return {"promises": [{**asdict(one), "is_met": one.is_met} for one in promises], **more}
