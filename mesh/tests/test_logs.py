"""Logs: JSON for machines, one canonical line a call, and nothing of what was asked."""

import asyncio
import io
import json
import logging

import pytest
from serin_mesh import logs
from serin_mesh.errors import MeshError
from serin_mesh.logs import configure_logs
from serin_mesh.settings import ServiceSettings
from serin_mesh.testing import running

CANARY = "canary-4f1b-open-sesame"


@pytest.fixture
def written(quiet_logs):
    """What a process writes, as configured for production."""
    stream = io.StringIO()
    configure_logs("worker", ServiceSettings(instance="w1", log_format="json"), stream)
    return stream


def lines_of(stream: io.StringIO) -> list[dict]:
    """What was written, parsed."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object(written) -> None:
    """Time, level and event first, then who, then the facts."""
    logs.get().info("block.stored", num_blocks=3)
    (line,) = lines_of(written)
    assert list(line)[:3] == ["timestamp", "level", "event"]
    assert (line["event"], line["service"], line["instance"], line["num_blocks"]) == ("block.stored", "worker", "w1", 3)


def test_what_libraries_warn_of_is_said_with_its_facts(written) -> None:
    """The first line, its arguments in it."""
    logging.getLogger("library").warning("no %s here, using %d\nmore", "compiler", 2)
    (line,) = lines_of(written)
    assert (line["event"], line["logger"], line["message"]) == (
        "library.warned",
        "library",
        "no compiler here, using 2",
    )


def test_what_is_no_json_is_written_as_it_is_shown(written) -> None:
    """No line is lost over a value."""
    logs.get().info("odd", large=2**80, half="\ud800", thing=Exception("x"))
    (line,) = lines_of(written)
    assert (line["large"], line["half"], line["thing"]) == (2**80, "\ud800", "Exception('x')")


def test_level_is_the_least_that_is_written() -> None:
    """Below it nothing is formatted or written."""
    stream = io.StringIO()
    configure_logs("worker", ServiceSettings(log_format="json", log_level="error"), stream)
    logs.get().warning("x")
    assert not stream.getvalue()


def test_a_terminal_gets_text() -> None:
    """``auto`` looks at the stream; people need no JSON."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    configure_logs("worker", ServiceSettings(), terminal)
    logs.get().info("block.stored", num_blocks=3)
    assert "block.stored" in terminal.getvalue()
    with pytest.raises(json.JSONDecodeError):
        json.loads(terminal.getvalue())


async def test_one_canonical_line_for_each_call(written, echo, stub_of) -> None:
    """Method, code, seconds, caller, request id; reason when it failed; lane when it had one."""
    async with running(echo.register) as server, server.connect() as channel:
        stub = stub_of(channel)
        await stub.unary(b"x", metadata=(("serin-request-id", "req-1"), ("serin-lane", "abc")))
        with pytest.raises(MeshError):
            async for _ in stub.stream(b"fail"):
                pass
    first, second = (line for line in lines_of(written) if line["event"] == "rpc.finished")
    assert first["method"] == "serin.test.v1.EchoService/Unary"
    assert (first["code"], first["caller"], first["request_id"], first["lane"]) == ("OK", "loopback", "req-1", "abc")
    assert first["seconds"] >= 0
    assert len(first["trace_id"]) == 32
    assert (second["code"], second["reason"]) == ("INVALID_ARGUMENT", "PARAMETER_INVALID")


async def test_a_cancelled_and_a_late_call_say_so(written, echo, stub_of) -> None:
    """Whether the caller left or ran out of time is told apart."""
    async with running(echo.register) as server, server.connect() as channel:
        call = stub_of(channel).unary(b"hang")
        waiting = asyncio.ensure_future(call)
        await echo.started.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await echo.cancelled.wait()
        with pytest.raises(MeshError, match="DEADLINE"):
            await stub_of(channel).unary(b"hang", timeout=0.05)
    ends = [(line["code"], line["reason"]) for line in lines_of(written) if line["event"] == "rpc.finished"]
    assert ends == [("CANCELLED", "CANCELLED"), ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")]


async def test_lines_of_a_handler_carry_the_request(written, echo, stub_of) -> None:
    """Whatever a handler logs can be found by request id, and the next call does not inherit it."""

    async def unary(request, context):
        logs.get().info("inside")
        return b""

    echo.unary = unary
    async with running(echo.register) as server, server.connect() as channel:
        for identifier in ("req-1", "req-2"):
            await stub_of(channel).unary(b"x", metadata=(("serin-request-id", identifier),))
    assert [line["request_id"] for line in lines_of(written) if line["event"] == "inside"] == ["req-1", "req-2"]


async def test_a_secret_in_a_request_is_never_logged(written, echo, stub_of) -> None:
    """Neither requests nor metadata, exceptions, library warnings or lost tasks put it into a log."""
    async with running(echo.register) as server, server.connect() as channel:
        stub = stub_of(channel)
        secret = (("authorization", f"Bearer {CANARY}"), ("x-note", CANARY))
        await stub.unary(CANARY.encode(), metadata=secret)
        for text in (f"crash {CANARY}", f"fail {CANARY}"):
            with pytest.raises(MeshError):
                await stub.unary(text.encode(), metadata=secret)
            with pytest.raises(MeshError):
                async for _ in stub.stream(text.encode(), metadata=secret):
                    pass
    try:
        raise ValueError(CANARY)
    except ValueError as error:
        logs.get().exception("handler.failed")
        logging.getLogger("library").exception("it failed")
        asyncio.get_running_loop().call_exception_handler(
            {"message": "Task exception was never retrieved", "exception": error, "future": CANARY}
        )
    text = written.getvalue()
    assert CANARY not in text
    failed = [line for line in lines_of(written) if line.get("error") == "ValueError"]
    assert {line["event"] for line in failed} == {"rpc.crashed", "handler.failed", "library.warned"}
    assert all(any("conftest.py" in place or "test_logs.py" in place for place in line["place"]) for line in failed)


def test_our_own_messages_are_logged(written) -> None:
    """A MeshError or an OSError says what to do; that is not withheld."""
    try:
        raise FileNotFoundError(2, "No such file or directory", "model.safetensors")
    except OSError:
        logs.get().exception("load.failed")
    assert "model.safetensors" in lines_of(written)[0]["message"]
