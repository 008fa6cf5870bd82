"""A detector looks at text and says what it found where. Knows nothing about policies, requests or tenants."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class DetectorName(enum.StrEnum):
    """The detectors there are. A closed set: it is also a metric's label."""

    PII = "pii"
    SECRETS = "secrets"
    BLOCKED = "blocked"
    UNICODE = "unicode"
    INJECTION = "injection"
    UNKNOWN = "unknown"
    """One that a newer control plane knows and this gateway does not."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something found in a text.

    Attributes:
        start, end: of it, in characters of the text.
        kind: what it is, ``EMAIL_ADDRESS``; from a closed set.
        mask: what may stand there instead.
    """

    start: int
    end: int
    kind: str
    mask: str


class DetectorFailed(Exception):
    """It could not look: it took too long, or what it needs is not there. Says why, and never quotes text."""


class Detector(Protocol):
    """Looks at a text that may still grow.

    Both methods are pure and thread-safe. Texts are a few thousand characters at most: whoever has more gives it in
    pieces, with some of what came before in front of ``start`` (`screen.LEFT_CHARACTERS`).
    """

    def find(self, text: str, start: int) -> Sequence[Finding]:
        """What is found from a position on, in order, without overlaps.

        Raises:
            DetectorFailed: it cannot tell.
        """

    def open_from(self, text: str, start: int) -> int:
        """Where something may begin that more text would complete or change; everything before is settled."""


class Unavailable:
    """A detector that cannot look; it says why to whoever asks."""

    def __init__(self, why: str) -> None:
        self._why = why

    def find(self, text: str, start: int) -> Sequence[Finding]:
        """Never."""
        raise DetectorFailed(self._why)

    def open_from(self, text: str, start: int) -> int:
        """Nowhere."""
        return len(text)


def settled(findings: Sequence[Finding]) -> list[Finding]:
    """Findings in order and without overlaps: of two that overlap the one given first stays."""
    kept: list[Finding] = []
    taken = bytearray(max((one.end for one in findings), default=0))
    for one in findings:
        if 1 not in taken[one.start : one.end]:
            taken[one.start : one.end] = b"\1" * (one.end - one.start)
            kept.append(one)
    return sorted(kept, key=lambda one: one.start)
