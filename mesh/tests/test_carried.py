"""Calls inside a call: each is served as if it had come by itself."""

import asyncio

import pytest
import structlog
from serin_mesh.call import LANE_KEY, REQUEST_KEY, caller, remaining_s, request_id
from serin_mesh.carried import CarriedCalls
from serin_mesh.errors import MeshError, Reason
from serin_mesh.testing import running

METHOD = "/serin.test.v1.EchoService/Inner"


@pytest.mark.parametrize("fault", [TimeoutError("of a layer"), ValueError("of a layer")])
async def test_a_fault_that_no_layer_translates_is_told(fault):
    """Also a timeout that is not the call's own: it ends as INTERNAL, is logged, and leaves nobody waiting."""

    async def broken(asked: str) -> None:
        raise fault

    calls = CarriedCalls(METHOD, broken, None)  # outside of a served call: there is no layer
    with structlog.testing.capture_logs() as logged:
        failure = await calls.serve("x", {}, 60, lambda lane: None)
    assert failure.reason is Reason.INTERNAL
    assert "of a layer" not in failure.message
    assert [(line["event"], line["method"]) for line in logged] == [("rpc.crashed", METHOD[1:])]


async def test_each_has_identity_deadline_lane_and_log_line_of_its_own(echo, stub_of):
    """And fails alone, with a reason; a foreign error is an internal one, and none is served without a deadline."""
    seen, lanes, outcomes = {}, [], {}

    async def inner(asked: str) -> None:
        seen[asked] = (request_id(), remaining_s(), caller().trusted)
        if asked == "refused":
            raise MeshError(Reason.QUEUE_FULL, "full", retry_after_s="1")
        if asked == "broken":
            raise ValueError("inside")
        if asked == "slow":
            await asyncio.Event().wait()

    async def carry(request, context):
        calls = CarriedCalls(METHOD, inner, context)

        async def one(asked: str, timeout_s: float | None) -> None:
            metadata = {REQUEST_KEY: f"req-{asked}", LANE_KEY: "lane-a"}
            outcomes[asked] = await calls.serve(asked, metadata, timeout_s, lanes.append)

        await asyncio.gather(
            one("good", 5), one("refused", 5), one("broken", 5), one("slow", 0.01), one("unbounded", None)
        )
        return b""

    echo.unary = carry
    with structlog.testing.capture_logs() as logged:
        async with running(echo.register) as server, server.connect() as channel:
            await stub_of(channel).unary(b"x")
    assert outcomes["good"] is None
    assert (outcomes["refused"].reason, outcomes["refused"].metadata["retry_after_s"]) == (Reason.QUEUE_FULL, "1")
    assert outcomes["broken"].reason is Reason.INTERNAL
    assert "inside" not in outcomes["broken"].message
    assert outcomes["slow"].reason is Reason.DEADLINE_EXCEEDED
    assert outcomes["unbounded"].reason is Reason.DEADLINE_MISSING
    assert set(seen) == {"good", "refused", "broken", "slow"}
    name, left_s, is_trusted = seen["good"]
    assert (name, is_trusted) == ("req-good", True)
    assert 0 < left_s <= 5
    assert lanes == ["lane-a"] * 4
    lines = [line for line in logged if line["event"] == "rpc.finished" and line["method"] == METHOD[1:]]
    assert sorted(line["code"] for line in lines) == [
        "DEADLINE_EXCEEDED",
        "INTERNAL",
        "INVALID_ARGUMENT",
        "OK",
        "RESOURCE_EXHAUSTED",
    ]
