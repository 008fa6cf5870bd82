"""A text on its way through guards, in whatever pieces it comes: what may go on, and with what in place of findings.

Nothing is let through before everything that holds has looked at it, and no more is held than could still become a
finding; how the text was cut changes nothing. Knows nothing about requests, and nothing about time but that detectors
keep to theirs.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from serin_gateway.guards.decisions import Decisions
from serin_gateway.guards.detector import Detector, DetectorFailed, DetectorName, Finding
from serin_gateway.guards.policy import Action, Direction

LEFT_CHARACTERS = 160
"""So much of what was let through stays visible to detectors: what stands before something tells what it is."""
PIECE_CHARACTERS = 4096
"""Longer texts are looked at in pieces of so many characters."""


class GuardFailed(Exception):
    """A detector whose action holds could not look, so nothing more may go through."""

    def __init__(self, detector: DetectorName, why: str) -> None:
        super().__init__(f"{detector.value}: {why}")
        self.detector, self.why = detector, why


@dataclass(frozen=True, slots=True)
class Rule:
    """A detector, and what happens with what it finds."""

    name: DetectorName
    detector: Detector
    action: Action


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a text was refused for."""

    detector: DetectorName
    kind: str


@dataclass(frozen=True, slots=True)
class Replacement:
    """In a whole text, what stands in place of the characters from ``start`` to ``end``."""

    start: int
    end: int
    mask: str


class Screen:
    """One text.

    Args:
        rules: what looks at it.
        direction: where it comes from.
        decisions: where findings are counted.
        is_stopped: asked between pieces; true: nobody waits any more.

    Attributes:
        refusal: why nothing more goes through; None: it does.
        replacements: what was masked so far, by its place in the whole text.
    """

    def __init__(
        self,
        rules: Sequence[Rule],
        direction: Direction,
        decisions: Decisions,
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._tracks = [_Track(rule) for rule in rules]
        self._direction = direction
        self._decisions = decisions
        self._is_stopped = is_stopped
        self._text = ""
        self._base = 0  # place of the kept text in the whole one
        self._released = 0  # how far the kept text was let through
        self._masked: list[Finding] = []  # to come
        self.refusal: Refusal | None = None
        self.replacements: list[Replacement] = []

    @property
    def is_holding(self) -> bool:
        """Whether some of the text waits."""
        return self._released < len(self._text)

    @property
    def num_released(self) -> int:
        """So many characters of the whole text were let through, or replaced; no replacement to come begins in them."""
        return self._base + self._released

    def feed(self, text: str) -> str:
        """Take text, give what may go on.

        Raises:
            GuardFailed: nothing may any more.
        """
        let: list[str] = []
        for at in range(0, len(text), PIECE_CHARACTERS):
            if self.refusal is not None or self._is_stopped():
                break
            self._text += text[at : at + PIECE_CHARACTERS]
            self._look(is_whole=False)
            let.append(self._release(is_whole=self.refusal is not None))
            self._forget()
        return "".join(let)

    def end(self) -> str:
        """Nothing follows: give what was held.

        Raises:
            GuardFailed: it may not go on.
        """
        if self.refusal is not None:
            return ""
        self._look(is_whole=True)
        return self._release(is_whole=True)

    def _look(self, *, is_whole: bool) -> None:
        """Have every detector look as far as it can tell; at a finding that is refused the text ends."""
        while (refused := self._look_once(is_whole=is_whole)) is not None:
            place, self.refusal = refused
            self._text = self._text[:place]
            self._masked = [
                Finding(one.start, min(one.end, place), one.kind, one.mask) for one in self._masked if one.start < place
            ]
            is_whole = True
        if self.refusal is not None:
            self._decisions.add(self.refusal.detector, self._direction, Action.REFUSE, self.refusal.kind)

    def _look_once(self, *, is_whole: bool) -> tuple[int, Refusal] | None:
        refused: tuple[int, Refusal] | None = None
        for track in self._tracks:
            action = track.rule.action
            for finding in self._found(track, is_whole=is_whole):
                if action is Action.REFUSE:
                    if refused is None or finding.start < refused[0]:
                        refused = finding.start, Refusal(track.rule.name, finding.kind)
                    break
                self._decisions.add(track.rule.name, self._direction, action, finding.kind)
                if action is Action.MASK:
                    self._masked.append(finding)
        return refused

    def _found(self, track: "_Track", *, is_whole: bool) -> Iterator[Finding]:
        """What is settled of what one detector finds; it goes on behind it the next time."""
        rule = track.rule
        if track.has_failed or track.looked >= len(self._text):
            return
        try:
            settled = len(self._text) if is_whole else rule.detector.open_from(self._text, track.looked)
            if settled <= track.looked:
                return  # in the middle of a word: there is nothing to tell yet
            found = rule.detector.find(self._text, track.looked)
        except Exception as error:
            why = str(error) if isinstance(error, DetectorFailed) else type(error).__name__
            self._decisions.failed(rule.name, self._direction, why)
            if rule.action.holds:
                raise GuardFailed(rule.name, why) from error
            track.has_failed = True
            return
        for finding in reversed(found):
            if finding.start < settled < finding.end:
                settled = finding.start
        track.looked = max(track.looked, settled)
        yield from (one for one in found if one.end <= settled)

    def _release(self, *, is_whole: bool) -> str:
        """Let through what everything that holds has looked at."""
        until = len(self._text)
        if not is_whole:
            until = min([until, *(track.looked for track in self._tracks if track.rule.action.holds)])
        spans = _joined(self._masked)
        for span in spans:
            if span.start < until < span.end:
                until = span.start
        let: list[str] = []
        at = self._released
        for span in spans:
            if span.end > until:
                break
            let += self._text[at : span.start], span.mask
            self.replacements.append(Replacement(self._base + span.start, self._base + span.end, span.mask))
            at = span.end
        if until > at:
            let.append(self._text[at:until])
        self._released = max(self._released, until)
        self._masked = [one for one in self._masked if one.end > until]
        return "".join(let)

    def _forget(self) -> None:
        """Keep no more of what was let through than detectors need."""
        passed = min([self._released, *(track.looked for track in self._tracks if not track.has_failed)])
        surplus = passed - LEFT_CHARACTERS
        if surplus < LEFT_CHARACTERS:
            return
        self._text = self._text[surplus:]
        self._base += surplus
        self._released -= surplus
        for track in self._tracks:
            track.looked -= surplus
        self._masked = [Finding(one.start - surplus, one.end - surplus, one.kind, one.mask) for one in self._masked]


@dataclass(slots=True)
class _Track:
    """How far one detector has looked at the kept text."""

    rule: Rule
    looked: int = 0
    has_failed: bool = False


def _joined(findings: Sequence[Finding]) -> list[Finding]:
    """In order; those that overlap as one, under the mask of the longest."""
    joined: list[Finding] = []
    for one in sorted(findings, key=lambda finding: (finding.start, -finding.end, finding.mask)):
        last = joined[-1] if joined else None
        if last is None or one.start >= last.end:
            joined.append(one)
            continue
        longest = max(last, one, key=lambda finding: (finding.end - finding.start, finding.mask))
        joined[-1] = Finding(last.start, max(last.end, one.end), longest.kind, longest.mask)
    return joined


def screened(screen: Screen, text: str) -> str:
    """A whole text; what was masked is in the screen's replacements, and why it was refused in its refusal.

    Raises:
        GuardFailed: it may not go on.
    """
    return screen.feed(text) + screen.end()
