"""A list of words and phrases that somebody does not want to see.

A term is found as whole words, whatever their case and the white space between them. Time grows with the text, not
with the list.
"""

from collections.abc import Sequence

import regex

from serin_gateway.guards.detector import Finding, settled
from serin_gateway.guards.patterns import compiled

MAX_TERMS = 1000
MAX_TERM_CHARACTERS = 128
REACH = 1024
"""A phrase that takes more characters than this in a text is not waited for."""
KIND = "BLOCKED"
_TOKEN = compiled(r"[\p{Lo}--[\p{Arabic}\p{Hebrew}]]\p{M}*|[\p{L}\p{M}\p{N}_]+|[^\s\w]", regex.V1)
"""A word, a sign, or a character of a script that puts no spaces between words."""


class BlockList:
    """Finds terms.

    Args:
        terms: what to find; 1 to 1000 of them, of 1 to 128 characters.
    """

    def __init__(self, terms: Sequence[str]) -> None:
        self._terms = {tokens for term in terms if (tokens := _words(term))}
        self._begun = {tokens[:n] for tokens in self._terms for n in range(1, len(tokens))}
        self._first_words = {tokens[0] for tokens in self._terms}
        self._longest = max(map(len, self._terms), default=0)

    def find(self, text: str, start: int) -> Sequence[Finding]:
        """What is found from a position on; of terms that begin at the same place the longest."""
        places = [match.span() for match in _TOKEN.finditer(text, start)]
        words = [text[begin:end].casefold() for begin, end in places]
        found = []
        for at, word in enumerate(words):
            if word in self._first_words and (length := self._length(words, at)):
                found.append(Finding(places[at][0], places[at + length - 1][1], KIND, f"[{KIND}]"))
        return settled(found)

    def open_from(self, text: str, start: int) -> int:
        """Where the last words begin that may become a term; the last word may itself become another one."""
        start = max(start, len(text) - REACH)
        tail: list[tuple[int, str]] = [(match.start(), match[0].casefold()) for match in _TOKEN.finditer(text, start)][
            -self._longest - 1 :
        ]
        if not tail:
            return len(text)
        words = tuple(word for _, word in tail)
        ends_inside = not text[-1:].isspace()
        for at in range(len(words)):
            rest = words[at:]
            whole = rest[:-1] if ends_inside else rest
            if rest in self._begun or whole in self._begun or (ends_inside and not whole):
                return tail[at][0]
            if ends_inside and rest in self._terms:
                return tail[at][0]
        return len(text)

    def _length(self, words: Sequence[str], at: int) -> int:
        longest = 0
        for n in range(1, min(self._longest, len(words) - at) + 1):
            part = tuple(words[at : at + n])
            if part in self._terms:
                longest = n
            if part not in self._begun:
                break
        return longest


def _words(text: str) -> tuple[str, ...]:
    return tuple(match[0].casefold() for match in _TOKEN.finditer(text))
