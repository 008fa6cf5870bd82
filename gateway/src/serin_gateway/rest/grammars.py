"""The constraint on answers in an OpenAI body: `response_format`, and the names that vLLM's clients use.

Knows nothing about how a grammar is checked or followed.
"""

from collections.abc import Iterator
from typing import Any

import orjson

from serin_gateway.ask import refuse
from serin_gateway.grammar import Grammar, GrammarKind
from serin_gateway.rest.schemas import ResponseFormat, SamplingBody, StructuredOutputs

ANY_OBJECT: dict[str, Any] = {"type": "object"}


def read_grammar(body: SamplingBody) -> Grammar | None:
    """What each answer must be; None: anything.

    Raises:
        MeshError: PARAMETER_INVALID; more than one is given, or one is incomplete.
    """
    given = list(_given(body))
    if len(given) > 1:
        names = " and ".join(grammar.parameter for grammar in given)
        raise refuse(given[1].parameter, f"a request takes one constraint on its answers; {names} are given")
    return given[0] if given else None


def schema_grammar(schema: dict[str, Any], *, strict: bool, parameter: str) -> Grammar:
    """A JSON schema as a grammar; one that is not strict leaves out what cannot be enforced."""
    return Grammar(GrammarKind.JSON_SCHEMA, _text(schema), not strict, parameter)


def _given(body: SamplingBody) -> Iterator[Grammar]:
    if body.response_format is not None:
        yield from _from_format(body.response_format)
    if body.structured_outputs is not None:
        yield from _from_structured(body.structured_outputs)
    yield from _from_members(
        ("guided_json", body.guided_json),
        ("guided_regex", body.guided_regex),
        ("guided_choice", body.guided_choice),
        ("guided_grammar", body.guided_grammar),
    )


def _from_format(wanted: ResponseFormat) -> Iterator[Grammar]:
    if wanted.json_schema is not None and wanted.type != "json_schema":
        raise refuse("response_format.json_schema", f"only for the type 'json_schema', not {wanted.type!r}")
    if wanted.type == "json_object":
        yield schema_grammar(ANY_OBJECT, strict=True, parameter="response_format")
    elif wanted.type == "json_schema":
        if wanted.json_schema is None:
            raise refuse("response_format.json_schema", "is missing")
        schema = ANY_OBJECT if wanted.json_schema.json_schema is None else wanted.json_schema.json_schema
        yield schema_grammar(schema, strict=bool(wanted.json_schema.strict), parameter="response_format")


def _from_structured(wanted: StructuredOutputs) -> Iterator[Grammar]:
    name = "structured_outputs"
    if wanted.json_object:
        yield Grammar(GrammarKind.JSON_SCHEMA, _text(ANY_OBJECT), parameter=f"{name}.json_object")
    yield from _from_members(
        (f"{name}.json", wanted.json_value),
        (f"{name}.regex", wanted.regex),
        (f"{name}.choice", wanted.choice),
        (f"{name}.grammar", wanted.grammar),
    )


def _from_members(
    schema: tuple[str, dict[str, Any] | str | None],
    regex: tuple[str, str | None],
    choice: tuple[str, list[str] | None],
    grammar: tuple[str, str | None],
) -> Iterator[Grammar]:
    if schema[1] is not None:
        text = schema[1] if isinstance(schema[1], str) else _text(schema[1])
        yield Grammar(GrammarKind.JSON_SCHEMA, text, parameter=schema[0])
    if regex[1] is not None:
        yield Grammar(GrammarKind.REGEX, regex[1], parameter=regex[0])
    if choice[1] is not None:
        yield Grammar(GrammarKind.CHOICE, _text(choice[1]), parameter=choice[0])
    if grammar[1] is not None:
        yield Grammar(GrammarKind.EBNF, grammar[1], parameter=grammar[0])


def _text(value: object) -> str:
    return orjson.dumps(value).decode()
