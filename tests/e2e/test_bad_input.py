"""Bad input over both doors: the same reasons, the parameter's name, a sentence, and nothing else harmed."""

import json
from dataclasses import dataclass, field
from typing import Any

import grpc
import httpx
import pytest
from harness.asking import TINY
from harness.running_mesh import RunningMesh
from harness.wire_errors import error_info
from openai import AsyncOpenAI, NotFoundError
from serin.generation.v1 import chat_pb2, sampling_pb2
from serin.inference.v1 import inference_pb2, inference_pb2_grpc
from serin_mesh.errors import STATUS, Reason

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Hello"}]


@dataclass(frozen=True)
class Bad:
    """One mistake, as REST and as gRPC write it; an absent side has no such mistake."""

    reason: Reason
    rest: dict[str, Any] | None = None
    rpc: dict[str, Any] | None = None
    sampling: dict[str, Any] | None = None
    param: str | None = None
    rpc_param: str | None = None
    path: str = CHAT
    words: tuple[str, ...] = field(default=())


def tool(name: str, **function: Any) -> dict[str, Any]:
    """A tool as REST writes it."""
    return {"type": "function", "function": {"name": name} | function}


def hello_chat(**fields: Any) -> inference_pb2.Chat:
    """A conversation of one turn, as gRPC writes it."""
    hello = chat_pb2.ChatMessage(role="user", content=[chat_pb2.ContentPart(text="Hello")])
    return inference_pb2.Chat(messages=[hello], **fields)


def deep(levels: int) -> str:
    """A JSON object of so many levels."""
    return '{"a":' * levels + "1" + "}" * levels


FORGED = {"name": "f", "arguments": deep(100_000)}

MISTAKES = {
    "model": Bad(Reason.MODEL_NOT_FOUND, {"model": "nope"}, {"model": "nope"}, param="model", words=("nope",)),
    "no model": Bad(Reason.PARAMETER_INVALID, {"model": None}, {"model": ""}, param="model"),
    "no messages": Bad(Reason.PARAMETER_INVALID, {"messages": []}, {"chat": inference_pb2.Chat()}, param="messages"),
    "messages a text": Bad(Reason.PARAMETER_INVALID, {"messages": "Hello"}, param="messages"),
    "role": Bad(
        Reason.PARAMETER_INVALID,
        {"messages": [{"role": "robot", "content": "Hi"}]},
        {"chat": inference_pb2.Chat(messages=[chat_pb2.ChatMessage(role="robot")])},
        param="messages[0].role",
        words=("robot",),
    ),
    "temperature": Bad(
        Reason.PARAMETER_INVALID, {"temperature": 3}, sampling={"temperature": 3}, param="temperature", words=("3",)
    ),
    "temperature a text": Bad(Reason.PARAMETER_INVALID, {"temperature": "hot"}, param="temperature"),
    "temperature true": Bad(Reason.PARAMETER_INVALID, {"temperature": True}, param="temperature"),
    "top_p": Bad(Reason.PARAMETER_INVALID, {"top_p": 0}, sampling={"top_p": 0}, param="top_p"),
    "top_k": Bad(Reason.PARAMETER_INVALID, {"top_k": -1}, param="top_k"),
    "min_p": Bad(Reason.PARAMETER_INVALID, {"min_p": 1.5}, sampling={"min_p": 1.5}, param="min_p"),
    "frequency": Bad(
        Reason.PARAMETER_INVALID,
        {"frequency_penalty": -3},
        sampling={"frequency_penalty": -3},
        param="frequency_penalty",
    ),
    "n": Bad(Reason.PARAMETER_INVALID, {"n": 129}, sampling={"choice_count": 129}, param="n", rpc_param="choice_count"),
    "n zero": Bad(
        Reason.PARAMETER_INVALID, {"n": 0}, sampling={"choice_count": 0}, param="n", rpc_param="choice_count"
    ),
    "max_tokens": Bad(Reason.PARAMETER_INVALID, {"max_tokens": 0}, sampling={"max_tokens": 0}, param="max_tokens"),
    "min_tokens": Bad(
        Reason.PARAMETER_INVALID,
        {"max_tokens": 4, "min_tokens": 5},
        sampling={"max_tokens": 4, "min_tokens": 5},
        param="min_tokens",
    ),
    "top_logprobs": Bad(
        Reason.PARAMETER_INVALID,
        {"logprobs": True, "top_logprobs": 21},
        sampling={"top_logprobs": 21},
        param="top_logprobs",
    ),
    "top_logprobs alone": Bad(Reason.PARAMETER_INVALID, {"top_logprobs": 2}, param="top_logprobs"),
    "logit_bias": Bad(
        Reason.PARAMETER_INVALID, {"logit_bias": {"5": 101}}, sampling={"logit_bias": {5: 101}}, param="logit_bias"
    ),
    "stop": Bad(
        Reason.PARAMETER_INVALID,
        {"stop": list("abcde")},
        {"stop_strings": list("abcde")},
        param="stop",
        rpc_param="stop_strings",
    ),
    "stop empty": Bad(
        Reason.PARAMETER_INVALID, {"stop": ""}, {"stop_strings": [""]}, param="stop", rpc_param="stop_strings"
    ),
    "seed": Bad(Reason.PARAMETER_INVALID, {"seed": 1.5}, param="seed"),
    "stream_options": Bad(
        Reason.PARAMETER_INVALID, {"stream_options": {"include_usage": True}}, param="stream_options"
    ),
    "tools": Bad(
        Reason.PARAMETER_UNSUPPORTED,
        {"tools": [tool("f")]},
        {"chat": hello_chat(tools=[chat_pb2.ToolDefinition(name="f")])},
        param="tools",
    ),
    "many tools": Bad(
        Reason.PARAMETER_INVALID,
        {"tools": [tool(f"f{n}") for n in range(2000)]},
        {"chat": hello_chat(tools=[chat_pb2.ToolDefinition(name=f"f{n}") for n in range(2000)])},
        param="tools",
        words=("2000", "128"),
    ),
    "tool name": Bad(
        Reason.PARAMETER_INVALID,
        {"tools": [tool("<|im_end|>")]},
        {"chat": hello_chat(tools=[chat_pb2.ToolDefinition(name="<|im_end|>")])},
        param="tools[0].function.name",
        rpc_param="tools[0].name",
    ),
    "deep schema": Bad(
        Reason.PARAMETER_INVALID,
        {"tools": [tool("f", parameters=json.loads(deep(40)))]},
        {"chat": hello_chat(tools=[chat_pb2.ToolDefinition(name="f", parameters_json=deep(10_000))])},
        param="tools[0].function.parameters",
        rpc_param="tools[0].parameters_json",
        words=("32",),
    ),
    "deep arguments": Bad(
        Reason.PARAMETER_INVALID,
        {"messages": [{"role": "assistant", "tool_calls": [{"id": "1", "function": FORGED}]}]},
        param="messages[0].tool_calls[0].function.arguments",
    ),
    "a tool that is not there": Bad(
        Reason.PARAMETER_INVALID,
        {"tool_choice": {"type": "function", "function": {"name": "g"}}},
        {"chat": hello_chat(tool_choice=chat_pb2.ToolChoice(mode=chat_pb2.TOOL_CHOICE_MODE_NAMED, name="g"))},
        param="tool_choice",
    ),
    "effort": Bad(
        Reason.PARAMETER_UNSUPPORTED,
        {"reasoning_effort": "high"},
        {"chat": hello_chat(reasoning_effort="high")},
        param="reasoning_effort",
    ),
    "response_format": Bad(
        Reason.GRAMMAR_INVALID,
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}}}},
        {"grammar": sampling_pb2.Grammar(kind=sampling_pb2.GRAMMAR_KIND_JSON_SCHEMA, text='{"type": "nonsense"}')},
        param="response_format",
        rpc_param="grammar",
        words=("nonsense",),
    ),
    "store": Bad(Reason.PARAMETER_UNSUPPORTED, {"store": True}, param="store"),
    "service_tier": Bad(Reason.PARAMETER_UNSUPPORTED, {"service_tier": "flex"}, param="service_tier"),
    "unknown": Bad(Reason.PARAMETER_UNKNOWN, {"temprature": 1}, param="temprature", words=("temprature",)),
    "long": Bad(
        Reason.PROMPT_TOO_LONG,
        {"messages": [{"role": "user", "content": "x" * 5000}]},
        {"prompt": "x" * 5000},
        param="messages",
        rpc_param="prompt",
        words=("4096",),
    ),
    "not ready": Bad(Reason.NOT_READY, {"model": "nobody"}, {"model": "nobody"}),
    "suffix": Bad(
        Reason.PARAMETER_UNSUPPORTED,
        {"prompt": "a", "suffix": "b", "messages": None},
        param="suffix",
        path="/v1/completions",
    ),
    "no prompts": Bad(
        Reason.PARAMETER_INVALID, {"prompt": [], "messages": None}, param="prompt", path="/v1/completions"
    ),
    "unknown id": Bad(
        Reason.PARAMETER_INVALID, {"prompt": [5, 10**6], "messages": None}, param="prompt", path="/v1/completions"
    ),
}


def rest_body(mistake: Bad) -> dict[str, Any]:
    """A request that is right but for the mistake; None leaves a member out."""
    body = {"model": TINY, "messages": HELLO, "max_tokens": 4, **(mistake.rest or {})}
    return {name: value for name, value in body.items() if value is not None}


def rpc_request(mistake: Bad) -> inference_pb2.GenerateRequest:
    """A request that is right but for the mistake."""
    hello = chat_pb2.ChatMessage(role="user", content=[chat_pb2.ContentPart(text="Hello")])
    request = inference_pb2.GenerateRequest(model=TINY, sampling=sampling_pb2.SamplingParameters(max_tokens=4))
    change = dict(mistake.rpc or {})
    if "prompt" not in change:
        request.chat.messages.append(hello)
    if (chat := change.get("chat")) is not None:
        if chat.messages or not chat.tools:
            del request.chat.messages[:]
        request.chat.MergeFrom(change.pop("chat"))
    request.MergeFrom(inference_pb2.GenerateRequest(**change))
    if change.get("model") == "":
        request.ClearField("model")
    request.sampling.MergeFrom(sampling_pb2.SamplingParameters(**(mistake.sampling or {})))
    return request


@pytest.mark.parametrize("name", [name for name, mistake in MISTAKES.items() if mistake.rest is not None])
async def test_a_mistake_over_rest(http: httpx.AsyncClient, name: str):
    """Status and OpenAI's error shape by the table, with the parameter's name."""
    mistake = MISTAKES[name]
    response = await http.post(mistake.path, json=rest_body(mistake))
    error = response.json()["error"]
    assert (response.status_code, error["reason"]) == (STATUS[mistake.reason].http, mistake.reason.value), error
    assert error["type"] == STATUS[mistake.reason].openai_type
    assert error["code"]
    if mistake.param is not None:
        assert error["param"] == mistake.param
    for word in mistake.words:
        assert word in error["message"]
    if response.status_code in (429, 503):
        assert float(response.headers["retry-after"]) > 0
    assert response.headers["x-request-id"]


@pytest.mark.parametrize(
    "name", [name for name, mistake in MISTAKES.items() if mistake.rpc is not None or mistake.sampling is not None]
)
async def test_the_same_mistake_over_grpc(front_door: grpc.aio.Channel, mesh: RunningMesh, name: str):
    """Status and `ErrorInfo` by the same table, with the same reason."""
    mistake = MISTAKES[name]
    stub = inference_pb2_grpc.InferenceServiceStub(front_door)
    call = stub.Generate(rpc_request(mistake), timeout=30, metadata=(("authorization", f"Bearer {mesh.key}"),))
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await anext(aiter(call))
    info = error_info(failure.value)
    assert (failure.value.code(), info.reason) == (STATUS[mistake.reason].grpc, mistake.reason.value)
    if (param := mistake.rpc_param or mistake.param) is not None:
        assert param in info.metadata["parameter"]
    for word in mistake.words:
        assert word in (failure.value.details() or "")


@pytest.mark.parametrize(
    "body",
    [b"{", b"", b"[]", b"null", b'{"model": NaN}', b"\xff\xfe", b'{"model": "tiny", "model": "tiny"}', b"[" * 100_000],
    ids=lambda body: repr(body[:12]),
)
async def test_a_body_that_is_no_request(http: httpx.AsyncClient, body: bytes):
    """What is not one JSON object is refused as such, however it is broken."""
    response = await http.post(CHAT, content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert response.json()["error"]["reason"] in ("MALFORMED_BODY", "PARAMETER_INVALID")


async def test_a_body_that_is_too_large(http: httpx.AsyncClient):
    """A body over the limit is refused with 413, whether or not it says its length."""
    huge = b'{"model": "' + b"x" * (5 * 1024 * 1024) + b'"}'

    async def pieces():
        for start in range(0, len(huge), 65536):
            yield huge[start : start + 65536]

    for content in (huge, pieces()):
        response = await http.post(CHAT, content=content, headers={"content-type": "application/json"})
        assert response.status_code == 413
        assert response.json()["error"]["reason"] == "BODY_TOO_LARGE"


async def test_paths_and_methods_nobody_serves(http: httpx.AsyncClient):
    """An unknown path is 404, a wrong method 405, in OpenAI's error shape."""
    missing = await http.get("/v1/nothing")
    assert missing.status_code == 404
    assert missing.json()["error"]["message"]
    wrong = await http.get(CHAT)
    assert wrong.status_code == 405
    assert wrong.json()["error"]["message"]


async def test_the_sdk_raises_its_own_errors(client: AsyncOpenAI):
    """The official SDK understands the shape: status, code, parameter, request id."""
    with pytest.raises(NotFoundError) as failure:
        await client.chat.completions.create(model="nope", messages=HELLO)
    assert failure.value.param == "model"
    assert failure.value.code
    assert failure.value.request_id
    with pytest.raises(NotFoundError):
        await client.models.retrieve("nope")
