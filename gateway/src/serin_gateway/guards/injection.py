"""Phrases that try to make a model forget whose instructions it follows.

Heuristics, each a phrase that is an attempt by itself: what it takes to be ignored, unlocked, made to speak its own
instructions or somebody else's, or to send them away. They find attempts that are written as attempts usually are, in a
few languages; whoever knows them writes another way. Knows nothing about models.
"""

import re
from collections.abc import Sequence
from importlib import resources

import regex

from serin_gateway.guards.detector import Finding, settled
from serin_gateway.guards.patterns import Pattern

REACH = 240
"""Longest phrase, which a stream waits for."""
STEP = 64
"""So many more characters a stream waits for, so that it is not all looked at for each of them."""
KIND = "INJECTION"

_FLAGS = regex.IGNORECASE | regex.VERSION0
_HINTS = (
    r"(?i)ignor|disregard|forget|overl|overrid|bypass|discard|void|cancel|obey|follow|attention|restrict|filter|censor",
    r"jailbr|DAN\b|mode|pretend|ethic|moral|safety|content|prompt|instruct|directiv|repeat|print|above|you\s+are|<\|",
    r"inst\]|sys>|turn>|system|admin|developer|task|goal|role|from\s+(?:now|this)|comply|user|reader|human|assist|\bai\b",
    r"llm|send|forward|post|upload|exfil|mail|leak|transmit|append|submit|\]\(|vergiss|vergesst|missachte|überschreib",
    r"oubli|neglig|néglig|contourn|olvid|omit|descart|desobed|diment|trascur|esque|descons|desprez|[忽无無忘不示令]",
    r"지시|명령|프롬프트|규칙|지침|игнор|забуд|отброс|обращай",
)
"""Every phrase has one of these: most texts have none, and are done with."""
_DEFINITION = re.compile(r"([A-Z]+) = (.*)")


class Injection:
    """Finds them."""

    def __init__(self) -> None:
        self._hint = Pattern("|".join(_HINTS))
        self._patterns = tuple(Pattern(phrase, _FLAGS) for phrase in _phrases())

    def find(self, text: str, start: int) -> Sequence[Finding]:
        """What is found from a position on."""
        if self._hint.search(text, start) is None:
            return ()
        found = [
            Finding(match.start(), match.end(), KIND, f"[{KIND}]")
            for pattern in self._patterns
            for match in pattern.matches(text, start)
            if match.end() > match.start()
        ]
        return settled(sorted(found, key=lambda one: (one.start, -one.end)))

    def open_from(self, text: str, start: int) -> int:
        """A phrase may begin anywhere in the last characters; they are looked at some at a time."""
        opened = len(text) - REACH
        return opened if opened - start >= STEP else start


def _phrases() -> list[str]:
    """The phrases as they are written, with what stands for something else filled in."""
    written = (resources.files(__package__) / "injection_phrases.txt").read_text(encoding="utf-8")
    names: dict[str, str] = {}
    phrases: list[str] = []
    for line in written.splitlines():
        if not line or line.startswith("#"):
            continue
        for name, stands_for in names.items():
            line = line.replace(f"%{name}%", stands_for)
        definition = _DEFINITION.fullmatch(line)
        if definition is not None:
            names[definition[1]] = definition[2]
        else:
            phrases.append(line)
    return phrases
