"""Structured output through the official SDK and over gRPC, against a mesh of real processes.

The models asked here say anything at all at these temperatures: what is valid is so because it must be.
"""

import asyncio
import json
import re
from typing import Any, Literal

import grpc
import jsonschema
import openai
import pytest
from harness.asking import TINY, question
from harness.running_mesh import RunningMesh
from harness.wire_errors import error_info
from openai import AsyncOpenAI
from pydantic import BaseModel, Field
from serin.generation.v1 import sampling_pb2
from serin.inference.v1 import inference_pb2, inference_pb2_grpc

NUM_ASKS = 8
MODELS = ("small", TINY)
HOT = 1.6
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "maxLength": 10},
        "kind": {"enum": ["person", "place", "thing"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 99},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 4}, "maxItems": 2},
        "place": {
            "type": "object",
            "properties": {"name": {"type": ["string", "null"], "maxLength": 6}, "open": {"type": "boolean"}},
            "required": ["name", "open"],
            "additionalProperties": False,
        },
    },
    "required": ["title", "kind", "count", "tags", "place"],
    "additionalProperties": False,
}


class Place(BaseModel):
    """Where it is."""

    name: str = Field(max_length=8)
    is_open: bool


class Thing(BaseModel):
    """What is asked for."""

    kind: Literal["person", "place"]
    count: int = Field(ge=1, le=12)
    places: list[Place] = Field(max_length=2)


def schema_format(schema: dict[str, Any], *, strict: bool = True) -> dict[str, Any]:
    """A response_format."""
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": strict}}


def asked(number: int, model: str, **arguments: Any) -> dict[str, Any]:
    """One of many asks."""
    hot = {"temperature": HOT, "seed": number, "max_tokens": 400}
    return question(f"Write JSON: name Ada, age {number}.", model=model, **(hot | arguments))


@pytest.mark.parametrize("model", MODELS)
async def test_every_answer_is_valid(client: AsyncOpenAI, model: str):
    """All of many, two choices each, whatever the seed; members in the order of the schema."""
    asks = [asked(number, model, response_format=schema_format(SCHEMA), n=2) for number in range(NUM_ASKS)]
    answers = await asyncio.gather(*(client.chat.completions.create(**ask) for ask in asks))
    choices = [choice for answer in answers for choice in answer.choices]
    assert len(choices) == 2 * NUM_ASKS
    for choice in choices:
        value = json.loads(choice.message.content or "")
        jsonschema.validate(value, SCHEMA)
        assert list(value) == list(SCHEMA["properties"])
        assert choice.finish_reason == "stop"
    assert len({choice.message.content for choice in choices}) > 1


@pytest.mark.parametrize("model", MODELS)
async def test_a_stream_says_what_the_answer_says(client: AsyncOpenAI, model: str):
    """Piece by piece, valid in the end, and equal to the whole."""
    ask = asked(1, model, response_format=schema_format(SCHEMA))
    whole = await client.chat.completions.create(**ask)
    stream = await client.chat.completions.create(**ask, stream=True)
    chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    jsonschema.validate(json.loads(text), SCHEMA)
    assert text == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["stop"]


@pytest.mark.parametrize("model", MODELS)
async def test_the_sdk_parses_into_a_model(client: AsyncOpenAI, model: str):
    """`parse` with a pydantic class, whole and streamed."""
    for number in range(3):
        ask = asked(number, model)
        answer = await client.chat.completions.parse(**ask, response_format=Thing)
        assert isinstance(answer.choices[0].message.parsed, Thing)
        async with client.chat.completions.stream(**ask, response_format=Thing) as stream:
            final = await stream.get_final_completion()
        assert final.choices[0].message.parsed == answer.choices[0].message.parsed


async def test_a_model_that_knows_the_answer_gives_it(client: AsyncOpenAI):
    """A constraint that the model's own answer follows changes nothing."""
    schema = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}
    ask = question("Write JSON: name Ada, age 36.", model="small", temperature=0)
    free = await client.chat.completions.create(**ask)
    for wanted in (schema_format(schema), schema_format(schema, strict=False), {"type": "json_object"}):
        bound = await client.chat.completions.create(**ask, response_format=wanted)
        assert bound.choices[0].message.content == free.choices[0].message.content
        assert bound.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("given", "pattern"),
    [
        ({"guided_regex": r"[A-F]{3}-\d{2}"}, r"[A-F]{3}-[0-9]{2}"),
        ({"guided_choice": ["yes", "no", "perhaps (é)"]}, r"yes|no|perhaps \(é\)"),
        ({"guided_grammar": 'root ::= "<" word ">"\nword ::= [a-c]+ | [0-9]'}, r"<([a-c]+|\d)>"),
        (
            {"structured_outputs": {"grammar": 'start: NAME ("," NAME)?\nNAME: /[a-z]{1,3}/'}},
            r"[a-z]{1,3}(,[a-z]{1,3})?",
        ),
        ({"structured_outputs": {"json": {"const": {"a": [1, None]}}}}, r'\{\s*"a"\s*:\s*\[\s*1\s*,\s*null\s*\]\s*\}'),
        ({"guided_json": {"enum": [1, "b"]}}, r'1|"b"'),
    ],
    ids=["regex", "choice", "gbnf", "lark", "json", "enum"],
)
async def test_every_language_at_both_endpoints(client: AsyncOpenAI, given: dict[str, Any], pattern: str):
    """The whole answer matches, as chat and as a plain completion."""
    ask = {"model": TINY, "temperature": HOT, "seed": 5, "max_tokens": 200}
    plain = await client.completions.create(**ask, prompt="Say it: ", extra_body=given)
    chat = await client.chat.completions.create(**asked(5, TINY), extra_body=given)
    for text, reason in (
        (plain.choices[0].text, plain.choices[0].finish_reason),
        (chat.choices[0].message.content or "", chat.choices[0].finish_reason),
    ):
        assert re.fullmatch(pattern, text), text
        assert reason == "stop"


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "not enforceable": (
        {"response_format": schema_format({"type": "array", "uniqueItems": True})},
        "response_format",
        "GRAMMAR_INVALID",
    ),
    "remote reference": (
        {"response_format": schema_format({"$ref": "https://example.com/s.json"}, strict=False)},
        "response_format",
        "GRAMMAR_INVALID",
    ),
    "look-ahead": ({"guided_regex": "(?=a)b"}, "guided_regex", "GRAMMAR_INVALID"),
    "90,000 choices": ({"guided_choice": [f"v{n}" for n in range(90_000)]}, "guided_choice", "GRAMMAR_LIMIT"),
    "slow to open": ({"guided_json": {"type": "integer", "multipleOf": 999983}}, "guided_json", "GRAMMAR_LIMIT"),
    "two": ({"guided_regex": "a", "guided_choice": ["a"]}, "guided_choice", "PARAMETER_INVALID"),
}  # fmt: skip


async def test_hostile_constraints_are_refused_beside_answers_that_go_on(client: AsyncOpenAI):
    """Each names the client's parameter and has its reason; an exploding regex is no problem at all."""

    async def refused(name: str) -> None:
        given, param, reason = REFUSED[name]
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(**asked(1, TINY), extra_body=given)
        assert (name, caught.value.param, caught.value.body["reason"]) == (name, param, reason)

    async def answered(number: int) -> None:
        given = {"guided_regex": "(a+)+b{1,3}c"} if number % 2 else {"response_format": schema_format(SCHEMA)}
        answer = await client.chat.completions.create(**asked(number, TINY, max_tokens=1500), extra_body=given)
        assert answer.choices[0].finish_reason == "stop"

    await asyncio.gather(*map(refused, REFUSED), *map(answered, range(4)))


async def test_a_stored_answer_is_found_by_its_constraint(client: AsyncOpenAI):
    """The same question under another constraint is another one."""

    async def ask(choices: list[str]) -> tuple[str | None, int]:
        arguments = question("Which one?", temperature=0, max_tokens=20)
        extra = {"guided_choice": choices, "allow_cached_answer": True}
        answer = await client.chat.completions.create(**arguments, extra_body=extra)
        assert answer.usage is not None
        assert answer.usage.prompt_tokens_details is not None
        return answer.choices[0].message.content, answer.usage.prompt_tokens_details.cached_tokens or 0

    first, _ = await ask(["red"])
    again, num_cached = await ask(["red"])
    other, _ = await ask(["blue"])
    assert (first, again, other) == ("red", "red", "blue")
    assert num_cached > 0


async def test_the_same_over_grpc(mesh: RunningMesh, front_door: grpc.aio.Channel):
    """A schema is followed, and what cannot be is refused with the same reason."""
    stub = inference_pb2_grpc.InferenceServiceStub(front_door)

    async def generate(schema: dict[str, Any], **options: Any) -> str:
        kind = sampling_pb2.GRAMMAR_KIND_JSON_SCHEMA
        request = inference_pb2.GenerateRequest(
            model=TINY,
            prompt="JSON: ",
            sampling=sampling_pb2.SamplingParameters(temperature=HOT, seed=3, max_tokens=400),
            grammar=sampling_pb2.Grammar(kind=kind, text=json.dumps(schema), **options),
        )
        call = stub.Generate(request, timeout=60, metadata=(("authorization", f"Bearer {mesh.key}"),))
        return "".join([event.delta.text async for event in call])

    jsonschema.validate(json.loads(await generate(SCHEMA)), SCHEMA)
    unique = {"type": "array", "items": {"enum": [1, 2]}, "uniqueItems": True, "maxItems": 3}
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await generate(unique)
    assert error_info(caught.value).reason == "GRAMMAR_INVALID"
    assert isinstance(json.loads(await generate(unique, lenient=True)), list)
