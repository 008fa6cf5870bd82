"""Calls in a JSON text that grows, told before it is whole.

A call begins with the brace that opens its arguments, if the name before it is one on offer: until then it may still
turn out to be no call. Its arguments follow as far as they are certain: what may be half of a mark, or behind a mark,
or no JSON, waits until the text is whole. A text that is written in another order (arguments before the name, arguments
as a string) is told when it is whole. How the text was cut changes nothing. Knows nothing about what is around it.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from serin_gateway.reading.call_text import Called
from serin_gateway.reading.json_prefix import JsonPrefix
from serin_gateway.reading.marks import num_begun
from serin_gateway.reading.parts import CallBegun, CallEnded, CallGrew, CallPart

MAX_HEAD = 512
"""Characters before the arguments, and between those of two calls of a list."""

_S = r"[ \t\n\r]*"
_OTHER = rf'"(?:type|id)"{_S}:{_S}"[^"\\]*"'
_HEAD = (
    rf'\{{{_S}(?:{_OTHER}{_S},{_S})*"name"{_S}:{_S}"([^"\\]*)"{_S},{_S}(?:{_OTHER}{_S},{_S})*'
    rf'"(?:arguments|parameters)"{_S}:{_S}(?=\{{)'
)
_FIRST = re.compile(rf"(?:\[{_S})?{_HEAD}")
_NEXT = re.compile(rf"{_S}(?:,{_S}{_OTHER}{_S})*\}}{_S},{_S}{_HEAD}")


@dataclass(slots=True)
class _Sent:
    """A call that was told: where its arguments begin, how far they were told, and whether that is all of them."""

    name: str
    start: int
    until: int
    is_whole: bool = False


class GrowingCalls:
    """The calls of one JSON text.

    Args:
        start: where it begins in the text that is held.
        tools: names that may be called; none: nothing is told before it is whole.
        marks: what ends a call, or begins another.
        header: the name before it; the text is its arguments then. None: it is inside.
        is_only: no call behind the first is told.
    """

    def __init__(
        self, start: int, tools: Collection[str], marks: Sequence[str], *, header: str | None, is_only: bool
    ) -> None:
        self._start = start
        self._tools = tools
        self._marks = marks
        self._is_only = is_only
        self._head: re.Pattern[str] | None = _FIRST if header is None else None
        self._sent: list[_Sent] = []
        self._arguments: JsonPrefix | None = None
        self._looked = start  # how far no mark stands in the arguments
        self._mark: int | None = None  # where one does
        self._header = header if header in tools else None

    @property
    def has_begun(self) -> bool:
        """Whether a call was told."""
        return bool(self._sent)

    @property
    def is_whole(self) -> bool:
        """Whether the last call that was told was told to the end of its arguments."""
        return bool(self._sent) and self._sent[-1].is_whole

    @property
    def told_until(self) -> int:
        """How far in the text all was told, or belongs to what was."""
        return self._sent[-1].until if self._sent else 0

    def grow(self, text: str, end: int, *, is_last: bool = False) -> list[CallPart]:
        """What became certain. ``text`` is what it was before, and perhaps more.

        Args:
            text: what is held.
            end: what stands there and behind is no part of the JSON.
            is_last: nothing follows.
        """
        parts: list[CallPart] = []
        while self._arguments is not None or self._begin(text, end, parts):
            assert self._arguments is not None
            sent, certain = self._sent[-1], self._certain(self._arguments, text, end, is_last=is_last)
            if certain > sent.until:
                parts.append(CallGrew(text[sent.until : certain]))
                sent.until = certain
            if not self._arguments.is_whole:
                break
            sent.is_whole, self._arguments = True, None
        return parts

    def rest(self, text: str, calls: Sequence[Called]) -> list[CallPart] | None:
        """What was not told of the calls that the whole text makes; None: they are not those that were told."""
        if len(self._sent) > len(calls):
            return None
        for sent, call in zip(self._sent, calls, strict=False):
            told = text[sent.start : sent.until]
            if sent.name != call.name or not call.arguments_json.startswith(told):
                return None
            if sent.is_whole and len(told) < len(call.arguments_json):
                return None
        parts: list[CallPart] = []
        if self._sent:
            sent = self._sent[-1]
            more = calls[len(self._sent) - 1].arguments_json[sent.until - sent.start :]
            parts += [CallGrew(more)] if more else []
            parts.append(CallEnded(is_whole=True))
        for call in calls[len(self._sent) :]:
            parts += CallBegun(call.name), CallGrew(call.arguments_json), CallEnded(is_whole=True)
        return parts

    def _begin(self, text: str, end: int, parts: list[CallPart]) -> bool:
        """Find where the next call's arguments begin."""
        at = self._sent[-1].until if self._sent else self._start
        if self._header is not None:
            name, self._header = self._header, None
        else:
            if self._head is None:
                return False
            found = self._head.match(text, at, min(end, at + MAX_HEAD))
            if found is None or found[1] not in self._tools:
                if found is not None or end - at >= MAX_HEAD:
                    self._head = None
                return False
            name, at = found[1], found.end()
        if self._sent:
            parts.append(CallEnded(is_whole=True))
        self._head = _NEXT if self._head is not None and not self._is_only and text[self._start] == "[" else None
        self._arguments, self._looked, self._mark = JsonPrefix(at), at, None
        self._sent.append(_Sent(name, at, at))
        parts.append(CallBegun(name))
        return True

    def _certain(self, arguments: JsonPrefix, text: str, end: int, *, is_last: bool) -> int:
        """How far the arguments may be told."""
        arguments.grow(text, end)
        if arguments.is_whole:
            return arguments.at
        if self._mark is not None:
            return self._mark
        at = arguments.begun(text, end) if is_last else arguments.at
        num_held = 0
        for mark in self._marks:
            place = text.find(mark, self._looked, at)
            if place >= 0:
                self._mark = place if self._mark is None else min(self._mark, place)
            elif not is_last:
                num_held = max(num_held, num_begun(mark, text, at))
        if self._mark is not None:
            return self._mark
        self._looked = max(self._looked, at - num_held)
        return at - num_held
