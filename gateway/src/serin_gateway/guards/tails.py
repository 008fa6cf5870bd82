"""Where something may begin at the end of a text that grows: what a stream must hold back, and no more.

Conservative: what is found here may turn out to be nothing, but nothing of the said kind begins before.
"""

from serin_gateway.guards.patterns import Pattern

_SPACE = Pattern(r"(?r)\s")
_PLAIN = Pattern(r"(?r)(?:(?<![\w@.+'&/\\=-])(?=\p{L}*\p{Ll})\p{L}{4,}[,;:!?.)\"']{0,2}(?=\s)|\p{Lo}|\n\s*\n)")
"""A word of prose and what ends it, a character of a script without case (Han, Thai, …), or an empty line. No number,
address or name of an account has one inside."""


def word_start(text: str, start: int, reach: int) -> int:
    """Where the last run without white space begins, at most ``reach`` characters back."""
    found = _SPACE.search(text, start)
    return max(start, len(text) - reach, found.end() if found is not None else start)


def number_start(text: str, start: int, reach: int) -> int:
    """Where the last run without a word of prose begins, at most ``reach`` characters back."""
    found = _PLAIN.search(text, start)
    return max(start, len(text) - reach, found.end() if found is not None else start)
