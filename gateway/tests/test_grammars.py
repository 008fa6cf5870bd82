"""Structured output through both doors: which grammar is asked for, where it goes, and what refuses it is called."""

import pytest
from serin_gateway.worker import WorkStarted
from serin_mesh.errors import MeshError, Reason

SCHEMA = {"type": "object", "properties": {"b": {}, "a": {}}}
TEXT = '{"type":"object","properties":{"b":{},"a":{}}}'


def named(**fields):
    """A response_format of a schema."""
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "it", **fields}}}


GIVEN = {
    "none": ({}, ""),
    "text": ({"response_format": {"type": "text"}}, ""),
    "any object": ({"response_format": {"type": "json_object"}}, 'json_schema: {"type":"object"}'),
    "strict": (named(schema=SCHEMA, strict=True), f"json_schema: {TEXT}"),
    "not strict": (named(schema=SCHEMA, strict=False), f"json_schema?: {TEXT}"),
    "not said": (named(schema=SCHEMA), f"json_schema?: {TEXT}"),
    "no schema": (named(description="anything", strict=True), 'json_schema: {"type":"object"}'),
    "guided_json": ({"guided_json": SCHEMA}, f"json_schema: {TEXT}"),
    "guided_json as text": ({"guided_json": "[]"}, "json_schema: []"),
    "guided_regex": ({"guided_regex": "a+"}, "regex: a+"),
    "guided_choice": ({"guided_choice": ["é", "b"]}, 'choice: ["é","b"]'),
    "guided_grammar": ({"guided_grammar": "start: /a/"}, "ebnf: start: /a/"),
    "structured json": ({"structured_outputs": {"json": SCHEMA}}, f"json_schema: {TEXT}"),
    "structured object": ({"structured_outputs": {"json_object": True}}, 'json_schema: {"type":"object"}'),
    "structured regex": ({"structured_outputs": {"regex": "a+"}}, "regex: a+"),
    "structured choice": ({"structured_outputs": {"choice": ["a"]}}, 'choice: ["a"]'),
    "structured grammar": ({"structured_outputs": {"grammar": "start: /a/"}}, "ebnf: start: /a/"),
}


@pytest.mark.parametrize("name", GIVEN)
@pytest.mark.parametrize("endpoint", ["chat", "completions"])
async def test_what_is_given_reaches_the_worker_prepared(front, name, endpoint):
    """Members of a schema stay in order; strict is what makes a schema not lenient."""
    given, prepared = GIVEN[name]
    if endpoint == "chat":
        response = await front.chat(**given)
    else:
        response = await front.http.post("/v1/completions", json={"model": "small", "prompt": "a", **given})
    assert response.status_code == 200, response.text
    assert front.house.workers.orders[-1][1].grammar == prepared


@pytest.mark.parametrize(
    ("given", "param", "words"),
    [
        ({"guided_regex": "a", "guided_json": {}}, "guided_regex", "guided_json and guided_regex"),
        ({"guided_regex": "a", "response_format": {"type": "json_object"}}, "guided_regex", "response_format"),
        ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, "structured_outputs.choice", "one constraint"),
        ({"response_format": {"type": "text", "json_schema": {"name": "x"}}}, "response_format.json_schema", "only"),
        (named(strict=True) | {"guided_choice": ["a"]}, "guided_choice", "response_format"),
        (named(schema=[]), "response_format.json_schema.schema", "dictionary"),
        (
            {
                "guided_regex": "a",
                "tools": [{"type": "function", "function": {"name": "f"}}],
                "tool_choice": "required",
            },
            "guided_regex",
            "required call",
        ),
    ],
)
async def test_one_grammar_a_request(front, given, param, words):
    """Two of them are refused by name, as is half a one."""
    response = await front.chat(**given)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, param)
    assert words in error["message"]
    assert not front.house.workers.orders


async def test_what_refuses_a_grammar_names_the_clients_parameter(front):
    """Whoever refuses it; nothing is generated."""
    for given, param, reason in (
        ({"guided_regex": "bad"}, "guided_regex", "GRAMMAR_INVALID"),
        ({"structured_outputs": {"grammar": "bad"}}, "structured_outputs.grammar", "GRAMMAR_INVALID"),
        ({"guided_regex": "a" * 300_000}, "guided_regex", "GRAMMAR_LIMIT"),
    ):
        response = await front.chat(**given)
        error = response.json()["error"]
        assert (response.status_code, error["param"], error["reason"]) == (400, param, reason)
        assert error["message"].startswith(f"{param}: ")
    assert not front.house.workers.orders


async def test_a_grammar_that_overruns_at_the_worker_is_the_requests_own_fault(fronts):
    """No other worker is tried, and the client's parameter is named."""
    limit = MeshError(Reason.GRAMMAR_LIMIT, "too much", parameter="grammar")
    async with fronts(lambda worker, order: [WorkStarted(worker.instance, 0, 1), limit]) as front:
        response = await front.chat(response_format={"type": "json_object"})
        error = response.json()["error"]
        assert (response.status_code, error["param"], error["reason"]) == (400, "response_format", "GRAMMAR_LIMIT")
        assert len(front.house.workers.orders) == 1
