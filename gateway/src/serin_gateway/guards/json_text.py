"""JSON under guards: what is masked inside of it leaves it JSON, and the rest as it was written.

Strings are looked at as what they say, not as how they are escaped. Knows nothing about what the JSON means.
"""

import enum
import json
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from serin_gateway.guards.screen import Replacement, Screen

_OUTSIDE = re.compile(r'[^"\d-]+')
_NUMBER = re.compile(r"-?\d[\d.eE+-]*")
_INSIDE = re.compile(r'[^"\\]+')
_ESCAPE = re.compile(r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPE_BEGUN = re.compile(r"\\(?:u[0-9a-fA-F]{0,3}|u[dD][89abAB][0-9a-fA-F]{2}(?:\\(?:u[0-9a-fA-F]{0,3})?)?)?")


class _Kind(enum.Enum):
    LAYOUT = enum.auto()  # around strings and numbers; is never replaced
    NUMBER = enum.auto()  # is replaced as a whole, by a string
    PLAIN = enum.auto()  # of a string: stands for itself
    ESCAPE = enum.auto()  # of a string: stands for one character


@dataclass(frozen=True, slots=True)
class _Run:
    """A piece of the JSON, how much the screen sees of it, and which string or number it belongs to."""

    kind: _Kind
    written: str
    seen: str
    lexeme: int


class JsonScreen:
    """JSON on its way through a screen, in whatever pieces it comes.

    Args:
        screen: looks at it.
        numbers: whether they may become strings.
    """

    def __init__(self, screen: Screen, *, numbers: bool = True) -> None:
        self._screen = screen
        self._numbers = numbers
        self._rest = ""  # not taken apart yet
        self._in_string = False
        self._lexeme = 0
        self._runs: deque[_Run] = deque()
        self._at = 0  # of what the screen sees, how far it was written
        self._next = 0  # the first replacement that is not behind that
        self._masked = (0, 0)  # the lexeme and replacement whose mask was written last

    def feed(self, text: str) -> str:
        """Take text, give what may go on.

        Raises:
            GuardFailed: nothing may any more.
        """
        self._show(text, is_last=False)
        return "".join(self._write())

    def end(self) -> str:
        """Nothing follows: give what was held.

        Raises:
            GuardFailed: it may not go on.
        """
        self._show("", is_last=True)
        self._screen.end()
        return "".join(self._write())

    def _show(self, text: str, *, is_last: bool) -> None:
        runs = list(self._taken_apart(self._rest + text, is_last=is_last))
        self._runs += runs
        self._screen.feed("".join(run.seen for run in runs))

    def _taken_apart(self, text: str, *, is_last: bool) -> Iterator[_Run]:
        at, self._rest = 0, ""
        while at < len(text):
            found = (_INSIDE if self._in_string else _OUTSIDE).match(text, at)
            if found is not None:
                yield self._run(_Kind.PLAIN if self._in_string else _Kind.LAYOUT, found[0])
                at = found.end()
            elif text[at] == '"':
                self._in_string = not self._in_string
                yield self._run(_Kind.LAYOUT, '"')
                at += 1
            elif not is_last and _is_open(text, at, in_string=self._in_string):
                self._rest = text[at:]
                return
            else:
                run = self._escape(text, at) if self._in_string else self._number(text, at)
                yield run
                at += len(run.written)

    def _run(self, kind: _Kind, written: str, seen: str | None = None) -> _Run:
        if kind is _Kind.NUMBER or written == '"':
            self._lexeme += 1
        return _Run(kind, written, written if seen is None else seen, self._lexeme)

    def _number(self, text: str, at: int) -> _Run:
        found = _NUMBER.match(text, at)
        return self._run(_Kind.LAYOUT, text[at]) if found is None else self._run(_Kind.NUMBER, found[0])

    def _escape(self, text: str, at: int) -> _Run:
        found = _ESCAPE.match(text, at)
        try:
            return self._run(_Kind.PLAIN, "\\") if found is None else self._says(found[0])
        except ValueError:  # no escape that JSON knows: shown as it is written
            return self._run(_Kind.PLAIN, "\\")

    def _says(self, escape: str) -> _Run:
        return self._run(_Kind.ESCAPE, escape, str(json.loads(f'"{escape}"')))

    def _write(self) -> Iterator[str]:
        """What the screen has let through, with what it replaced."""
        until = self._screen.num_released
        while self._runs and self._at < until:
            run = self._runs.popleft()
            size = min(len(run.seen), until - self._at)
            if size < len(run.seen):
                if run.kind is _Kind.NUMBER:
                    self._runs.appendleft(run)
                    return
                rest = run.written[size:]
                self._runs.appendleft(_Run(run.kind, rest, rest, run.lexeme))
            yield from self._written(run, size)
            self._at += size

    def _written(self, run: _Run, size: int) -> Iterator[str]:
        """So many characters of a run."""
        whole = run.written if size == len(run.seen) else run.written[:size]
        touching = [] if run.kind is _Kind.LAYOUT else list(self._touching(self._at, self._at + size))
        if run.kind is _Kind.NUMBER:
            yield json.dumps(touching[0][1].mask, ensure_ascii=False) if touching and self._numbers else whole
            return
        at = 0
        for number, one in touching:
            yield whole[at : max(at, one.start - self._at)]
            if self._masked != (run.lexeme, number):
                self._masked = run.lexeme, number
                yield json.dumps(one.mask, ensure_ascii=False)[1:-1]
            at = len(whole) if one.end >= self._at + size else one.end - self._at
        yield whole[at:]

    def _touching(self, begin: int, end: int) -> Iterator[tuple[int, Replacement]]:
        """The replacements between two places, each with its number, from 1."""
        replacements = self._screen.replacements
        while self._next < len(replacements) and replacements[self._next].end <= begin:
            self._next += 1
        for at in range(self._next, len(replacements)):
            if replacements[at].start >= end:
                return
            yield at + 1, replacements[at]


def _is_open(text: str, at: int, *, in_string: bool) -> bool:
    """Whether a number or an escape may go on behind the text."""
    if in_string:
        return _ESCAPE_BEGUN.fullmatch(text, at) is not None
    found = _NUMBER.match(text, at)
    return at + 1 == len(text) if found is None else found.end() == len(text)


def screened_json(screen: Screen, text: str, *, numbers: bool = True) -> str:
    """A whole JSON text with what is found in its strings, and in its numbers if they may become strings, replaced.

    Raises:
        GuardFailed: it may not go on.
    """
    looked = JsonScreen(screen, numbers=numbers)
    return looked.feed(text) + looked.end()
