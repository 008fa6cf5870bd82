"""Personal data: e-mail addresses, cards, accounts, telephone numbers, what states give their people.

The patterns, checksums and words are Presidio's; what runs them here keeps to a time and knows where a stream may be
cut. Names and addresses of people are not looked for: that takes a model. Knows nothing about policies.
"""

import ipaddress
import math
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import regex

from serin_gateway.guards.detector import DetectorFailed, Finding, settled
from serin_gateway.guards.patterns import Pattern, compiled
from serin_gateway.guards.personal_kinds import COUNTRIES, GENERIC, OF_COUNTRY, Needs, PersonalKind
from serin_gateway.guards.phones import Phones
from serin_gateway.guards.presidio import load
from serin_gateway.guards.tails import number_start

REACH = 320
"""Longest thing that is looked for, with room: an address of 254 characters (RFC 5321)."""
FIND_TIMEOUT_S = 1.0
"""Processor time for one piece of text, so that a busy machine makes no search late."""
BELIEVED = 0.4
"""How sure Presidio is at least of a pattern that is believed without a checksum or a word."""
WORDS_BEFORE = 8
_WORDS_REACH = 100
_SIGNAL = compiled(r"[\d@]|::|\b[fF][eE]80:")
"""Everything that is looked for has one of these."""
_CASELESS = compiled(r"\p{Lo}")
_FLAGS = regex.DOTALL | regex.MULTILINE | regex.IGNORECASE
_CARD_ISSUERS = compiled(
    r"4\d{12}(?:\d{3}){0,2}|5[0-8]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}|3(?:0[0-5]|[689]\d)\d{11}"
    r"|35\d{14}|6(?:011|22\d|4[4-9]\d|5\d\d)\d{12}|62\d{14,17}|6[0379]\d{14}"
)
_MASTERCARD_2 = r"\b2[2-7]\d{2}[- ]?\d{4}[- ]?\d{4}[- ]?\d{4}\b"
_EMAIL = r"(?<![\w.+%-])[\w!#$%&'*+^~-][\w.!#$%&'*+^~-]{0,63}@(?:\w(?:[\w-]{0,61}\w)?\.){1,8}\w(?:[\w-]{0,61}\w)?"
"""Presidio's pattern takes time that grows with the square of a text without spaces, and takes what stands before ``=``
for a part of the address."""
_PRIVATE_SUFFIXES = frozenset({"local", "internal", "lan", "corp", "intranet", "localdomain", "home"})
_VERSION_BEFORE = compiled(
    r"(?i)(?:\bv|(?:version|release|firmware|build|section|chapter|\bsec\.?|oid|§)\w*(?:\s+[a-z]+){0,2})[\s:=]*[\d.]*$"
)
_ADDRESS_OF_A_URL = compiled(r"://[^\s]*$")


class PersonalData:
    """Finds it.

    Args:
        countries: whose numbers to look for, beside what is the same everywhere; from `COUNTRIES`.

    Raises:
        NotInstalled: Presidio is not there.
    """

    def __init__(self, countries: Sequence[str]) -> None:
        kinds = [*GENERIC, *(kind for country in countries for kind in OF_COUNTRY[country])]
        loaded = load([kind.recognizer for kind in kinds])
        self._recognizers = [_Recognizer.of(kind, one) for kind, one in zip(kinds, loaded, strict=True)]
        self._phones = Phones([COUNTRIES[country] for country in countries])
        self._find("first@example.com, +1 415 555 2671", 0, math.inf)  # what is loaded then, no request waits for

    def find(self, text: str, start: int) -> Sequence[Finding]:
        """What is found from a position on."""
        if _SIGNAL.search(text, start) is None:
            return ()
        return self._find(text, start, time.thread_time() + FIND_TIMEOUT_S)

    def open_from(self, text: str, start: int) -> int:
        """Behind the last word of prose."""
        return number_start(text, start, REACH)

    def _find(self, text: str, start: int, give_up_at: float) -> Sequence[Finding]:
        # Han, Thai and the like put no spaces around a number: to the patterns they are signs.
        seen = text if text.isascii() else _CASELESS.sub("。", text)
        found: list[tuple[float, Finding]] = []
        for recognizer in self._recognizers:
            found += recognizer.find(seen, text, start)
            if time.thread_time() > give_up_at:
                raise DetectorFailed("the search took too long")
        for begin, end in self._phones.find(seen, text, start, give_up_at):
            found.append((0.7, Finding(begin, end, "PHONE_NUMBER", "[PHONE_NUMBER]")))
        return settled([one for _, one in sorted(found, key=lambda pair: (-pair[0], pair[1].start - pair[1].end))])


@dataclass(frozen=True, slots=True)
class _Recognizer:
    """One of Presidio's, and what it takes to believe it."""

    name: str
    rules: Any
    patterns: Sequence[tuple[Pattern, float]]
    needs: Needs
    words: Pattern | None

    @classmethod
    def of(cls, kind: PersonalKind, rules: Any) -> "_Recognizer":
        flags = rules.global_regex_flags if hasattr(rules, "global_regex_flags") else _FLAGS
        highest = max(one.score for one in rules.patterns)
        patterns = [
            (Pattern(one.regex, flags), one.score) for one in rules.patterns if one.score > 0.01 or highest < BELIEVED
        ]
        if rules.supported_entities[0] == "CREDIT_CARD":
            patterns.append((Pattern(_MASTERCARD_2), 0.3))
        if rules.supported_entities[0] == "EMAIL_ADDRESS":
            patterns = [(Pattern(_EMAIL), 0.5)]
        words = [*kind.words, *(() if kind.own_words else rules.context or ())]
        return cls(rules.supported_entities[0], rules, patterns, kind.needs, naming(words))

    def find(self, seen: str, text: str, start: int) -> Iterator[tuple[float, Finding]]:
        """What it finds, and how sure it is (0 to 1)."""
        if self.needs is Needs.WORD and (self.words is None or self.words.search(text.casefold()) is None):
            return
        for pattern, score in self.patterns:
            for match in pattern.matches(seen, start):
                for begin, end in _candidates(match, self.name):
                    sure = self._believed(seen, text, begin, end, score)
                    if sure:
                        yield sure, Finding(begin, end, self.name, f"[{self.name}]")
                        break

    def _believed(self, seen: str, text: str, begin: int, end: int, score: float) -> float:
        what = seen[begin:end]
        if not what or not _is_whole(seen, begin, end) or not _EXTRA.get(self.name, _anything)(seen, begin, end):
            return 0.0
        valid = None if self.name == "EMAIL_ADDRESS" else self.rules.validate_result(what)
        if valid is False or self.rules.invalidate_result(what):
            return 0.0
        sure = 1.0 if valid else max(score, 0.1)
        is_grouped = any(not character.isalnum() for character in what)
        is_alone = self.needs is Needs.NOTHING or (self.needs is Needs.WORD_IF_BARE and is_grouped)
        if is_alone and (valid or score >= BELIEVED):
            return sure
        return sure + 0.01 if self.words is not None and is_named(self.words, text, begin) else 0.0


def naming(words: Sequence[str]) -> Pattern | None:
    """Finds a word that names something; None: none does."""
    if not words:
        return None
    return Pattern(r"(?<!\w)(?:" + "|".join(re.escape(word.strip().casefold()) for word in words) + ")")


def is_named(words: Pattern, text: str, begin: int) -> bool:
    """Whether one of the words stands shortly before a place."""
    before = text[max(0, begin - _WORDS_REACH) : begin].casefold()
    near = " ".join(before.replace("_", " ").split()[-WORDS_BEFORE:])
    return words.search(near) is not None


def _candidates(match: Any, name: str) -> list[tuple[int, int]]:
    if name != "IBAN_CODE":
        return [match.span()]
    # A word behind an account looks like its last group: as Presidio does, try it without.
    return [(match.start(), match.end(group)) for group in (3, 2, 1) if match.end(group) > match.start()]


def _is_whole(text: str, begin: int, end: int) -> bool:
    """Not a part of a longer number, identifier or amount."""
    before, after = text[begin - 1 : begin] if begin else "", text[end : end + 1]
    if text[begin].isalnum() and (before.isalnum() or before == "_"):
        return False
    if text[end - 1].isalnum() and (after.isalnum() or after == "_"):
        return False
    if before in (".", ",", "-", "/", "+", "$", "€", "£") and text[begin - 2 : begin - 1].isdigit():
        return False
    return not (after in (".", ",", "-", "/") and text[end + 1 : end + 2].isdigit())


def _is_card(text: str, begin: int, end: int) -> bool:
    digits = re.sub(r"[- ]", "", text[begin:end])
    return _CARD_ISSUERS.fullmatch(digits) is not None and len(set(digits)) > 1 and text[begin - 1 : begin] != "+"


def _is_address(text: str, begin: int, end: int) -> bool:
    """An address of a person: no icon, no repository, no part of a URL."""
    local, _, domain = text[begin:end].rpartition("@")
    if local.lower() in ("git", "hg", "svn") or _ADDRESS_OF_A_URL.search(text, max(0, begin - 128), begin):
        return False
    suffix = domain.rpartition(".")[2].lower()
    return suffix in _PRIVATE_SUFFIXES or bool(_suffixes()(domain).suffix)


def _is_host(text: str, begin: int, end: int) -> bool:
    """An address that somebody in the world has; no version, no network of one's own."""
    try:
        address = ipaddress.ip_interface(text[begin:end])
    except ValueError:
        return False
    if not address.ip.is_global or address.ip.is_multicast:
        return False
    return address.version == 6 or _VERSION_BEFORE.search(text, max(0, begin - 32), begin) is None


def _is_ssn(text: str, begin: int, end: int) -> bool:
    """Areas from 900 on are never given; with points or spaces it could be anything."""
    what = text[begin:end]
    return what[:3] < "900" and "." not in what


def _is_nric(text: str, begin: int, end: int) -> bool:
    """The check letter (Presidio looks at the form alone)."""
    what = text[begin:end].upper()
    total = sum(int(digit) * weight for digit, weight in zip(what[1:8], (2, 7, 6, 5, 4, 3, 2), strict=True))
    match what[0]:
        case "S" | "T":
            letters, offset = "JZIHGFEDCBA", 4 if what[0] == "T" else 0
        case "F" | "G":
            letters, offset = "XWUTRQPNMLK", 4 if what[0] == "G" else 0
        case "M":
            return what[8] == "KLJNPQRTUWX"[10 - (total + 3) % 11]
        case _:
            return False
    return what[8] == letters[(total + offset) % 11]


def _anything(text: str, begin: int, end: int) -> bool:
    return True


_EXTRA = {
    "CREDIT_CARD": _is_card,
    "EMAIL_ADDRESS": _is_address,
    "IP_ADDRESS": _is_host,
    "US_SSN": _is_ssn,
    "SG_NRIC_FIN": _is_nric,
}
"""What Presidio does not look at, and without which too much else is found."""


@cache
def _suffixes() -> Any:
    """The public suffixes that come with Presidio's own dependency; nothing is fetched."""
    import tldextract

    return tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)
