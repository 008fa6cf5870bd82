"""JSON under guards: what is masked inside of it leaves it JSON, written as it was written.

Strings are looked at as what they say, not as how they are escaped. Knows nothing about what the JSON means.
"""

import json
import re
from dataclasses import dataclass

from serin_gateway.guards.screen import Replacement, Screen, screened

_LEXEME = re.compile(r'"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*', re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Lexeme:
    """A string or a number: where it is in the text, and where what it says is in the text that is looked at."""

    begin: int
    end: int
    seen_begin: int
    seen: str
    is_string: bool


def screened_json(screen: Screen, text: str, *, numbers: bool = True) -> str:
    """JSON with what is found in its strings, and in its numbers if they may become strings, replaced.

    Raises:
        GuardFailed: it may not go on.
    """
    seen, lexemes = _view(text)
    screened(screen, seen)
    if not screen.replacements or screen.refusal is not None:
        return text
    written: list[str] = []
    at = 0
    for lexeme in lexemes:
        touched = [one for one in screen.replacements if _touches(one, lexeme)]
        if not touched or not (numbers or lexeme.is_string):
            continue
        written += text[at : lexeme.begin], json.dumps(_replaced(lexeme, touched), ensure_ascii=False)
        at = lexeme.end
    return "".join([*written, text[at:]])


def _view(text: str) -> tuple[str, list[_Lexeme]]:
    """What the JSON says, and where each of its strings and numbers stands in that."""
    parts: list[str] = []
    lexemes: list[_Lexeme] = []
    at = length = 0
    for match in _LEXEME.finditer(text):
        is_string = match[0].startswith('"')
        begin, end = match.span()
        inner = (begin + 1, end - 1) if is_string else (begin, end)
        says = text[inner[0] : inner[1]]
        if "\\" in says:
            says = _unescaped(match[0], says)
        before = text[at : inner[0]]
        parts += before, says
        lexemes.append(_Lexeme(begin, end, length + len(before), says, is_string))
        length += len(before) + len(says)
        at = inner[1]
    parts.append(text[at:])
    return "".join(parts), lexemes


def _unescaped(lexeme: str, otherwise: str) -> str:
    try:
        return str(json.loads(lexeme, strict=False))
    except ValueError:
        return otherwise


def _touches(one: Replacement, lexeme: _Lexeme) -> bool:
    return one.start < lexeme.seen_begin + len(lexeme.seen) and lexeme.seen_begin < one.end


def _replaced(lexeme: _Lexeme, touched: list[Replacement]) -> str:
    """What a lexeme says, with the replacements; a number that is touched is all mask."""
    if not lexeme.is_string:
        return touched[0].mask
    said: list[str] = []
    at = 0
    for one in touched:
        begin = max(0, one.start - lexeme.seen_begin)
        said += lexeme.seen[at:begin], one.mask
        at = min(len(lexeme.seen), one.end - lexeme.seen_begin)
    return "".join([*said, lexeme.seen[at:]])
