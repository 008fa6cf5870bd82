"""Characters that nobody sees and that change what a text says: zero-width ones, tags, overrides of direction.

Where writing needs them they are left alone: joiners in emoji and in the scripts that use them, marks of direction
beside text from right to left, the tags of flags, a byte order mark at the beginning. Sources: Unicode TR 36 and TS 39,
"Trojan Source" (Boucher and Anderson 2021).
"""

from collections.abc import Sequence

from serin_gateway.guards.detector import Finding
from serin_gateway.guards.patterns import Pattern, compiled

DIRECTION_REACH = 32
"""So many characters around a mark of direction are looked at for text from right to left."""
_FLAG = compiled("\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{1,7}\U000e007f")
_TRICKS = Pattern(
    "(?P<tags>[\U000e0000-\U000e007f]+)"
    "|(?P<selectors>[\ufe00-\ufe0f]{2,}|[\U000e0100-\U000e01ef]{2,}|(?<![\\p{Han}])[\U000e0100-\U000e01ef])"
    "|(?P<override>[\u202d\u202e])"
    "|(?P<direction>[\u061c\u200e\u200f\u202a-\u202c\u2066-\u2069])"
    "|(?P<joiner>[\u200c\u200d]+)"
    "|(?P<invisible>[\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180e\u200b\u2060-\u2065\u206a-\u206f\u3164\ufeff\uffa0"
    "\ufff9-\ufffb]+)"
)
_KINDS = {
    "tags": "TAG_CHARACTERS",
    "selectors": "VARIATION_SELECTORS",
    "override": "DIRECTION_OVERRIDE",
    "direction": "DIRECTION_CONTROL",
    "joiner": "ZERO_WIDTH",
    "invisible": "ZERO_WIDTH",
}
_RIGHT_TO_LEFT = compiled(r"[\p{Hebrew}\p{Arabic}\p{Syriac}\p{Thaana}\p{Nko}]")
_JOINED = compiled(
    r"[\p{Arabic}\p{Syriac}\p{Mongolian}\p{Devanagari}\p{Bengali}\p{Gurmukhi}\p{Gujarati}\p{Oriya}\p{Tamil}\p{Telugu}"
    r"\p{Kannada}\p{Malayalam}\p{Sinhala}\p{Tibetan}\p{Myanmar}\p{Khmer}]"
)
_EMOJI = compiled("[\\p{Extended_Pictographic}\ufe0f\U0001f3fb-\U0001f3ff\u20e3\u2640\u2642]")
_TAIL = Pattern(
    "(?r)[\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200d\u2060-\u2065\u206a-\u206f\u3164\ufeff\uffa0"
    "\ufff9-\ufffb\ufe00-\ufe0f\U0001f3f4\U000e0000-\U000e01ef]+\\Z"
)
_DIRECTIONS = Pattern("[\u061c\u200e\u200f\u202a-\u202c\u2066-\u2069]")


class UnicodeTricks:
    """Finds them; masked they are gone."""

    def find(self, text: str, start: int) -> Sequence[Finding]:
        """What is found from a position on."""
        if text.isascii():
            return ()
        flags = [match.span() for match in _FLAG.finditer(text)]
        found = []
        for match in _TRICKS.matches(text, start):
            what = match.lastgroup or ""
            if not _is_legitimate(text, what, *match.span()) and not _is_inside(flags, match.start()):
                found.append(Finding(match.start(), match.end(), _KINDS[what], ""))
        return found

    def open_from(self, text: str, start: int) -> int:
        """A run of what it looks for at the end may go on; what follows a mark of direction says what it is for."""
        if text.isascii():
            return len(text)
        tail = _TAIL.search(text, start)
        opened = tail.start() if tail is not None else len(text)
        late = _DIRECTIONS.search(text, max(start, len(text) - DIRECTION_REACH))
        return min(opened, late.start()) if late is not None else opened


def _is_legitimate(text: str, what: str, start: int, end: int) -> bool:
    before, after = text[start - 1 : start] if start else "", text[end : end + 1]
    if what == "joiner" and end - start == 1:
        emoji = text[start] == "\u200d" and _EMOJI.match(before) and _EMOJI.match(after)
        return bool(emoji or (_JOINED.match(before) and (not after or not after.isalnum() or _JOINED.match(after))))
    if what == "direction":
        return bool(_RIGHT_TO_LEFT.search(text, max(0, start - DIRECTION_REACH), end + DIRECTION_REACH))
    if what == "invisible" and start == 0:
        return text[:end] == "\ufeff"
    return what == "invisible" and text[start:end] == "\u00ad" and before.isalpha() and after.isalpha()


def _is_inside(spans: Sequence[tuple[int, int]], place: int) -> bool:
    return any(start <= place < end for start, end in spans)
