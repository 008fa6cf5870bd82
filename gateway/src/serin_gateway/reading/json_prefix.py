"""How far a text that grows is certainly the beginning of a JSON object.

Strict (RFC 8259): what it says is certain no JSON reader refuses, whatever follows; half of a surrogate pair and a
number that may go on are not certain yet. Looks at every character once, however the text comes. Knows nothing about
what the JSON says.
"""

import enum
import re

_SPACE = re.compile(r"[ \t\n\r]*")
_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')
"""In a string, what stands for itself."""
_ESCAPE = re.compile(
    r'\\(?:["\\/bfnrt]|u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u(?![dD][89a-fA-F])[0-9a-fA-F]{4})'
)
_ESCAPE_BEGUN = re.compile(
    r"\\(?:u[0-9a-fA-F]{0,3}|u[dD][89abAB][0-9a-fA-F]{2}(?:\\(?:u(?:[dD](?:[c-fC-F][0-9a-fA-F]?)?)?)?)?)?"
)
_WORD = re.compile(r"[-+.0-9A-Za-z]{1,512}")
"""A number or a name, right or wrong; behind so many digits nothing more is certain."""
_ATOM = re.compile(r"true|false|null|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_ATOM_BEGUN = re.compile(
    r"t(?:r(?:ue?)?)?|f(?:a(?:l(?:se?)?)?)?|n(?:u(?:ll?)?)?"
    r"|-?(?:(?:0|[1-9][0-9]*)(?:\.(?:[0-9]+(?:[eE][-+]?[0-9]*)?)?|[eE][-+]?[0-9]*)?)?"
)
_CLOSING = {"{": "}", "[": "]"}


class _Next(enum.Enum):
    """What may come."""

    VALUE = enum.auto()
    FIRST_VALUE = enum.auto()  # or the list's end
    KEY = enum.auto()
    FIRST_KEY = enum.auto()  # or the object's end
    COLON = enum.auto()
    COMMA = enum.auto()  # or the end of what is open
    IN_KEY = enum.auto()
    IN_TEXT = enum.auto()


class JsonPrefix:
    """The object that begins at ``start`` of a text.

    Attributes:
        at: the end of what is certain.
        is_whole: that is all of the object.
    """

    def __init__(self, start: int) -> None:
        self.at = start
        self.is_whole = False
        self._open: list[str] = []
        self._next = _Next.VALUE

    def grow(self, text: str, end: int) -> None:
        """``text`` is what it was before, and perhaps more; what stands at ``end`` and behind is not looked at."""
        while not self.is_whole and self.at < end and self._step(text, end):
            pass

    def begun(self, text: str, end: int) -> int:
        """The end of what is certain if nothing follows: a number or an escape that was begun may be cut there."""
        if self._next in (_Next.IN_KEY, _Next.IN_TEXT):
            return end if _ESCAPE_BEGUN.fullmatch(text, self.at, end) else self.at
        if self._next in (_Next.VALUE, _Next.FIRST_VALUE):
            return end if _ATOM_BEGUN.fullmatch(text, self.at, end) else self.at
        return self.at

    def _step(self, text: str, end: int) -> bool:
        """Take one thing; false: it is not all there, or never will be."""
        if self._next in (_Next.IN_KEY, _Next.IN_TEXT):
            return self._in_string(text, end)
        found = _SPACE.match(text, self.at, end)
        assert found is not None, "it matches nothing too"
        if found.end() > self.at:
            self.at = found.end()
            return True
        mark = text[self.at]
        if mark == '"' and self._next in (_Next.VALUE, _Next.FIRST_VALUE):
            return self._take(_Next.IN_TEXT)
        if mark == '"' and self._next in (_Next.KEY, _Next.FIRST_KEY):
            return self._take(_Next.IN_KEY)
        if mark == ":" and self._next is _Next.COLON:
            return self._take(_Next.VALUE)
        if mark == "," and self._next is _Next.COMMA:
            return self._take(_Next.KEY if self._open[-1] == "{" else _Next.VALUE)
        if mark in _CLOSING and self._next in (_Next.VALUE, _Next.FIRST_VALUE):
            self._open.append(mark)
            return self._take(_Next.FIRST_KEY if mark == "{" else _Next.FIRST_VALUE)
        if mark in "}]":
            return self._close(mark)
        return self._atom(text, end)

    def _take(self, next_: _Next) -> bool:
        self.at += 1
        self._next = next_
        return True

    def _close(self, mark: str) -> bool:
        first = _Next.FIRST_KEY if mark == "}" else _Next.FIRST_VALUE
        if self._next not in (_Next.COMMA, first) or _CLOSING[self._open[-1]] != mark:
            return False
        self._open.pop()
        self.is_whole = not self._open
        return self._take(_Next.COMMA)

    def _atom(self, text: str, end: int) -> bool:
        word = _WORD.match(text, self.at, end)
        if self._next not in (_Next.VALUE, _Next.FIRST_VALUE) or word is None or word.end() == end:
            return False
        if _ATOM.fullmatch(word[0]) is None:
            return False
        self.at = word.end()
        self._next = _Next.COMMA
        return True

    def _in_string(self, text: str, end: int) -> bool:
        plain = _PLAIN.match(text, self.at, end)
        assert plain is not None, "it matches nothing too"
        self.at = plain.end()
        if self.at == end:
            return False
        if text[self.at] == '"':
            return self._take(_Next.COLON if self._next is _Next.IN_KEY else _Next.COMMA)
        escape = _ESCAPE.match(text, self.at, end)
        if escape is not None:
            self.at = escape.end()
        return escape is not None
