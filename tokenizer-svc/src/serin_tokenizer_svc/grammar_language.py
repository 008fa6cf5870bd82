"""Callers' grammars in the worker's language: Lark as llguidance has it.

Runs in a process that may be killed (``grammar_child.py``). Knows nothing about vocabularies or limits.
"""

import json
from typing import Any

from llguidance import regex_to_lark
from llguidance.gbnf_to_lark import GbnfToLarkError, any_to_lark

from serin_tokenizer_svc.errors import GrammarLimit, GrammarRejected
from serin_tokenizer_svc.grammar import GrammarSource

WHITESPACE = r"( |\n[ \t]{0,32})"
"""Between the parts of a JSON text: nothing, a space, or a line's end and an indentation.

Any number of spaces would let a model that is unsure write nothing else until its tokens are used up."""


FREE_SPELLING = '\n%llguidance {"no_forcing": true}\n'
"""Text that a grammar forces is spelled by the model with any tokens, not with those of one tokenization."""


def translate(source: GrammarSource) -> str:
    """The grammar in the worker's language; whether it can be followed is not known yet.

    Raises:
        GrammarRejected: it is not what its kind says.
        GrammarLimit: it is nested too deep.
    """
    match source.kind:
        case "json_schema":
            lark = _from_schema(source.text, lenient=source.lenient)
        case "regex":
            lark = _from_regex(source.text)
        case "choice":
            lark = _from_choice(source.text)
        case "ebnf":
            lark = _from_ebnf(source.text)
    return lark + FREE_SPELLING


def _from_schema(text: str, *, lenient: bool) -> str:
    schema = _parse(text, "the JSON schema")
    if schema is True:
        schema = {}
    elif not isinstance(schema, dict):
        raise GrammarRejected("the JSON schema must be an object")
    elif "x-guidance" in schema:
        raise GrammarRejected("the JSON schema has a member 'x-guidance', which is reserved")
    options = {"whitespace_pattern": WHITESPACE, "lenient": lenient, "coerce_one_of": lenient}
    schema = json.dumps({**schema, "x-guidance": options}, ensure_ascii=False, separators=(",", ":"))
    return f"start: %json {schema}"


def _from_regex(text: str) -> str:
    r"""Digits (``\d``) are ASCII's, as JSON and most callers mean them."""
    return f"start: /{regex_to_lark(text, use_ascii='d')}/"


def _from_choice(text: str) -> str:
    choices = _parse(text, "the choices")
    if not isinstance(choices, list) or not choices or not all(isinstance(one, str) for one in choices):
        raise GrammarRejected("the choices must be a list of strings, at least one")
    return _from_regex("|".join(_literal(one) for one in dict.fromkeys(choices)))


def _literal(text: str) -> str:
    """A regular expression for exactly this text."""
    return "".join(char if char.isalnum() else f"\\x{{{ord(char):x}}}" for char in text) or "()"


def _from_ebnf(text: str) -> str:
    try:
        return str(any_to_lark(text))
    except GbnfToLarkError as error:
        raise GrammarRejected(f"the GBNF grammar: {error}") from error


def _parse(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError as error:
        raise GrammarLimit(f"{what}: nested too deep") from error
    except ValueError as error:
        raise GrammarRejected(f"{what}: not JSON: {error}") from error
