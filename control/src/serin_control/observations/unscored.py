"""Answers that cannot be scored: what is said of one, and what a person is told of all. Knows nothing about scoring."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

TOLD_AGAIN_S = 600.0
"""So long what is told of a cause stays word for word: each change of it is a line in the log."""

MAX_CAUSES = 4
"""Causes that are told apart in one comparison; further ones are told as the last of them."""


class NotScored(Exception):
    """An answer could not be scored, for a reason that says nothing about it; the message names the reason.

    Args:
        cause: what answers that fail alike have in common; empty: the message.
    """

    def __init__(self, message: str, cause: str = "") -> None:
        super().__init__(message)
        self.cause = cause or message


@dataclass(slots=True)
class _Cause:
    num_questions: int
    last: str
    told: str
    told_at: float


class Unscored:
    """The questions of one comparison that could not be scored, by cause.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.num_questions = 0
        self._clock = clock
        self._causes: dict[str, _Cause] = {}

    def note(self, case_id: str, problem: NotScored) -> None:
        """One more could not be scored."""
        why = problem.cause
        if why not in self._causes and len(self._causes) >= MAX_CAUSES:
            why = next(reversed(self._causes))
        cause = self._causes.setdefault(why, _Cause(0, "", "", 0.0))
        cause.num_questions += 1
        cause.last = f"{case_id}: {problem}"
        self.num_questions += 1

    def tell(self, num_cases: int, *, is_over: bool) -> Iterator[str]:
        """What to tell of each cause: word for word as last time, until it is over or `TOLD_AGAIN_S` have passed."""
        now = self._clock()
        for cause in self._causes.values():
            if not cause.told or is_over or now - cause.told_at >= TOLD_AGAIN_S:
                cause.told_at = now
                cause.told = (
                    f"{cause.num_questions} of {num_cases} golden questions could not be scored, the last one "
                    f"{cause.last}"
                )
            yield cause.told
