"""Callers' grammars in the worker's language: Lark as llguidance has it.

Runs in a process that may be killed (``grammar_child.py``). Knows nothing about vocabularies or limits.
"""

import json
from collections.abc import Iterator
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
        case "calls":
            lark = _from_calls(source.text)
    return lark + FREE_SPELLING


def _from_schema(text: str, *, lenient: bool) -> str:
    schema = _parse(text, "the JSON schema")
    if schema is True:
        schema = {}
    elif not isinstance(schema, dict):
        raise GrammarRejected("the JSON schema must be an object")
    return f"start: {_json_rule(schema, lenient=lenient)}"


def _json_rule(schema: dict[str, Any], *, lenient: bool) -> str:
    if "x-guidance" in schema:
        raise GrammarRejected("the JSON schema has a member 'x-guidance', which is reserved")
    options = {"whitespace_pattern": WHITESPACE, "lenient": lenient, "coerce_one_of": lenient}
    text = json.dumps({**schema, "x-guidance": options}, ensure_ascii=False, separators=(",", ":"))
    return f"%json {text}"


def _from_calls(text: str) -> str:
    """Rules of a family's calls, which name the arguments of each tool; behind them what these must be."""
    calls = json.loads(text)
    rules = [f"arguments_{at}: {_arguments_rule(one)}" for at, one in enumerate(calls["arguments"])]
    return "\n".join((calls["rules"], f"ws: /{WHITESPACE}?/", *rules))


def each_argument(source: GrammarSource) -> Iterator[tuple[str, str]]:
    """Of calls: where each tool's schema was written, and a grammar of its arguments alone, to find one to blame."""
    for one in json.loads(source.text)["arguments"] if source.kind == "calls" else ():
        yield one["parameter"], f"start: {_arguments_rule(one)}{FREE_SPELLING}"


def _arguments_rule(given: dict[str, Any]) -> str:
    """Arguments are an object, whether or not their schema says so."""
    schema = given["schema"]
    kind = schema.get("type", "object")
    if kind != "object" and not (isinstance(kind, list) and "object" in kind):
        raise GrammarRejected("a call's arguments are an object; the JSON schema allows none", given["parameter"])
    try:
        return _json_rule({**schema, "type": "object"}, lenient=given["lenient"])
    except GrammarRejected as error:
        raise GrammarRejected(str(error), given["parameter"]) from error


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
