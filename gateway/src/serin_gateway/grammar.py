"""A constraint on answers as a client gave it. Knows nothing about how it is checked or followed."""

import enum
from dataclasses import dataclass

MAX_GRAMMAR_BYTES = 256 << 10


class GrammarKind(enum.Enum):
    """The language of a grammar."""

    JSON_SCHEMA = "json_schema"
    REGEX = "regex"
    EBNF = "ebnf"
    CHOICE = "choice"


@dataclass(frozen=True, slots=True)
class Grammar:
    """What each answer must be.

    Attributes:
        kind: the language of ``text``; choices are a JSON list of strings.
        text: the grammar.
        lenient: leave out of a JSON schema what cannot be enforced, instead of refusing it.
        parameter: where the client wrote it, for errors.
    """

    kind: GrammarKind
    text: str
    lenient: bool = False
    parameter: str = "grammar"
