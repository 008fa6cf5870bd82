"""Telephone numbers, by `phonenumbers` (Google's libphonenumber), which Presidio asks too.

A number in its international form is believed; in a national one it must be grouped as the country does, or a word
must name it. Knows nothing about other kinds of numbers.
"""

import re
import time
from collections.abc import Iterator, Sequence
from functools import cache
from types import ModuleType

from serin_gateway.guards.detector import DetectorFailed
from serin_gateway.guards.patterns import Pattern, compiled
from serin_gateway.guards.personal_kinds import PHONE_WORDS

_CANDIDATE = Pattern(
    r"(?<![\w@#$€£=&-])(?<!\d[.,/:])(?:(?:\+|00)[ ]?)?(?:\(\+?\d{1,4}\)|\d)(?:[ .\-/()]{0,3}\d){6,14}"
    r"(?![\w@]|[.,/:-]\d|\s?[%€$£])"
)
_DATE = compiled(
    r"(?:19|20)\d{2}[-./ ]\d{1,2}[-./ ]\d{1,2}\b|\d{1,2}[-./]\d{1,2}[-./](?:19|20)\d{2}\b"
    r"|(?:19|20)\d{2}\s?-\s?(?:19|20)\d{2}$"
)
_WORDS = Pattern(r"(?<!\w)(?:" + "|".join(re.escape(word) for word in PHONE_WORDS) + ")")
_WORDS_REACH = 60


class Phones:
    """Finds them.

    Args:
        regions: whose national forms are looked for; ISO 3166.
    """

    def __init__(self, regions: Sequence[str]) -> None:
        self._regions = regions

    def find(self, seen: str, text: str, start: int, give_up_at: float) -> Iterator[tuple[int, int]]:
        """Where they are, from a position on.

        Raises:
            DetectorFailed: this thread's processor time has come to ``give_up_at``.
        """
        for match in _CANDIDATE.matches(seen, start):
            if time.thread_time() > give_up_at:
                raise DetectorFailed("the search took too long")
            what = match[0]
            named = _WORDS.search(text[max(0, match.start() - _WORDS_REACH) : match.start()].casefold()) is not None
            if _DATE.match(what) is None and self._is_number(what, named=named):
                yield match.span()

    def _is_number(self, what: str, *, named: bool) -> bool:
        phonenumbers = _library()
        is_international = what.startswith(("+", "(+"))
        regions: Sequence[str | None] = [None] if is_international else self._regions
        is_grouped = any(not character.isdigit() for character in what)
        if not (is_international or is_grouped or named):
            return False
        for region in regions:
            if not (is_international or named or _may_begin(what, region)):
                continue
            try:
                number = phonenumbers.parse(what, region)
            except phonenumbers.NumberParseException:
                continue
            if phonenumbers.is_valid_number(number) and (is_international or named or _is_usual(what, number, region)):
                return True
        return False


def _may_begin(what: str, region: str | None) -> bool:
    """Whether a number as people of a country write it may begin so: in most of them with 0."""
    return _trunk_prefix(region) != "0" or what.lstrip("(").startswith("0")


@cache
def _trunk_prefix(region: str | None) -> str:
    return _library().ndd_prefix_for_region(region, True) or ""


def _is_usual(what: str, number: object, region: str | None) -> bool:
    """Whether it is grouped as people of the country do: the groups of one way to write it, with its prefix."""
    phonenumbers = _library()
    groups = re.findall(r"\d+", what)
    national = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.NATIONAL)
    return groups in (re.findall(r"\d+", national), ["1", *re.findall(r"\d+", national)])


@cache
def _library() -> ModuleType:
    import phonenumbers

    return phonenumbers
