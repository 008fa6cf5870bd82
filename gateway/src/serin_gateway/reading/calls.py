"""Calls of tools in a text that grows: one small machine for all forms.

Text goes through as soon as no mark can begin in it. From a mark on it is held until it is a call or, to the last
character, text. A call is told when it is whole, or as it grows; one that grows and then breaks off ends, and what is
left of it is text. An answer of calls alone, as one is that had to call, has no text: what is no call is left out. How
the text was cut changes nothing. Whitespace around calls belongs to them. Knows nothing about reasoning, tokens or who
asked.
"""

import enum
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from serin_gateway.reading.call_text import Called, arguments_in, calls_in
from serin_gateway.reading.form import CallForm
from serin_gateway.reading.growing import GrowingCalls
from serin_gateway.reading.json_end import Broken, JsonEnd
from serin_gateway.reading.marks import MARKS, num_begun
from serin_gateway.reading.parts import CallEnded, Part, Said

MAX_HEADER = 256
_HEADER = re.compile(r"([A-Za-z0-9_.-]{1,128})(?:\[CALL_ID\][A-Za-z0-9_-]+)?(?:\[ARGS\])?\s*")
_HEADER_END = re.compile(r"[^A-Za-z0-9_.\-\[\]\s]")


class _State(enum.Enum):
    START = enum.auto()  # nothing but whitespace has come
    TEXT = enum.auto()  # what comes is said
    MARKED = enum.auto()  # behind an opening mark
    HEADER = enum.auto()  # in the name before the JSON
    JSON = enum.auto()  # in the JSON
    CALLED = enum.auto()  # behind a call


class CallReader:
    """Takes an answer's text in pieces, gives what it says and calls.

    Args:
        form: the form of its calls; not NONE.
        tools: names that may be called.
        grows: calls are told as they grow, else when they are whole.
        is_single: one call is all that is wanted.
        only_calls: nothing but calls is wanted.

    Attributes:
        is_complete: nothing more is wanted: the only call is there.
        has_broken_off: a call that was told did not become whole, or the text ended inside of one.
    """

    def __init__(
        self,
        form: CallForm,
        tools: Collection[str],
        *,
        grows: bool = False,
        is_single: bool = False,
        only_calls: bool = False,
    ) -> None:
        self._marks = MARKS[form]
        self._tools = tools
        self._grows = grows
        self._is_single = is_single
        self._only_calls = only_calls
        self.is_complete = False
        self.has_broken_off = False
        self._state = _State.START if self._marks.bare else _State.TEXT
        self._held = ""
        self._at = 0  # in what is held: how far it is understood
        self._header: str | None = None
        self._end = JsonEnd(0)
        self._growing = self._growing_from(0, None)
        self._parts: list[Part] = []
        self._follows_call = False  # a call was the last that came
        self._steps: Mapping[_State, Callable[[], bool]] = {
            _State.START: self._start,
            _State.TEXT: self._text,
            _State.MARKED: self._marked,
            _State.HEADER: self._in_header,
            _State.JSON: self._in_json,
            _State.CALLED: self._called,
        }

    def feed(self, text: str) -> list[Part]:
        """Take text, give what became certain."""
        self._held += text
        while not self.is_complete and self._steps[self._state]():
            pass
        return self._taken()

    def end(self) -> list[Part]:
        """Nothing follows: what was held is said, half a call too, unless it was told as it grew."""
        if self.is_complete:
            return []
        if self._state is _State.JSON:
            self._parts += self._growing.grow(self._held, len(self._held), is_last=True)
            self._end_growing()
        rest = self._held
        if self._state is _State.CALLED and self._marks.closing.startswith(rest.strip()):
            rest = ""
        if self._follows_call and rest.strip() in ("", ";" if self._state is _State.CALLED else ""):
            rest = ""
        is_text = self._state is _State.TEXT and not num_begun(self._marks.opening, rest, len(rest))
        is_over = self._state in (_State.START, _State.CALLED)
        self.has_broken_off |= bool(rest.strip()) and not (is_text or is_over)
        self._say(rest)
        self._held = ""
        self._state = _State.TEXT
        return self._taken()

    # Each step says whether there is more to do with what is held.

    def _start(self) -> bool:
        text = self._held.lstrip()
        if text[:1] in ("{", "["):
            self._begin_json(len(self._held) - len(text))
        elif text:
            self._state = _State.TEXT
        return bool(text)

    def _text(self) -> bool:
        mark = self._marks.opening
        at = self._held.find(mark) if mark else -1
        certain = self._held[
            : at if at >= 0 else len(self._held) - num_begun(mark, self._held, len(self._held))
        ].rstrip()
        self._say(certain)
        self._held = self._held[len(certain) :]
        if at >= 0:
            self._at = at - len(certain) + len(mark)
            self._state = _State.MARKED
        return at >= 0

    def _marked(self) -> bool:
        text = self._held[self._at :].lstrip()
        start = len(self._held) - len(text)
        if not text:
            return False
        if text[0] in "{[":
            self._begin_json(start)
        elif self._marks.headed:
            self._at = start
            self._state = _State.HEADER
        else:
            self._give_up(start)
        return True

    def _in_header(self) -> bool:
        limit = self._at + MAX_HEADER
        ends = _HEADER_END.search(self._held, self._at, limit)
        if ends is None:
            if len(self._held) < limit:
                return False
            self._give_up(limit)
            return True
        found = _HEADER.fullmatch(self._held, self._at, ends.start()) if ends[0] == "{" else None
        if found is not None:
            self._begin_json(ends.start(), found[1])
        else:
            self._give_up(ends.start())
        return True

    def _in_json(self) -> bool:
        try:
            end = self._end.find(self._held)
        except Broken as broken:
            self._parts += self._growing.grow(self._held, broken.at)
            self._break_off(broken.at)
            return True
        self._parts += self._growing.grow(self._held, len(self._held) if end is None else end)
        if end is None:
            return False
        calls = self._understood(self._held[self._at : end])
        rest = None if calls is None else self._growing.rest(self._held, calls[:1] if self._is_single else calls)
        if rest is None:
            self._break_off(end)
            return True
        self._parts += rest
        self._follows_call = True
        self._held = self._held[end:]
        self._state = _State.CALLED
        self.is_complete = self._is_single
        return True

    def _called(self) -> bool:
        text = self._held.lstrip()
        if self._marks.closing:
            if text.startswith(self._marks.closing):
                self._held = text.removeprefix(self._marks.closing)
            elif self._marks.closing.startswith(text):
                return False
        elif self._marks.bare:
            text = text.removeprefix(";").lstrip()
            if not text:
                return False
            if text[0] in "{[":
                self._begin_json(len(self._held) - len(text))
                return True
        self._state = _State.TEXT
        return True

    def _begin_json(self, start: int, header: str | None = None) -> None:
        self._at, self._header, self._end = start, header, JsonEnd(start)
        self._growing = self._growing_from(start, header)
        self._state = _State.JSON

    def _growing_from(self, start: int, header: str | None) -> GrowingCalls:
        marks = self._marks.around
        tools = self._tools if self._grows else ()
        return GrowingCalls(start, tools, marks, header=header, is_only=self._is_single)

    def _understood(self, text: str) -> list[Called] | None:
        if self._header is None:
            return calls_in(text, self._tools, bare=self._marks.bare)
        arguments = arguments_in(text)
        return [Called(self._header, arguments)] if arguments is not None and self._header in self._tools else None

    def _break_off(self, at: int) -> None:
        """The JSON is no call: up to there it is said, but for what was told of it."""
        told_until = self._growing.told_until
        if not self._end_growing():
            self._give_up(at)
        elif self._held[: at - told_until].strip():
            self._give_up(at - told_until)
        else:
            self._state = _State.CALLED

    def _end_growing(self) -> bool:
        """A call that was told ends, whole or not, and what was told is held no longer; false: none was."""
        if not self._growing.has_begun:
            return False
        self._parts.append(CallEnded(self._growing.is_whole))
        self.has_broken_off |= not self._growing.is_whole
        self._held = self._held[self._growing.told_until :]
        self._follows_call = True
        if self._is_single:
            self._marks = replace(self._marks, opening="", bare=False)
        return True

    def _give_up(self, at: int) -> None:
        """No call: what is held up to there is said."""
        self._say(self._held[:at])
        self._held = self._held[at:]
        self._state = _State.TEXT

    def _say(self, text: str) -> None:
        if text and not self._only_calls:
            self._parts.append(Said(text))
            self._follows_call = False

    def _taken(self) -> list[Part]:
        taken, self._parts = self._parts, []
        return taken
