"""Callers' grammars in the worker's language: Lark as llguidance has it.

Runs in a process that may be killed (``grammar_child.py``). Knows nothing about vocabularies or limits.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from llguidance import regex_to_lark
from llguidance.gbnf_to_lark import GbnfToLarkError, any_to_lark

from serin_tokenizer_svc.errors import GrammarError, GrammarLimit, GrammarRejected
from serin_tokenizer_svc.grammar import GrammarSource
from serin_tokenizer_svc.schemas.enforceable import Enforced, enforceable

WHITESPACE = r"( |\n[ \t]{0,32})"
"""Between the parts of a JSON text: nothing, a space, or a line's end and an indentation.

Any number of spaces would let a model that is unsure write nothing else until its tokens are used up."""


FREE_SPELLING = '\n%llguidance {"no_forcing": true}\n'
"""Text that a grammar forces is spelled by the model with any tokens, not with those of one tokenization."""


@dataclass(frozen=True, slots=True)
class SchemaGrammar:
    """A JSON schema inside of a grammar.

    Attributes:
        parameter: where its caller wrote it; empty: it is all that was asked for.
        schema: what is enforced of it.
        lenient: what cannot be enforced is left out.
    """

    parameter: str
    schema: Enforced
    lenient: bool

    @property
    def lark(self) -> str:
        """A grammar of its own."""
        return f"start: {_json_rule(self.schema.schema, lenient=self.lenient)}{FREE_SPELLING}"

    def parts(self) -> Iterator[tuple[str, str]]:
        """Where each part stands, and a grammar of it alone; inner ones first."""
        for place, part in self.schema.parts:
            yield place, f"start: {_json_rule(part, lenient=self.lenient)}{FREE_SPELLING}"


@dataclass(frozen=True, slots=True)
class Translation:
    """A grammar in the worker's language.

    Attributes:
        lark: the grammar.
        schemas: the JSON schemas in it.
    """

    lark: str
    schemas: tuple[SchemaGrammar, ...] = ()


def translate(source: GrammarSource) -> Translation:
    """The grammar in the worker's language; whether it can be followed is not known yet.

    Raises:
        GrammarRejected: it is not what its kind says, or asks for what cannot be enforced.
        GrammarLimit: it is nested too deep.
    """
    match source.kind:
        case "json_schema":
            return _from_schema(source.text, lenient=source.lenient)
        case "calls":
            return _from_calls(source.text)
        case "regex":
            lark = _from_regex(source.text)
        case "choice":
            lark = _from_choice(source.text)
        case "ebnf":
            lark = _from_ebnf(source.text)
    return Translation(lark + FREE_SPELLING)


def _from_schema(text: str, *, lenient: bool) -> Translation:
    schema = _parse(text, "the JSON schema")
    if schema is True:
        schema = {}
    elif not isinstance(schema, dict):
        raise GrammarRejected("the JSON schema must be an object")
    grammar = _schema_grammar(schema, "", lenient=lenient)
    return Translation(grammar.lark, (grammar,))


def _schema_grammar(schema: dict[str, Any], parameter: str, *, lenient: bool) -> SchemaGrammar:
    if "x-guidance" in schema:
        raise GrammarRejected("the JSON schema has a member 'x-guidance', which is reserved")
    return SchemaGrammar(parameter, enforceable(schema, lenient=lenient), lenient)


def _json_rule(schema: dict[str, Any], *, lenient: bool) -> str:
    options = {"whitespace_pattern": WHITESPACE, "lenient": lenient, "coerce_one_of": lenient}
    try:
        text = json.dumps({**schema, "x-guidance": options}, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError as error:
        raise GrammarRejected("the JSON schema has a number that is too large for any reader") from error
    return f"%json {text}"


def _from_calls(text: str) -> Translation:
    """Rules of a family's calls, which name the arguments of each tool; behind them what these must be."""
    calls = json.loads(text)
    grammars = tuple(_arguments(one) for one in calls["arguments"])
    rules = [f"arguments_{at}: {_json_rule(one.schema.schema, lenient=one.lenient)}" for at, one in enumerate(grammars)]
    return Translation("\n".join((calls["rules"], f"ws: /{WHITESPACE}?/", *rules)) + FREE_SPELLING, grammars)


def _arguments(given: dict[str, Any]) -> SchemaGrammar:
    """Arguments are an object, whether or not their schema says so."""
    schema, parameter = given["schema"], given["parameter"]
    kind = schema.get("type", "object")
    if kind != "object" and not (isinstance(kind, list) and "object" in kind):
        raise GrammarRejected("a call's arguments are an object; the JSON schema allows none", parameter)
    try:
        return _schema_grammar({**schema, "type": "object"}, parameter, lenient=given["lenient"])
    except GrammarError as error:
        error.parameter = parameter
        raise


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
        return json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
    except RecursionError as error:
        raise GrammarLimit(f"{what}: nested too deep") from error
    except ValueError as error:
        raise GrammarRejected(f"{what}: not JSON: {error}") from error


def _once(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, of whose members no two have one name: which of them counts would be a matter of the reader."""
    found = dict(members)
    if len(found) < len(members):
        twice = next(name for at, (name, _) in enumerate(members) if name in dict(members[:at]))
        raise ValueError(f"an object has {twice!r:.100} twice")
    return found


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")
