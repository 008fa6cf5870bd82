"""What a body may cost before it is refused: one error for a wrong list; bounded parts, turns and members."""

import json
from collections.abc import Iterator

import orjson
import pytest
from pydantic import BaseModel, ValidationError
from serin.generation.v1 import chat_pb2, sampling_pb2
from serin.inference.v1 import inference_pb2
from serin_gateway.conversation import MAX_PIECES, MAX_TURNS
from serin_gateway.rest.api import rest_endpoints
from serin_gateway.rest.body_size import MAX_MEMBERS, MAX_VALUES
from serin_gateway.rest.parameters import parse_object
from serin_gateway.rpc.asks import count_ask, generate_ask
from serin_mesh.errors import MeshError, Reason
from serin_mesh.readiness import Readiness

MANY = 1000
HELLO = {"role": "user", "content": "hi"}


def bodies(kind: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """Every model of the doors: a new one is found here by itself."""
    for model in kind.__subclasses__():
        if model.__module__.startswith("serin_gateway.rest."):
            yield model
        yield from bodies(model)


def num_errors(model: type[BaseModel], body: dict) -> int:
    """How many errors a body costs."""
    try:
        model.model_validate(body)
    except ValidationError as error:
        return error.error_count()
    return 0


def test_a_wrong_list_costs_one_error():
    """A million wrong items must not make a million errors: whatever a list should hold, the first fault ends it."""
    assert rest_endpoints(Readiness()).all
    found = set(bodies(BaseModel))
    assert len(found) > 20
    for model in found:
        for name, field in model.model_fields.items():
            for wrong in (None, {}, [], 1.5, "x", 1, [None]):
                count = num_errors(model, {field.alias or name: [wrong] * MANY})
                assert count < 50, f"{model.__name__}.{name} with {wrong!r}"


@pytest.mark.parametrize(
    "body",
    [
        {"a": [{}] * (MAX_VALUES + 1)},
        {"a": [[]] * (MAX_VALUES + 1)},
        {"a": [""] * (MAX_VALUES + 1)},
        {"a": [{"b": "c"}] * (MAX_VALUES // 3 + 1)},
        {str(at): 1 for at in range(MAX_MEMBERS + 1)},
        {"a": {"b": [{str(at): 1 for at in range(MAX_MEMBERS + 1)}]}},
        {"a": [{str(at): 1 for at in range(MAX_MEMBERS)}] * (MAX_VALUES // MAX_MEMBERS + 1)},
    ],
    ids=lambda body: f"{len(orjson.dumps(body))} bytes",
)
def test_a_body_has_bounded_parts(body):
    """Refused as a whole, with what is accepted."""
    with pytest.raises(MeshError, match=r"at most|more than") as refusal:
        parse_object(orjson.dumps(body))
    assert refusal.value.reason is Reason.MALFORMED_BODY


@pytest.mark.parametrize(
    "body",
    [
        {"a": [{}] * (MAX_VALUES - 2)},
        {"a": list(range(300_000)), "b": [None, True, 1.5] * 50_000},
        {"a": '{"' * 300_000 + ":" * 300_000},
        {str(at): 1 for at in range(MAX_MEMBERS)},
    ],
    ids=["objects", "numbers", "text that looks like many", "members"],
)
def test_a_large_body_is_read(body):
    """Up to the limits; numbers and what is inside strings do not count."""
    assert parse_object(orjson.dumps(body)) == body


async def test_turns_are_bounded_over_rest(front):
    """By the list's name, at both APIs; the most that is accepted is judged by its tokens."""
    for num_turns, words in ((MAX_TURNS + 1, str(MAX_TURNS)), (MAX_TURNS, "tokens")):
        body = {"model": "small", "messages": [HELLO] * num_turns, "max_tokens": 1}
        for path in ("/v1/chat/completions", "/v1/messages", "/v1/messages/count_tokens"):
            response = await front.http.post(path, json=body)
            assert response.status_code == 400
            assert words in response.json()["error"]["message"]


def test_repeated_fields_are_bounded_over_grpc():
    """Two bytes a piece: counted before anything is translated."""
    turn = chat_pb2.ChatMessage(role="user", content=[chat_pb2.ContentPart(text="x")])
    pieces = chat_pb2.ChatMessage(role="user", content=[chat_pb2.ContentPart(text="x")] * (MAX_PIECES + 1))
    calls = chat_pb2.ChatMessage(role="assistant", tool_calls=[chat_pb2.ToolCall()] * (MAX_PIECES + 1))
    wrong = {
        "messages": [
            inference_pb2.Chat(messages=[turn] * (MAX_TURNS + 1)),
            inference_pb2.Chat(messages=[pieces]),
            inference_pb2.Chat(messages=[calls]),
        ],
        "tools": [inference_pb2.Chat(messages=[turn], tools=[chat_pb2.ToolDefinition()] * 129)],
    }
    for parameter, chats in wrong.items():
        for chat in chats:
            for ask, request in (
                (generate_ask, inference_pb2.GenerateRequest(model="small", chat=chat)),
                (count_ask, inference_pb2.CountTokensRequest(model="small", chat=chat)),
            ):
                with pytest.raises(MeshError, match="at most") as refusal:
                    ask(request)
                assert refusal.value.metadata["parameter"] == parameter


def test_entries_are_counted_before_they_are_looked_at():
    """A million stop strings are refused for their number, not for what is wrong with the last of them."""
    stops = inference_pb2.GenerateRequest(model="small", prompt="x", stop_strings=[*["a"] * 100_000, ""])
    biases = sampling_pb2.SamplingParameters(logit_bias=dict.fromkeys(range(100000), 500))
    for request, words in (
        (stops, "at most 4"),
        (inference_pb2.GenerateRequest(model="small", prompt="x", sampling=biases), "at most 1024"),
    ):
        with pytest.raises(MeshError, match=words):
            generate_ask(request)


async def test_a_deep_string_is_refused_where_it_stands(front):
    """JSON inside a string is JSON too."""
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "[" * 100_000}}
    response = await front.chat(messages=[{"role": "assistant", "tool_calls": [call]}])
    assert (response.status_code, json.loads(response.text)["error"]["param"]) == (
        400,
        "messages[0].tool_calls[0].function.arguments",
    )
