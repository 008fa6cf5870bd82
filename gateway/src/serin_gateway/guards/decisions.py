"""What guards decided about one request: by detector, direction and action, how many findings of which kind.

No text. Knows nothing about who is told.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from serin_gateway.guards.detector import DetectorName
from serin_gateway.guards.policy import Action, Direction

FAILED = "failed"
"""In the place of an action: the detector could not look."""


@dataclass(frozen=True, slots=True)
class Decision:
    """One line of it; ``action`` is an `Action` or `FAILED`."""

    detector: str
    direction: str
    action: str
    kinds: Mapping[str, int] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Findings, or failures."""
        return sum(self.kinds.values())


class Decisions:
    """Those of one request, as they are made. Added to from any thread, by one at a time."""

    def __init__(self, policy: str = "") -> None:
        self.policy = policy
        """Name of the policy."""
        self._counts: dict[tuple[str, str, str], Counter[str]] = {}

    def __bool__(self) -> bool:
        return bool(self._counts)

    def __iter__(self) -> Iterator[Decision]:
        for (detector, direction, action), kinds in list(self._counts.items()):
            yield Decision(detector, direction, action, dict(kinds))

    def add(self, detector: DetectorName, direction: Direction, action: Action, kind: str) -> None:
        """Something was found."""
        self._counter(detector, direction, action.value)[kind] += 1

    def failed(self, detector: DetectorName, direction: Direction, why: str) -> None:
        """A detector could not look."""
        self._counter(detector, direction, FAILED)[why[:100]] += 1

    def _counter(self, detector: DetectorName, direction: Direction, action: str) -> Counter[str]:
        return self._counts.setdefault((detector.value, direction.value, action), Counter())
