"""Text as a reader would take it: without characters that nobody sees, with look-alikes as what they look like.

So that a zero-width space inside of a card number hides it from nobody. Knows nothing about what is looked for.
"""

import unicodedata
from collections.abc import Sequence

from serin_gateway.guards.detector import Detector, Finding
from serin_gateway.guards.patterns import compiled

TAGS = "\U000e0020-\U000e007e"
"""Tag characters: ASCII that nobody sees."""
INVISIBLE = "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff"  # noqa: E501 - one class of characters
_FOLDED = compiled(
    rf"[{INVISIBLE}\u00a0\u2000-\u200a\u2010-\u2015\u202f\u205f\u2212\u2460-\u249b\u3000\ufe52-\ufe6b\uff01-\uff5e"
    r"\U0001d400-\U0001d7ff]"
)
_TAG = compiled(rf"[{TAGS}]")
_INVISIBLE = compiled(rf"[{INVISIBLE}]")


class Folded:
    """A detector that is shown folded text.

    Args:
        inner: what looks at it.
    """

    def __init__(self, inner: Detector) -> None:
        self._inner = inner

    def find(self, text: str, start: int) -> Sequence[Finding]:
        """What the inner one finds, where it stands in the text as it was given."""
        if text.isascii() or _FOLDED.search(text) is None:
            return self._inner.find(text, start)
        folded, places = _fold(text)
        found = self._inner.find(folded, _place_of(places, start))
        return [Finding(places[one.start], places[one.end - 1] + 1, one.kind, one.mask) for one in found]

    def open_from(self, text: str, start: int) -> int:
        """Where it may begin in the text as it was given."""
        if text.isascii() or _FOLDED.search(text) is None:
            return self._inner.open_from(text, start)
        folded, places = _fold(text)
        at = self._inner.open_from(folded, _place_of(places, start))
        opened = places[at] if at < len(places) else len(text)
        while opened > start and _INVISIBLE.match(text, opened - 1):
            opened -= 1  # what nobody sees before it belongs to it
        return max(start, opened)


def _fold(text: str) -> tuple[str, list[int]]:
    """The folded text, and where each of its characters stands in the given one; hidden ASCII is a text of its own."""
    folded: list[str] = []
    places: list[int] = []
    was_hidden = False
    for place, character in enumerate(text):
        if character.isascii() or _FOLDED.match(character) is None:
            seen = character
        elif _TAG.match(character):
            seen = chr(ord(character) - 0xE0000)
            if not was_hidden:
                folded.append(" ")
                places.append(place)
        elif _INVISIBLE.match(character):
            continue
        elif "\u2010" <= character <= "\u2015" or character == "\u2212":
            seen = "-"
        else:
            seen = unicodedata.normalize("NFKC", character)
        if was_hidden and not _TAG.match(character):
            folded.append(" ")
            places.append(place)
        was_hidden = _TAG.match(character) is not None
        folded.append(seen)
        places.extend([place] * len(seen))
    return "".join(folded), places


def _place_of(places: Sequence[int], start: int) -> int:
    """The first folded character that stands at a place or behind it."""
    low, high = 0, len(places)
    while low < high:
        middle = (low + high) // 2
        if places[middle] < start:
            low = middle + 1
        else:
            high = middle
    return low
