"""Any JSON at any endpoint, any message at any method: never a fault of ours, never a status that is not declared."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from harness.wire_errors import error_info
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from security.doors import Doors, open_doors
from security.fuzzing import LENGTHS, rounds
from serin.inference.v1 import inference_pb2
from serin_gateway.keys import Role
from serin_gateway.rest.api import rest_endpoints
from serin_gateway.rest.door import Door
from serin_gateway.rest.endpoint import Endpoint
from serin_gateway.rest.errors import ANTHROPIC
from serin_gateway.rest.openapi import document
from serin_gateway.testing import MemoryHouse, saying
from serin_mesh.errors import STATUS, Reason
from serin_mesh.readiness import Readiness

EXAMPLES = 60
"""Of one round."""
PATIENCE_S = 20.0
CONFIGURED = settings(
    max_examples=EXAMPLES,
    database=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)

ENDPOINTS = [one for one in rest_endpoints(Readiness()).all if not one.is_open]
DECLARED = json.loads(document(ENDPOINTS, "0"))["paths"]
HELLO = [{"role": "user", "content": "hi"}]
GOOD: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": "small", "messages": HELLO},
    "/v1/completions": {"model": "small", "prompt": "hi"},
    "/v1/messages": {"model": "small", "messages": HELLO, "max_tokens": 5},
    "/v1/messages/count_tokens": {"model": "small", "messages": HELLO},
    "/v1/responses": {"model": "small", "input": "hi"},
    "/v1/embeddings": {"model": "small", "input": "hi"},
    "/v1/feedback": {"request_id": "req-1", "score": 1},
    "/tokenize": {"model": "small", "messages": HELLO},
    "/detokenize": {"model": "small", "tokens": [104, 105]},
}
"""A body that is right, where fuzzing from nothing would hardly get beyond the first member."""

NAMES = sorted({name for one in ENDPOINTS if one.body for name in one.body.model_fields})
WORDS = st.sampled_from(
    ["", "small", "user", "assistant", "tool", "text", "function", "auto", "none", "required", "json_schema", "type",
     "content", "name", "role", "id", "input", "{}", "[]", "\0", "\ud7ff", "é", "x" * 300, "../..", "*", "0", "-1"]
)  # fmt: skip
NUMBERS = (
    st.integers(-3, 200)
    | st.sampled_from([2**31, 2**32, 2**53, 2**63, 2**64, -(2**63), 10**30])
    | st.floats(allow_nan=False, allow_infinity=False)
)
LEAVES = st.none() | st.booleans() | NUMBERS | WORDS | st.text(max_size=12)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS | st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)
CHANGES = st.dictionaries(st.sampled_from(NAMES) | WORDS, VALUES, max_size=5)
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(
            [b"idempotency-key", b"x-request-timeout", b"x-session-id", b"x-request-id", b"serin-lane", b"traceparent",
             b"content-encoding", b"content-length", b"anthropic-version", b"x-anything"]
        ),
        st.binary(max_size=20) | st.sampled_from([b"1", b"a", b"identity"]),
    ),
    max_size=2,
)  # fmt: skip


@st.composite
def bodies(draw: st.DrawFn, endpoint: Endpoint) -> bytes:
    """A body: a right one with changes, anything, or a text with some of its bytes changed."""
    good = GOOD.get(endpoint.path, {})
    value = draw(st.one_of(CHANGES.map(lambda changes: good | changes), VALUES))
    text = bytearray(json.dumps(value).encode())
    for at, byte in draw(st.lists(st.tuples(st.integers(0, len(text)), st.integers(0, 255)), max_size=2)):
        if draw(st.booleans()) and draw(st.booleans()):
            text[at:at] = bytes([byte])
    return bytes(text)


BY_NAME = {one.operation: one for one in ENDPOINTS}
REQUESTS = st.sampled_from(sorted(BY_NAME)).flatmap(
    lambda name: st.tuples(st.just(name), bodies(BY_NAME[name]), HEADERS)
)


@pytest.mark.parametrize("seconds", LENGTHS)
def test_any_json_at_any_endpoint(seconds: float):
    """A status that the OpenAPI document declares for the endpoint, never 500, and always the error's shape."""
    house = MemoryHouse(saying("hello"))
    door = Door(house.collaborators, rest_endpoints(Readiness()), timeout_s=PATIENCE_S)
    with asyncio.Runner() as runner:
        key = runner.run(house.key(Role.ADMIN))

        def check(asked: tuple[str, bytes, list[tuple[bytes, bytes]]]) -> None:
            name, body, headers = asked
            endpoint = BY_NAME[name]
            status, answer = runner.run(exchanged(door, endpoint, body, headers, key))
            judge(endpoint, headers, status, answer)

        hunt(seconds, REQUESTS, check)
    assert len(house.journal.receipts) >= EXAMPLES, "each request leaves its receipt, and one round always runs"
    assert {one.reason for one in house.journal.receipts} & {"INTERNAL"} == set()


def judge(endpoint: Endpoint, headers: list[tuple[bytes, bytes]], status: int, answer: bytes) -> None:
    """Whether an answer is one that the document promises, in the dialect that was spoken."""
    speaks_anthropic = any(name == b"anthropic-version" for name, _ in headers)
    dialect = (speaks_anthropic and endpoint.dialect_of_anthropic) or endpoint.dialect
    path = DECLARED[endpoint.path][endpoint.method.lower()]
    assert str(status) in path["responses"], (status, answer[:500])
    assert status < 500 or status in (501, 503, 529), answer[:500]
    if status == 200:
        assert b'"INTERNAL"' not in answer or endpoint.path == "/metrics"  # which has one for tests in this process
        return
    told = json.loads(answer)
    error = told["error"]
    declared = STATUS[Reason(error["reason"])].http
    assert status == (529 if dialect is ANTHROPIC and declared == 503 else declared)
    assert error["message"]
    if dialect is ANTHROPIC:
        assert (told["type"], bool(told["request_id"]), bool(error["type"])) == ("error", True, True)
    else:
        assert {"message", "type", "param", "code"} <= set(error)


async def exchanged(
    door: Door, endpoint: Endpoint, body: bytes, headers: list[tuple[bytes, bytes]], key: str
) -> tuple[int, bytes]:
    """Status and body of one exchange with the application."""
    before, opening, rest = endpoint.path.partition("{")
    scope = {
        "type": "http",
        "method": endpoint.method,
        "raw_path": (f"{before}small{rest.partition('}')[2]}" if opening else before).encode(),
        "query_string": b"",
        "headers": [(b"authorization", f"Bearer {key}".encode()), *headers],
    }
    sent = [{"type": "http.request", "body": body, "more_body": False}]
    status, parts = 0, []

    async def receive() -> dict[str, Any]:
        return sent.pop() if sent else await asyncio.Future()

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)
        parts.append(message.get("body", b""))

    async with asyncio.timeout(PATIENCE_S):
        await door(scope, receive, send)
    return status, b"".join(parts)


@pytest.mark.parametrize("seconds", LENGTHS)
def test_any_message_at_any_method(seconds: float):
    """A status of the table with its `ErrorInfo`, never INTERNAL or UNKNOWN; what is no message is refused as such."""
    methods = inference_pb2.DESCRIPTOR.services_by_name["InferenceService"].methods
    calls = st.sampled_from(list(methods)).flatmap(
        lambda method: st.tuples(st.just(method), messages(method.input_type) | st.binary(max_size=80))
    )
    with asyncio.Runner() as runner:
        opened = open_doors(script=saying("hello"))
        doors = runner.run(opened.__aenter__())
        key = runner.run(doors.house.key())

        def check(asked: Any) -> None:
            method, request = asked
            runner.run(called(doors, method, request, key))

        try:
            hunt(seconds, calls, check)
        finally:
            runner.run(opened.__aexit__(None, None, None))


async def called(doors: Doors, method: Any, request: Message | bytes, key: str) -> None:
    """Make a call and judge how it ends."""
    data = request if isinstance(request, bytes) else request.SerializeToString()
    path = f"/{method.containing_service.full_name}/{method.name}"
    shown = [("authorization", f"Bearer {key}")]
    refusal: grpc.aio.AioRpcError | None = None
    try:
        if method.server_streaming:
            async for _ in doors.senders.channel.unary_stream(path)(data, metadata=shown, timeout=PATIENCE_S):
                continue
        else:
            await doors.senders.channel.unary_unary(path)(data, metadata=shown, timeout=PATIENCE_S)
    except grpc.aio.AioRpcError as error:
        refusal = error
    if refusal is None:
        return
    info = error_info(refusal)
    row = STATUS[Reason(info.reason)]
    assert refusal.code() is row.grpc
    assert row.http < 500 or row.http == 501, (info.reason, refusal.details())


def messages(kind: Descriptor) -> st.SearchStrategy[Message]:
    """Messages of a type with any of its fields set."""
    return st.deferred(lambda: _made(kind))


def _made(kind: Descriptor) -> st.SearchStrategy[Message]:
    fields = {field.name: _values(field) for field in kind.fields}
    chosen = st.fixed_dictionaries({}, optional=fields)
    return chosen.map(lambda given: _filled(kind, given))


def _filled(kind: Descriptor, given: dict[str, Any]) -> Message:
    made: dict[str, Any] = {}
    for name, value in given.items():
        oneof = kind.fields_by_name[name].containing_oneof
        if oneof is None or not any(one.name in made for one in oneof.fields):
            made[name] = value
    if "model" in kind.fields_by_name:
        made["model"] = made.get("model") if made.get("model") == "" else "small"
    return GetMessageClass(kind)(**made)


def _values(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        entry = field.message_type.fields_by_name
        return st.dictionaries(_one(entry["key"]), _one(entry["value"]), max_size=3)
    one = _one(field)
    return st.lists(one, max_size=3) if field.is_repeated else one


def _one(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        return messages(field.message_type)
    if field.enum_type is not None:
        return st.integers(0, 9)
    return _SCALARS[field.cpp_type]


_FLOATS = st.floats(width=32) | st.sampled_from([0.0, 1.0, -0.0, 0.5])
_SCALARS: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.CPPTYPE_STRING: WORDS | st.text(max_size=12) | st.sampled_from(["json", '{"a": 1}', "bad"]),
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
    FieldDescriptor.CPPTYPE_FLOAT: _FLOATS,
    FieldDescriptor.CPPTYPE_DOUBLE: st.floats(),
    FieldDescriptor.CPPTYPE_INT32: st.integers(-(2**31), 2**31 - 1) | st.integers(-3, 3),
    FieldDescriptor.CPPTYPE_UINT32: st.integers(0, 130) | st.sampled_from([255, 256, 2**31, 2**32 - 1]),
    FieldDescriptor.CPPTYPE_UINT64: st.sampled_from([0, 1, 2**63, 2**64 - 1]),
}


def hunt(seconds: float, strategy: st.SearchStrategy[Any], check: Callable[[Any], None]) -> None:
    """Check examples, a round after the other, until the time is over; a failure is made small before it is shown."""
    num_rounds = 0
    for number in rounds(seconds):

        @seed(number)
        @CONFIGURED
        @given(strategy)
        def examples(asked: Any) -> None:
            check(asked)

        examples()
        num_rounds += 1
    assert num_rounds


def test_the_hunt_finds_what_is_wrong(monkeypatch: pytest.MonkeyPatch):
    """A fault of ours, and a status nobody declared, are found: the fuzzer can fail."""
    monkeypatch.setenv("SERIN_FUZZ_S", "0.01")
    endpoint = ENDPOINTS[0]
    for status, answer in ((500, b"{}"), (418, b"{}"), (400, b'{"error": {"reason": "KEY_MISSING", "message": "x"}}')):

        def check(_: Any, status: int = status, answer: bytes = answer) -> None:
            judge(endpoint, [], status, answer)

        with pytest.raises(AssertionError):
            hunt(0.01, st.just(0), check)
