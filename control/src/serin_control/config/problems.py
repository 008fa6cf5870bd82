"""What is wrong with a `serin.yaml`, said so that a person can mend it.

Knows nothing about YAML or about what is accepted; it only carries and prints.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        source: file the text came from, or what stands for it.
        line: line, from 1; 0 when no line is to blame.
        key: dotted path of the key (``models.small.workers``); empty for the whole file.
        wrong: what is wrong.
        accepted: what would be right.
    """

    source: str
    line: int
    key: str
    wrong: str
    accepted: str

    def __str__(self) -> str:
        where = f"{self.source}:{self.line}" if self.line else self.source
        key = f"{self.key}: " if self.key else ""
        return f"{where}: {key}{self.wrong}; accepted: {self.accepted}"


class ConfigInvalid(Exception):
    """A configuration was refused as a whole; ``problems`` has at least one entry, in order of line."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: problem.line))
        super().__init__("\n".join(map(str, self.problems)))
