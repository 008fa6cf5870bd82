"""Stop strings found in growing text, wherever it is cut; what may be a beginning of one is held back.

Knows nothing about ids. The match that is complete first wins; of two that end together, the longer.
"""

from collections.abc import Sequence

MAX_STOP_STRINGS = 16
MAX_STOP_BYTES = 1024


class StopFinder:
    """Looks for stop strings in text that comes in pieces."""

    def __init__(self, stop_strings: Sequence[str], include_match: bool = False) -> None:
        self._stops = tuple(stop_strings)
        self._include_match = include_match
        self._held = ""

    def feed(self, text: str) -> tuple[str, str | None]:
        """Take text; give the text that is certain, and the stop string if one is complete now.

        After a match the finder is done: nothing behind the match is ever given.
        """
        if not text:
            return "", None
        buffer = self._held + text
        ends = [(at + len(stop), at, stop) for stop in self._stops if (at := buffer.find(stop)) >= 0]
        if ends:
            end, start, stop = min(ends)
            self._held = ""
            return buffer[: end if self._include_match else start], stop
        cut = min((_beginning_at(buffer, stop) for stop in self._stops), default=len(buffer))
        self._held = buffer[cut:]
        return buffer[:cut], None

    def flush(self) -> str:
        """Give what was held back: the text ends here, so it is no stop string."""
        held, self._held = self._held, ""
        return held


def _beginning_at(buffer: str, stop: str) -> int:
    """Where the longest end of ``buffer`` that begins ``stop`` starts; the buffer's length if there is none."""
    at = buffer.find(stop[0], max(0, len(buffer) - len(stop) + 1))
    while at >= 0:
        if stop.startswith(buffer[at:]):
            return at
        at = buffer.find(stop[0], at + 1)
    return len(buffer)
