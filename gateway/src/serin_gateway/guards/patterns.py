"""Regular expressions that end: each search has a time, whatever pattern meets whatever text.

The engine (mrab's `regex`) looks at the clock while it backtracks, and lets go of Python's lock while it searches.
"""

import re
from collections.abc import Sequence
from typing import Any

import regex

from serin_gateway.guards.detector import DetectorFailed

SEARCH_TIMEOUT_S = 0.5
"""For one pattern on one piece of text, which takes it well below a millisecond. The engine counts processor time
of the whole process, so that a busy machine makes no search late."""


class Pattern:
    """One regular expression.

    Args:
        expression: the expression.
        flags: of `regex`.
    """

    def __init__(self, expression: str, flags: int = 0) -> None:
        self._regex: Any = compiled(expression, flags)

    def matches(self, text: str, start: int = 0) -> Sequence[re.Match[str]]:
        """All matches from a position on; what stands before it can still be looked back at.

        Raises:
            DetectorFailed: it took too long.
        """
        try:
            return list(self._regex.finditer(text, start, timeout=SEARCH_TIMEOUT_S))
        except TimeoutError:
            raise _too_long() from None

    def search(self, text: str, start: int = 0, end: int | None = None) -> re.Match[str] | None:
        """The first match in a part of the text.

        Raises:
            DetectorFailed: it took too long.
        """
        try:
            found: re.Match[str] | None = self._regex.search(
                text, start, len(text) if end is None else end, timeout=SEARCH_TIMEOUT_S
            )
        except TimeoutError:
            raise _too_long() from None
        return found


def compiled(expression: str, flags: int = 0) -> re.Pattern[str]:
    """An expression of `regex` for texts of a few characters, which needs no clock; `re` knows no scripts."""
    made: re.Pattern[str] = regex.compile(expression, flags)  # type: ignore[no-untyped-call]  # it has no types
    return made


def _too_long() -> DetectorFailed:
    return DetectorFailed("the search took too long")
