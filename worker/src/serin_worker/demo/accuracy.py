"""Accuracy: the share of questions a model answers exactly right, by kind.

Knows nothing about how answers are made or shown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from serin_worker.demo.item import Item


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Right answers and questions of each kind, in the order the kinds were first asked."""

    num_right: Mapping[str, int]
    num_asked: Mapping[str, int]

    @property
    def overall(self) -> float:
        """Share of all questions answered right, 0 to 1."""
        return sum(self.num_right.values()) / sum(self.num_asked.values())

    @property
    def by_kind(self) -> dict[str, float]:
        """Share of each kind's questions answered right, 0 to 1."""
        return {kind: self.num_right[kind] / asked for kind, asked in self.num_asked.items()}


def measure(items: Sequence[Item], answers: Sequence[str]) -> Accuracy:
    """Compare answers with the only right ones, character by character; at least one item is needed."""
    num_right: dict[str, int] = {}
    num_asked: dict[str, int] = {}
    for item, answer in zip(items, answers, strict=True):
        num_asked[item.kind] = num_asked.get(item.kind, 0) + 1
        num_right[item.kind] = num_right.get(item.kind, 0) + (answer == item.answer)
    return Accuracy(num_right, num_asked)
