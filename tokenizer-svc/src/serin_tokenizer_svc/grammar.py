"""A constraint on answers as its caller wrote it. Knows nothing about how it is checked or followed."""

from dataclasses import dataclass
from typing import Literal

MAX_GRAMMAR_BYTES = 256 << 10
"""A schema or grammar of more bytes is refused unread."""

GrammarKind = Literal["json_schema", "regex", "ebnf", "choice", "calls"]
"""Languages that callers may use, and that of answers that call tools (``call_grammar.py``)."""


@dataclass(frozen=True, slots=True)
class GrammarSource:
    """A grammar in one of the languages that callers may use.

    Attributes:
        kind: the language.
        text: the grammar.
        lenient: leave out of a JSON schema what cannot be enforced, instead of refusing it.
    """

    kind: GrammarKind
    text: str
    lenient: bool = False
