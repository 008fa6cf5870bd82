"""A service as a process: it says where it listens, drains on the first signal, and fails in one line."""

import asyncio
import contextlib
import json
import signal
import socket
import sys
from pathlib import Path

import grpc
import pytest
from serin_mesh import health
from serin_mesh.channels import connect
from serin_mesh.settings import ServiceSettings

PROGRAM = Path(__file__).with_name("echo_process.py")


class Process:
    """A running service and what it has said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[dict] = []

    async def said(self, event: str) -> dict:
        """Wait for an event in its log."""
        while True:
            text = await self.process.stderr.readline()
            assert text, f"it ended without {event}: {self.lines}"
            self.lines.append(json.loads(text))
            if self.lines[-1]["event"] == event:
                return self.lines[-1]

    async def ended(self) -> tuple[int, str]:
        """Exit status and the rest of what it said."""
        rest = (await self.process.stderr.read()).decode()
        return await self.process.wait(), rest


@contextlib.asynccontextmanager
async def process(*flags: str):
    """A service with these flags, ended at the end."""
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", str(PROGRAM), *flags, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield Process(started)
    finally:
        if started.returncode is None:
            started.kill()
        await started.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_and_a_second_changes_nothing(stub_of, number) -> None:
    """A stream that runs when the signal comes ends normally, although a second signal follows."""
    async with process() as service:
        address = (await service.said("service.listening"))["address"]
        await service.said("service.ready")
        async with connect(address, ServiceSettings()) as channel:
            call = stub_of(channel).stream(b"x")
            assert await call.read() == b"before"
            service.process.send_signal(number)
            await service.said("service.draining")
            service.process.send_signal(number)
            service.process.send_signal(signal.SIGUSR1)  # the handler goes on
            assert [await call.read(), await call.read()] == [b"after", grpc.aio.EOF]
        await service.said("service.stopped")
        assert await service.ended() == (0, "")


async def test_health_from_outside(capsys) -> None:
    """``python -m serin_mesh.health`` tells a loading service, a ready one and a dead one apart."""
    async with process("--startup-hangs") as service:
        address = (await service.said("service.listening"))["address"]
        assert await asyncio.to_thread(health.main, [address]) == 1
        assert capsys.readouterr().out == "NOT_SERVING\n"
        service.process.send_signal(signal.SIGTERM)
        await service.said("service.stopped")
        assert (await service.ended())[0] == 0
    assert await asyncio.to_thread(health.main, [address, "--timeout-s", "5"]) == 1
    assert "UNAVAILABLE" in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as hung:  # connections are taken, nothing is answered
        address = f"127.0.0.1:{hung.getsockname()[1]}"
        assert await asyncio.to_thread(health.main, [address, "--timeout-s", "0.3"]) == 1
    assert "DEADLINE_EXCEEDED" in capsys.readouterr().err
    async with process() as service:
        address = (await service.said("service.listening"))["address"]
        await service.said("service.ready")
        assert await asyncio.to_thread(health.main, [address, "--service", "worker"]) == 0
        assert capsys.readouterr().out == "SERVING\n"


async def test_metrics_over_http() -> None:
    """The metrics port serves what its log line says."""
    async with process() as service:
        host, _, port = (await service.said("service.listening"))["metrics"].rpartition(":")
        await service.said("service.ready")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /ready HTTP/1.1\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        writer.close()


@pytest.mark.parametrize(
    ("flags", "status", "line"),
    [
        (["--port", "abc"], 2, "serin-echo: --port: 'abc': accepted: an integer 0..65535\n"),
        (
            ["--tls-dir", "/absent"],
            2,
            "serin-echo: /absent/ca.pem: No such file or directory; `serin certs` makes it\n",
        ),
        (["--host", "0.0.0.0"], 2, "serin-echo: --host: '0.0.0.0': accepted: a loopback address"),
    ],
)
async def test_what_stops_it_from_starting_is_one_line(flags, status, line) -> None:
    """Exit 2 and a line that says what to do, without a traceback."""
    async with process(*flags) as service:
        code, said = await service.ended()
    assert code == status
    assert said.startswith(line)
    assert said.count("\n") == 1


async def test_a_taken_port_is_one_line() -> None:
    """Exit 1, the port, and what is accepted."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with process("--port", str(port)) as service:
            code, said = await service.ended()
    assert code == 1
    last = said.splitlines()[-1]
    assert last.startswith(f"serin-echo: --port: {port}: cannot listen there")


async def test_a_startup_that_fails_ends_the_process() -> None:
    """It never becomes ready; what failed is in the log, and the status is not 0."""
    async with process("--startup-fails") as service:
        failed = await service.said("service.failed")
        code, rest = await service.ended()
    assert code == 1
    assert "weights.safetensors" in failed["message"]
    assert "Traceback" not in rest


async def test_a_bare_service_is_small() -> None:
    """Every service pays for this room: less than 40 MB of its own before it does anything.

    Pages of libraries are not counted: the services of a machine share them, and how many are in memory is the
    kernel's affair.
    """
    async with process() as service:
        await service.said("service.ready")
        assert own_bytes(service.process.pid) < 40e6


def own_bytes(pid: int) -> int:
    """Memory of a process that is in RAM and backed by no file."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))
