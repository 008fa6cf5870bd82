"""Errors: one table, and the same error on both ends of every kind of call."""

import asyncio

import grpc
import pytest
import structlog
from serin_mesh.errors import DOMAIN, STATUS, MeshError, Reason, from_rpc_error, to_status
from serin_mesh.testing import running


def test_every_reason_has_a_row() -> None:
    """No reason can be raised that some caller does not understand."""
    assert set(STATUS) == set(Reason)
    for row in STATUS.values():
        assert isinstance(row.grpc, grpc.StatusCode)
        assert row.grpc is not grpc.StatusCode.OK
        assert 400 <= row.http <= 599
        assert row.openai_type
        assert row.anthropic_type


def test_http_and_grpc_agree() -> None:
    """A caller's fault is a caller's fault over both doors, ours is ours.

    But for a full queue or memory: as UNAVAILABLE it would make proxies leave out an endpoint that only has enough
    to do.
    """
    full = {Reason.QUEUE_FULL, Reason.OUT_OF_MEMORY}
    for reason in full:
        assert (STATUS[reason].http, STATUS[reason].grpc) == (503, grpc.StatusCode.RESOURCE_EXHAUSTED)
    ours = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
    for reason, row in STATUS.items():
        if reason in full:
            continue
        if row.http >= 500 and row.http != 501 and row.grpc is not grpc.StatusCode.FAILED_PRECONDITION:
            assert row.grpc in ours, reason
        if row.http < 500:
            assert row.grpc not in ours, reason


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_survives_the_wire_form(reason: Reason) -> None:
    """Status and back gives the same reason, message and metadata, in exactly one ErrorInfo of our domain."""
    status = to_status(MeshError(reason, "what happened", parameter="top_p", retry_after_s="2"))
    back = from_rpc_error(as_rpc_error(status))
    assert (back.reason, back.message, dict(back.metadata)) == (
        reason,
        "what happened",
        {"parameter": "top_p", "retry_after_s": "2"},
    )
    assert dict(status.trailing_metadata)["grpc-status-details-bin"].count(DOMAIN.encode() + b"\x1a") == 1


def test_long_messages_fit_into_trailers() -> None:
    """A message of any length still arrives; peers bound what trailers may hold."""
    back = from_rpc_error(as_rpc_error(to_status(MeshError(Reason.INTERNAL, "x" * 100_000))))
    assert back.reason is Reason.INTERNAL
    assert 0 < len(back.message) <= 2000


@pytest.mark.parametrize(
    ("code", "details", "reason"),
    [
        (grpc.StatusCode.UNAVAILABLE, "connection refused", Reason.UPSTREAM_UNAVAILABLE),
        (grpc.StatusCode.UNAVAILABLE, "Matching route has inappropriate action", Reason.LANE_GONE),
        (grpc.StatusCode.UNAVAILABLE, "LANE_GONE: the lane is not served any more", Reason.LANE_GONE),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "Received message larger than max (9 vs. 4)", Reason.BODY_TOO_LARGE),
        (grpc.StatusCode.UNIMPLEMENTED, "", Reason.NOT_IMPLEMENTED),
        (grpc.StatusCode.DATA_LOSS, "", Reason.INTERNAL),
    ],
)
def test_foreign_statuses_are_understood_by_code(code: grpc.StatusCode, details: str, reason: Reason) -> None:
    """What proxies and gRPC itself say has a reason too."""
    error = from_rpc_error(grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details))
    assert error.reason is reason
    assert code.name in error.message


def test_a_reason_of_a_newer_version_is_understood_by_code() -> None:
    """An older service meets a reason that it has never heard of."""
    status = to_status(MeshError(Reason.NOT_READY, "busy"))
    newer = dict(status.trailing_metadata)["grpc-status-details-bin"].replace(b"NOT_READY", b"NOT_BUILT")
    trailing = grpc.aio.Metadata(("grpc-status-details-bin", newer))
    error = from_rpc_error(grpc.aio.AioRpcError(status.code, grpc.aio.Metadata(), trailing, "busy"))
    assert error.reason is Reason.UPSTREAM_UNAVAILABLE


async def read_into(got: list[bytes], call) -> None:
    """Read a stream to its end, keeping what arrived should it fail."""
    async for response in call:
        got.append(response)  # noqa: PERF401 - a comprehension would lose all of it


async def calls_that_fail(stub, text: bytes):
    """(what arrived first, error) for each kind of call, plain and streaming."""

    async def iterate(call):
        got: list[bytes] = []
        with pytest.raises(MeshError) as caught:
            await read_into(got, call)
        return got, caught.value

    async def requests():
        yield b"one"
        yield text

    with pytest.raises(MeshError) as unary:
        await stub.unary(text)
    with pytest.raises(MeshError) as collect:
        await stub.collect(requests())
    return {
        "unary": ([], unary.value),
        "collect": ([], collect.value),
        "stream": await iterate(stub.stream(text)),
        "chat": await iterate(stub.chat(requests())),
        "read_write": await iterate(stub.read_write(requests())),
    }


async def test_a_mesh_error_arrives_as_it_was_raised(echo, stub_of) -> None:
    """Unary, client streaming, mid-stream and bidirectional; what was sent before a failure arrives first."""
    async with running(echo.register) as server, server.connect() as channel:
        failed = await calls_that_fail(stub_of(channel), b"fail")
    for kind, (_, error) in failed.items():
        assert error.reason is Reason.PARAMETER_INVALID, kind
        assert error.message == "top_p: 3: accepted: 0..1"
        assert dict(error.metadata) == {"parameter": "top_p"}
        assert isinstance(error.__cause__, grpc.RpcError)
    assert failed["stream"][0] == [b"fail"] * 3
    assert failed["chat"][0] == failed["read_write"][0] == [b"one"]


async def test_a_crash_tells_that_it_happened_and_not_what_was_in_it(echo, stub_of) -> None:
    """Foreign exceptions quote requests, so their message stays inside."""
    async with running(echo.register) as server, server.connect() as channel:
        failed = await calls_that_fail(stub_of(channel), b"crash sesame")
    for kind, (_, error) in failed.items():
        assert error.reason is Reason.INTERNAL, kind
        assert "sesame" not in error.message
        assert "req-" in error.message


async def test_a_caller_that_vanishes_is_no_crash_of_ours(echo, stub_of) -> None:
    """What gRPC raises when it writes to a caller that is gone counts as cancelled and is not logged as a fault."""

    async def vanish(request, context):
        raise grpc.aio.InternalError("Failed execute_batch")

    echo.unary = vanish
    with structlog.testing.capture_logs() as lines:
        async with running(echo.register) as server, server.connect() as channel:
            with pytest.raises(MeshError) as caught:
                await stub_of(channel).unary(b"x")
    assert caught.value.reason is Reason.CANCELLED
    assert "rpc.crashed" not in {line["event"] for line in lines}


async def test_an_error_of_a_further_service_passes_through(echo, stub_of) -> None:
    """A handler that does not catch what its own call raised hands it on unchanged."""
    async with running(echo.register) as behind, behind.connect() as inner:

        async def forward(request, context):
            return await stub_of(inner).unary(request)

        echo_front = type(echo)()
        echo_front.unary = forward
        async with running(echo_front.register) as front, front.connect() as channel:
            with pytest.raises(MeshError) as caught:
                await stub_of(channel).unary(b"fail")
    assert caught.value.reason is Reason.PARAMETER_INVALID
    assert dict(caught.value.metadata) == {"parameter": "top_p"}


async def test_a_plain_client_gets_status_and_one_error_info(echo, stub_of) -> None:
    """Callers without our channels see standard rich errors."""
    async with running(echo.register) as server, grpc.aio.insecure_channel(server.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub_of(channel).unary(b"fail", timeout=10)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == "top_p: 3: accepted: 0..1"
    assert [key for key, _ in caught.value.trailing_metadata()].count("grpc-status-details-bin") == 1


async def test_nobody_there_is_unavailable(echo, stub_of) -> None:
    """A dead address is UPSTREAM_UNAVAILABLE, and retryable."""
    async with running(echo.register) as server:
        channel = server.connect()
    async with channel:
        with pytest.raises(MeshError) as caught:
            await stub_of(channel).unary(b"x")
    assert caught.value.reason is Reason.UPSTREAM_UNAVAILABLE
    assert caught.value.status.retryable


async def test_a_method_that_is_not_served(echo) -> None:
    """A call to an unknown method is NOT_IMPLEMENTED and creates no metric."""
    async with running(echo.register) as server, server.connect() as channel:
        with pytest.raises(MeshError) as caught:
            await channel.unary_unary("/serin.test.v1.EchoService/Nothing")(b"", timeout=5)
    assert caught.value.reason is Reason.NOT_IMPLEMENTED


async def test_writing_to_a_call_that_failed_gives_its_error(echo, stub_of) -> None:
    """Whoever only writes learns why the call is over, not merely that it is."""
    async with running(echo.register) as server, server.connect() as channel:
        call = stub_of(channel).chat()
        await call.write(b"fail")
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(MeshError, match="top_p"):
            await call.write(b"more")
        fine = stub_of(channel).chat()
        await fine.done_writing()
        assert await fine.code() is grpc.StatusCode.OK
        with pytest.raises(asyncio.InvalidStateError):
            await fine.write(b"more")


async def refused_while_writing(stub, by_hand: bool) -> Reason:
    """Write without end to a service that refuses; the reason that is met."""

    async def requests():
        while True:
            yield b"x"

    async def write_by_hand(call):
        while True:
            await call.write(b"x")

    with pytest.raises(MeshError) as caught:
        await (write_by_hand(stub.chat()) if by_hand else stub.collect(requests()))
    return caught.value.reason


@pytest.mark.parametrize("by_hand", [True, False])
async def test_a_refusal_reaches_a_caller_that_is_writing(echo, stub_of, by_hand: bool) -> None:
    """Whichever comes first, the status or the write that fails because of it: the reason is the service's."""

    async def refuse(requests, context):
        raise MeshError(Reason.REGISTRATION_INVALID, "model: '': accepted: a name")

    async def refuse_stream(requests, context):
        raise MeshError(Reason.REGISTRATION_INVALID, "model: '': accepted: a name")
        yield

    echo.collect, echo.chat = refuse, refuse_stream
    async with running(echo.register) as server, server.connect() as channel:
        met = {await refused_while_writing(stub_of(channel), by_hand) for _ in range(100)}
    assert met == {Reason.REGISTRATION_INVALID}


async def test_local_cancel_is_cancellation(echo, stub_of) -> None:
    """Whoever cancels a call himself gets CancelledError, as everywhere in asyncio."""
    async with running(echo.register) as server, server.connect() as channel:
        call = stub_of(channel).unary(b"hang")
        waiting = asyncio.ensure_future(call)
        await echo.started.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await echo.cancelled.wait()


def as_rpc_error(status: grpc.Status) -> grpc.aio.AioRpcError:
    """A status as a client meets it."""
    trailing = grpc.aio.Metadata(*status.trailing_metadata)
    return grpc.aio.AioRpcError(status.code, grpc.aio.Metadata(), trailing, status.details)
