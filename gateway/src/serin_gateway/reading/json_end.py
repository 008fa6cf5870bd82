"""Where a JSON object or list ends in a text that grows, and where it turns out to be none.

Looks at every character once, however the text comes. Knows nothing about what the JSON says.
"""

import re

MAX_DEPTH = 64

_OUTSIDE = re.compile(r"[^\s\w,:.+-]")
"""Outside of strings: what opens, closes, begins a string, or belongs to no JSON."""
_INSIDE = re.compile(r'["\\\x00-\x1f]')
"""Inside of strings: what ends it, escapes, or may not stand there."""
_CLOSING = {"{": "}", "[": "]"}


class Broken(Exception):
    """It is no JSON.

    Attributes:
        at: the first character that cannot be part of it.
    """

    def __init__(self, at: int) -> None:
        super().__init__(f"no JSON at {at}")
        self.at = at


class JsonEnd:
    """Looks for the end of the object or list that begins at ``start`` of a text.

    It checks brackets, strings and what may stand outside of them; that the rest is right, a parser finds out.
    """

    def __init__(self, start: int) -> None:
        self._at = start
        self._closing: list[str] = []
        self._in_string = False

    def find(self, text: str) -> int | None:
        """The index behind it; None while it goes on. ``text`` is what it was before, and perhaps more.

        Raises:
            Broken: it cannot become JSON any more.
        """
        while (found := (_INSIDE if self._in_string else _OUTSIDE).search(text, self._at)) is not None:
            mark, at = found[0], found.start()
            if mark == "\\":
                if at + 1 == len(text):
                    self._at = at
                    return None
                self._at = at + 2
                continue
            self._at = at + 1
            if mark == '"':
                self._in_string = not self._in_string
            elif self._in_string:
                raise Broken(at)
            elif mark in _CLOSING:
                self._closing.append(_CLOSING[mark])
                if len(self._closing) > MAX_DEPTH:
                    raise Broken(at)
            elif not self._closing or self._closing.pop() != mark:
                raise Broken(at)
            elif not self._closing:
                return self._at
        self._at = len(text)
        return None
