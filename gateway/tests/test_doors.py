"""Two doors, one house: what one refuses the other refuses too, for the same reason and under the same name."""

import dataclasses
import json
from contextlib import asynccontextmanager

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from serin.generation.v1 import chat_pb2, sampling_pb2
from serin.inference.v1 import inference_pb2, inference_pb2_grpc
from serin_gateway.catalog import Policy
from serin_gateway.reading.form import AnswerForm, CallForm
from serin_gateway.rpc.service import InferenceService
from serin_gateway.testing import ByteTokenizer, MemoryHouse, saying
from serin_gateway.worker import WorkStarted
from serin_mesh.errors import MeshError, Reason
from serin_mesh.testing import running

HI = [{"role": "user", "content": "hi"}]


class BothDoors:
    """A question asked over REST and over gRPC; each answers None, or reason, parameter and sentence."""

    def __init__(self, front, stub):
        self.house = front.house
        self.key = front.key
        self.front = front
        self.http = front.http
        self.stub = stub

    async def rest(self, messages, **body):
        """Over REST."""
        response = await self.front.chat(messages=messages, **body)
        if response.status_code == 200:
            return None
        error = response.json()["error"]
        return error["reason"], error["param"], error["message"]

    async def rpc(self, messages=(), model="small", metadata=(), chat=None, **fields):
        """Over gRPC: the same turns as protobuf, or ready ones, or all of a chat."""
        turns = [turn if isinstance(turn, chat_pb2.ChatMessage) else as_message(turn) for turn in messages]
        chat = chat or inference_pb2.Chat(messages=turns)
        asked = inference_pb2.GenerateRequest(model=model, chat=chat, **fields)
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
        ([{"role": "tool", "content": "42", "tool_call_id": "c1"}], "messages[0].tool_call_id"),
        (
            [
                {"role": "tool", "content": "42", "tool_call_id": "c1"},
                {"role": "assistant", "tool_calls": calling("{}")},
            ],
            "messages[0].tool_call_id",
        ),
        (
            [
                {"role": "assistant", "tool_calls": calling("{}")},
                {"role": "tool", "content": "42", "tool_call_id": "c2"},
            ],
            "messages[1].tool_call_id",
        ),
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


@pytest.mark.parametrize("arguments", ["", "{", "{'a': 1}", '{"city": "Li'])
async def test_a_call_that_broke_off_can_be_sent_back(doors, arguments):
    """Both doors take what an answer gave: the model is shown what it wrote."""
    reply = {"role": "tool", "content": "these arguments are no JSON", "tool_call_id": "c1"}
    turns = [{"role": "assistant", "tool_calls": calling(arguments)}, reply]
    assert (await doors.rest(turns), await doors.rpc(turns)) == (None, None)
    said = [
        conversation.messages[0].tool_calls[0] for conversation in doors.house.collaborators.tokenizer.conversations
    ]
    assert [call.arguments_json for call in said] == [arguments] * 2


@pytest.mark.parametrize("arguments", ["[" * 100_000, '{"a":' * 61 + "1" + "}" * 61])
async def test_arguments_of_a_tool_call_are_not_too_deep(doors, arguments):
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


async def test_a_session_is_not_cut(doors):
    """Two long ones would become one: both doors refuse what is longer than they keep."""
    for length, is_refused in ((256, False), (257, True)):
        asked = {"model": "small", "messages": HI}
        headers = {"x-session-id": "s" * length}
        response = await doors.http.post("/v1/chat/completions", json=asked, headers=headers)
        rpc = await doors.rpc(HI, metadata=tuple(headers.items()))
        assert (response.status_code == 400, rpc is not None) == (is_refused, is_refused)
        if is_refused:
            error = response.json()["error"]
            assert rpc == (error["reason"], error["param"], error["message"])
            assert rpc[2] == "x-session-id: accepted: at most 256 bytes"


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
        metadata = (("authorization", f"Bearer {doors.key}"), *given.items())
        call = doors.stub.ListModels(inference_pb2.ListModelsRequest(), timeout=20, metadata=metadata)
        trailers = dict(await call.trailing_metadata())
        assert trailers.get("x-serin-ignored") == (None if taken else "x-request-id")


BAD = {"type": "object", "properties": {"bad": {}}}
CITY = {"type": "object", "properties": {"city": {}}}


def offered(door: str, name: str, schema: dict, *, strict: bool = True) -> dict:
    """A tool as a door's callers write it."""
    if door == "chat":
        return {"type": "function", "function": {"name": name, "parameters": schema, "strict": strict}}
    if door == "responses":
        return {"type": "function", "name": name, "parameters": schema, "strict": strict}
    return {"name": name, "input_schema": schema, "strict": strict}


@pytest.mark.parametrize(
    ("choice", "strict", "grammar"),
    [
        ("auto", False, ""),
        ("auto", True, "calls: auto f!, g"),
        ("none", True, ""),
        ("required", False, "calls: required f, g"),
        ("named", True, "calls: named f!, g"),
    ],
)
async def test_calls_follow_their_tools_schemas_through_every_door(fronts_on, choice, strict, grammar):
    """Where one is required, and of strict tools wherever they are called; a schema that cannot be is named."""
    tokenizer = ByteTokenizer(AnswerForm(CallForm.HERMES))
    house = MemoryHouse(saying(' {"city": 1}}'), tokenizer=tokenizer)
    asks = {
        "chat": ("/v1/chat/completions", {"messages": HI}, {"type": "function", "function": {"name": "f"}}),
        "responses": ("/v1/responses", {"input": HI}, {"type": "function", "name": "f"}),
        "messages": ("/v1/messages", {"messages": HI, "max_tokens": 50}, {"type": "tool", "name": "f"}),
    }
    places = {
        "chat": "tools[1].function.parameters",
        "responses": "tools[1].parameters",
        "messages": "tools[1].input_schema",
    }
    async with opened(fronts_on, house) as both:
        for door, (path, ask, named) in asks.items():
            chosen = named if choice == "named" else choice
            if door == "messages" and choice != "named":
                chosen = {"type": {"required": "any"}.get(choice, choice)}
            tools = [offered(door, "f", CITY, strict=strict), offered(door, "g", CITY, strict=False)]
            body = {"model": "small", **ask, "tool_choice": chosen, "tools": tools}
            response = await both.http.post(path, json=body)
            assert response.status_code == 200, response.text
            assert house.workers.orders[-1][1].grammar == grammar
            body["tools"] = [tools[0], offered(door, "g", BAD, strict=False)]
            response = await both.http.post(path, json=body)
            assert response.status_code == (400 if grammar else 200), response.text
            if grammar:
                error = response.json()["error"]
                assert error["message"].startswith(f"{places[door]}: that is bad"), error
                assert response.headers["serin-reason"] == "GRAMMAR_INVALID"
        modes = {"named": chat_pb2.TOOL_CHOICE_MODE_NAMED, "required": chat_pb2.TOOL_CHOICE_MODE_REQUIRED,
                 "auto": chat_pb2.TOOL_CHOICE_MODE_AUTO, "none": chat_pb2.TOOL_CHOICE_MODE_NONE}  # fmt: skip
        for schema, found in ((CITY, None), (BAD, ("GRAMMAR_INVALID", "tools[1].parameters_json"))):
            chat = inference_pb2.Chat(
                messages=[as_message(HI[0])],
                tools=[
                    chat_pb2.ToolDefinition(name="f", parameters_json=json.dumps(CITY), strict=strict),
                    chat_pb2.ToolDefinition(name="g", parameters_json=json.dumps(schema)),
                ],
                tool_choice=chat_pb2.ToolChoice(mode=modes[choice], name="f" if choice == "named" else ""),
            )
            refused = await both.rpc(chat=chat)
            assert (refused and refused[:2]) == (found if grammar else None)
            assert house.workers.orders[-1][1].grammar == grammar


async def test_a_constraint_on_the_answer_comes_before_strict_tools(fronts_on):
    """All of it is what was asked for; there is no room for a call."""
    tokenizer = ByteTokenizer(AnswerForm(CallForm.HERMES))
    async with opened(fronts_on, MemoryHouse(tokenizer=tokenizer)) as both:
        tools = [offered("chat", "f", CITY)]
        response = await both.front.chat(tools=tools, guided_regex="a+")
        assert response.status_code == 200, response.text
        assert both.house.workers.orders[-1][1].grammar == "regex: a+"


async def test_a_worker_that_cannot_go_on_with_calls_blames_the_tools(fronts_on):
    """A mask that takes too long, which nobody could know before."""
    limit = MeshError(Reason.GRAMMAR_LIMIT, "too much", parameter="grammar")
    house = MemoryHouse(
        lambda worker, order: [WorkStarted(worker.instance, 0, 1), limit],
        tokenizer=ByteTokenizer(AnswerForm(CallForm.HERMES)),
    )
    async with opened(fronts_on, house) as both:
        response = await both.front.chat(tools=[offered("chat", "f", CITY)], tool_choice="required")
        error = response.json()["error"]
        assert (response.status_code, error["param"], error["reason"]) == (400, "tools", "GRAMMAR_LIMIT")


async def test_an_echo_is_the_same_at_both_doors(doors):
    """Text, tokens, log-probabilities and where each token begins."""
    body = {"model": "small", "prompt": "aé🐦", "echo": True, "max_tokens": 0, "logprobs": 1}
    told = (await doors.front.http.post("/v1/completions", json=body)).json()["choices"][0]
    request = inference_pb2.GenerateRequest(model="small", prompt=body["prompt"], echo=True)
    request.sampling.max_tokens, request.sampling.top_logprobs = 0, 1
    metadata = [("authorization", f"Bearer {doors.front.key}")]
    events = [event async for event in doors.stub.Generate(request, timeout=20, metadata=metadata)]
    (echo,) = [event.echo for event in events if event.HasField("echo")]
    assert echo.text == told["text"] == body["prompt"]
    scores = [token.logprob if token.HasField("logprob") else None for token in echo.tokens]
    assert scores == pytest.approx(told["logprobs"]["token_logprobs"])
    assert [token.token for token in echo.tokens] == told["logprobs"]["tokens"]
    assert [token.text_offset for token in echo.tokens] == told["logprobs"]["text_offset"]
