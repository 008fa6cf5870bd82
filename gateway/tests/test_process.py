"""The gateway as a process: its settings, its start, its end."""

import asyncio
import contextlib
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from redis.asyncio import Redis
from serin.control.v1 import lane_pb2, registry_pb2
from serin_gateway.__main__ import PROGRAM
from serin_gateway.keys import RedisKeyStore, Role, key_secret, mint_key
from serin_gateway.settings import GatewaySettings
from serin_mesh.settings import load_settings
from serin_mesh.testing import ControlTwin, running
from valkey_process import Valkey

START_S = 60


@dataclass
class Process:
    """A running gateway."""

    process: asyncio.subprocess.Process
    rest: str
    log: list[str]


async def run(*flags: str) -> tuple[int, str]:
    """Run to the end; exit status and stderr."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "serin_gateway", *flags, stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(START_S):
        out, err = await process.communicate()
    return process.returncode or 0, (err or out).decode()


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    """A mesh secret."""
    path = tmp_path / "secret"
    path.write_text(secrets.token_hex(32))
    return path


@pytest.fixture
async def control() -> AsyncIterator[tuple[ControlTwin, str]]:
    """A control plane that publishes what it is told, and its address."""
    twin = ControlTwin(heartbeat_s=0.2)
    async with running(twin.register, "control") as host:
        yield twin, host.address


@contextlib.asynccontextmanager
async def started(*flags: str) -> AsyncIterator[Process]:
    """A gateway that listens; ended in any case."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "serin_gateway", "--http-port", str(port), "--log-format", "json", *flags,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    log: list[str] = []

    async def read() -> None:
        assert process.stderr is not None
        while line := await process.stderr.readline():
            log.append(line.decode())

    reading = asyncio.create_task(read())
    try:
        yield Process(process, f"http://127.0.0.1:{port}", log)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await reading


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--http-port", "abc"], ["--http-port", "'abc'", "65535"]),
        (["--http-port", "70000"], ["--http-port", "70000"]),
        (["--colour", "red"], ["--colour", "unknown"]),
        (["--state-redis", "http://x"], ["--state-redis", "http://x"]),
        (["--organization", "A B"], ["--organization"]),
    ],
)
def test_a_bad_setting_is_one_line(flags, words, capsys):
    """Key, value, what is accepted; exit status 2."""
    with pytest.raises(SystemExit) as ended:
        load_settings(GatewaySettings, flags, PROGRAM)
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert len(said.strip().splitlines()) == 1, said
    assert all(word in said for word in words), said


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--http-port", "abc"], ["--http-port", "'abc'", "65535"]),
        (["--http-host", "0.0.0.0"], ["0.0.0.0", "--tls-dir"]),
        (["--control", "127.0.0.1:1"], ["--mesh-secret-file"]),
    ],
)
async def test_settings_that_do_not_fit_are_one_line(flags, words):
    """The same of a process, and of what is wrong only beside other settings."""
    status, said = await run(*flags)
    assert status == 2
    assert len(said.strip().splitlines()) == 1, said
    assert all(word in said for word in words), said


async def test_without_a_control_plane_it_does_not_start(secret_file: Path):
    """There would be nothing to answer with."""
    status, said = await run("--mesh-secret-file", str(secret_file))
    assert status == 2
    assert "--control" in said


async def test_a_port_in_use_is_one_line(secret_file: Path):
    """For REST as for gRPC."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        common = ("--mesh-secret-file", str(secret_file), "--control", "127.0.0.1:1")
        for flags in (("--http-port", port), ("--http-port", "0", "--port", port)):
            status, said = await run(*common, *flags)
            assert status == 1
            assert port in said.splitlines()[-1]


async def test_a_state_redis_that_forgets_is_refused(secret_file: Path, tmp_path: Path):
    """Before anything is served."""
    with Valkey(tmp_path, "--appendonly", "no") as server:
        status, said = await run(
            "--mesh-secret-file", str(secret_file), "--control", "127.0.0.1:1", "--state-redis", server.url,
            "--http-port", "0",
        )  # fmt: skip
    assert status == 2
    assert "appendonly" in said


async def test_from_start_to_drain(secret_file: Path, control, valkey_url: str):
    """Announced with its REST port once there are lanes; a key works; SIGTERM, twice, ends it well."""
    twin, address = control
    key, record = mint_key(key_secret(_read(secret_file)), role=Role.APP)
    async with Redis.from_url(valkey_url) as redis:
        await RedisKeyStore(redis).create(record)
    await twin.publish(lane_pb2.WatchLanesResponse(revision=1, models=[lane_pb2.Model(name="small", aliases=["demo"])]))
    flags = ("--mesh-secret-file", str(secret_file), "--control", address, "--state-redis", valkey_url)
    async with started(*flags, "--instance", "gw-1") as gateway:
        async with asyncio.timeout(START_S):
            announced = await twin.state_of("gw-1", registry_pb2.INSTANCE_STATE_READY)
        assert gateway.rest.endswith(announced.registration.http_endpoint)
        async with httpx.AsyncClient(base_url=gateway.rest, headers={"authorization": f"Bearer {key}"}) as client:
            listed = await client.get("/v1/models")
            assert [model["id"] for model in listed.json()["data"]] == ["demo", "small"]
            body = {"model": "small", "messages": [{"role": "user", "content": "hi"}]}
            ready = await client.get("/ready")
            assert (ready.status_code, ready.json()["state"]) == (503, "waiting"), "nobody is there to answer"
            refused = await client.post("/v1/chat/completions", json=body)
            assert (refused.status_code, refused.json()["error"]["reason"]) == (503, "NOT_READY")
        gateway.process.send_signal(signal.SIGTERM)
        gateway.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(START_S):
            await twin.withdrawn("gw-1")
            assert await gateway.process.wait() == 0
    assert not [line for line in gateway.log if '"error"' in line], gateway.log
    assert sum('"request.finished"' in line for line in gateway.log) == 2
    assert key not in "".join(gateway.log)


def _read(path: Path) -> bytes:
    return path.read_bytes().strip()
