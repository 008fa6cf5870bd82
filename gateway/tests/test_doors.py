"""Two doors, one house: what one refuses the other refuses too, for the same reason and under the same name."""

import dataclasses
from contextlib import asynccontextmanager

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from serin.generation.v1 import chat_pb2, sampling_pb2
from serin.inference.v1 import inference_pb2, inference_pb2_grpc
from serin_gateway.catalog import Policy
from serin_gateway.rpc.service import InferenceService
from serin_gateway.testing import MemoryHouse
from serin_mesh.testing import running


class BothDoors:
    """A question asked over REST and over gRPC; each answers None, or reason, parameter and sentence."""

    def __init__(self, front, stub):
        self.house = front.house
        self.key = front.key
        self._front = front
        self.http = front.http
        self.stub = stub

    async def rest(self, messages, **body):
        """Over REST."""
        response = await self._front.chat(messages=messages, **body)
        if response.status_code == 200:
            return None
        error = response.json()["error"]
        return error["reason"], error["param"], error["message"]

    async def rpc(self, messages, model="small", metadata=(), **fields):
        """Over gRPC: the same turns as protobuf, or ready ones."""
        turns = [turn if isinstance(turn, chat_pb2.ChatMessage) else as_message(turn) for turn in messages]
        asked = inference_pb2.GenerateRequest(model=model, chat=inference_pb2.Chat(messages=turns), **fields)
        call = self.stub.Generate(asked, timeout=20, metadata=(("authorization", f"Bearer {self.key}"), *metadata))
        try:
            _ = [event async for event in call]
        except grpc.aio.AioRpcError as failed:
            info = info_of(failed)
            return info.reason, info.metadata.get("parameter"), failed.details()
        return None


def info_of(failed: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo:
    """What a call failed with, for programs."""
    rich = status_pb2.Status.FromString(dict(failed.trailing_metadata())["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert rich.details[0].Unpack(info)
    return info


def as_message(turn: dict) -> chat_pb2.ChatMessage:
    """A turn of a REST body as protobuf."""
    content, calls = turn.get("content"), turn.get("tool_calls", ())
    texts = [content] if isinstance(content, str) else [part["text"] for part in content or ()]
    return chat_pb2.ChatMessage(
        role=turn["role"],
        content=[chat_pb2.ContentPart(text=text) for text in texts],
        tool_calls=[
            chat_pb2.ToolCall(id=c["id"], name=c["function"]["name"], arguments_json=c["function"]["arguments"])
            for c in calls
        ],
        tool_call_id=turn.get("tool_call_id"),
    )


def calling(arguments: str) -> list[dict]:
    """A tool call with these arguments."""
    return [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": arguments}}]


@asynccontextmanager
async def opened(fronts_on, house: MemoryHouse):
    """Both doors on a house."""
    service = InferenceService(house.collaborators)

    def add(server):
        inference_pb2_grpc.add_InferenceServiceServicer_to_server(service, server)

    async with (
        fronts_on(house) as front,
        running(add, "gateway", default_deadline_s=30.0) as host,
        grpc.aio.insecure_channel(host.address) as channel,
    ):
        yield BothDoors(front, inference_pb2_grpc.InferenceServiceStub(channel))


@pytest.fixture
async def doors(fronts_on):
    """Both doors on a house whose model says hello."""
    async with opened(fronts_on, MemoryHouse()) as both:
        yield both


@pytest.mark.parametrize(
    ("messages", "parameter"),
    [
        ([], "messages"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "user", "content": []}], "messages[0].content"),
        ([{"role": "assistant"}], "messages[0].content"),
        ([{"role": "tool", "content": "42"}], "messages[0].tool_call_id"),
        ([{"role": "tool", "content": "42", "tool_call_id": ""}], "messages[0].tool_call_id"),
        ([{"role": "user", "content": "a", "tool_calls": calling("{}")}], "messages[0].tool_calls"),
        ([{"role": "user", "content": "a"}, {"role": "tool", "content": "b"}], "messages[1].tool_call_id"),
    ],
    ids=lambda value: repr(value)[:60],
)
async def test_a_turn_that_one_door_refuses_the_other_refuses_too(doors, messages, parameter):
    """The same reason and the same name; no worker hears of it."""
    rest, rpc = await doors.rest(messages), await doors.rpc(messages)
    assert rest[:2] == rpc[:2] == ("PARAMETER_INVALID", parameter)
    assert rest[2] == rpc[2]
    assert doors.house.workers.orders == []


@pytest.mark.parametrize("arguments", ["", "{", "{'a': 1}", "[" * 100_000])
async def test_arguments_of_a_tool_call_are_json(doors, arguments):
    """Each door names the member as its own callers write it."""
    turns = [{"role": "assistant", "tool_calls": calling(arguments)}]
    rest, rpc = await doors.rest(turns), await doors.rpc(turns)
    assert rest[:2] == ("PARAMETER_INVALID", "messages[0].tool_calls[0].function.arguments")
    assert rpc[:2] == ("PARAMETER_INVALID", "messages[0].tool_calls[0].arguments_json")


@pytest.mark.parametrize("name", ["serin-lane", "serin-cascade", "x-session-id"])
async def test_what_decides_says_something(doors, name):
    """An empty header is a variable that was never set: both doors refuse it by name, and nobody answers."""
    turns = [{"role": "user", "content": "hi"}]
    asked = {"model": "small", "messages": turns}
    response = await doors.http.post("/v1/chat/completions", json=asked, headers={name: ""})
    error = response.json()["error"]
    rpc = await doors.rpc(turns, metadata=((name, ""),))
    assert rpc == (error["reason"], error["param"], error["message"])
    assert rpc[:2] == ("PARAMETER_INVALID", name)
    assert rpc[2].startswith(f"{name}: is empty; accepted: ")
    assert doors.house.workers.orders == []


async def test_a_conversation_with_tools_passes_both_doors(doors):
    """Calls and their results, and a turn whose text is empty."""
    turns = [
        {"role": "user", "content": ""},
        {"role": "assistant", "tool_calls": calling('{"a": [1]}')},
        {"role": "tool", "content": "42", "tool_call_id": "c1"},
    ]
    assert await doors.rest(turns) is None
    assert await doors.rpc(turns) is None


async def test_a_part_that_holds_nothing_is_not_an_empty_text(doors):
    """What a newer caller may have put there is refused by its place."""
    turn = chat_pb2.ChatMessage(role="user", content=[chat_pb2.ContentPart(text="a"), chat_pb2.ContentPart()])
    assert (await doors.rpc([turn]))[:2] == ("PARAMETER_INVALID", "messages[0].content[1]")


async def test_a_model_that_is_not_there_is_told_so_in_words_that_hold_at_both_doors(doors):
    """No path of one door is named at the other."""
    hi = [{"role": "user", "content": "hi"}]
    rest, rpc = await doors.rest(hi, model="nope"), await doors.rpc(hi, model="nope")
    assert rest == rpc
    assert rest[:2] == ("MODEL_NOT_FOUND", "model")
    assert "/" not in rest[2]


async def test_stored_answers_are_for_deterministic_requests(doors):
    """Anything else is refused, not silently left without effect."""
    hi = [{"role": "user", "content": "hi"}]
    for temperature in (None, 0.7):
        sampling = {} if temperature is None else {"temperature": temperature}
        rest = await doors.rest(hi, allow_cached_answer=True, **sampling)
        rpc = await doors.rpc(hi, allow_cached_answer=True, sampling=sampling_pb2.SamplingParameters(**sampling))
        assert rest == rpc
        assert rest[:2] == ("PARAMETER_INVALID", "allow_cached_answer")
        assert "temperature 0" in rest[2]
    assert await doors.rest(hi, allow_cached_answer=True, temperature=0) is None


async def test_a_prompt_may_have_as_many_bytes_at_either_door(doors):
    """The mesh's policy holds for messages as for bodies, also when it changes while the gateway runs."""
    catalog, metadata = doors.house.catalog, (("authorization", f"Bearer {doors.key}"),)
    long = [{"role": "user", "content": "x" * 700}]
    assert await doors.rpc(long) is None
    catalog.publish(dataclasses.replace(catalog.current(), policy=Policy(max_body_bytes=600)))
    assert (await doors.rest(long))[0] == "BODY_TOO_LARGE"
    asked = inference_pb2.CountTokensRequest(model="small", prompt="x" * 700)
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await doors.stub.CountTokens(asked, timeout=20, metadata=metadata)
    info = info_of(failed.value)
    assert (info.reason, info.metadata["max_byte_count"]) == ("BODY_TOO_LARGE", "600")
    assert int(info.metadata["byte_count"]) == asked.ByteSize()
    assert all(number in failed.value.details() for number in info.metadata.values())
    reason, _, message = await doors.rpc(long)
    assert reason == "BODY_TOO_LARGE"
    assert "600" in message
    catalog.publish(dataclasses.replace(catalog.current(), policy=Policy(max_body_bytes=6000)))
    assert await doors.rpc(long) is None


async def test_a_client_names_its_request_at_either_door(doors):
    """By `x-request-id`, if it can be one; a service of the mesh by the mesh's own key, which is preferred."""
    hi = [{"role": "user", "content": "hi"}]
    for given, taken in (
        ({"x-request-id": "mine-1"}, "mine-1"),
        ({"x-request-id": "mine-2", "serin-request-id": "ours"}, "ours"),
        ({"x-request-id": "a b"}, None),
        ({"x-request-id": "x" * 101}, None),
    ):
        assert await doors.rpc(hi, metadata=tuple(given.items())) is None
        found = doors.house.journal.receipts[-1].request_id
        assert found == taken if taken else found.startswith("req-")
