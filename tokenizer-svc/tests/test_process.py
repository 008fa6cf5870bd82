"""The service as a process: it starts without torch, stays small, says what is wrong, and leaves nothing behind."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest
import tokenizer_folders as folders
from serin.tokenizer.v1 import tokenizer_pb2 as pb
from serin.tokenizer.v1 import tokenizer_pb2_grpc
from serin_mesh.channels import connect
from serin_mesh.settings import ServiceSettings

MAX_RSS_BYTES = 120 << 20


@pytest.fixture
def no_torch(tmp_path):
    """A folder for PYTHONPATH in which importing torch or transformers fails."""
    for name in ("torch", "transformers"):
        (tmp_path / f"{name}.py").write_text(f"raise ImportError('{name} is blocked in this test')")
    return tmp_path


async def start(folder, no_torch, *flags):
    """Start the service; its log on standard output."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "serin_tokenizer_svc",
        *("--model", "small", "--model-path", str(folder), "--log-format", "json", *flags),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": str(no_torch)},
    )


async def line_with(process, event):
    """Read the log up to an event."""
    while True:
        line = await process.stdout.readline()
        assert line, "the process ended early"
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if entry.get("event") == event:
            return entry


def children(pid):
    """Processes started by a process."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def rss_bytes(pid):
    """Resident memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def fetch(address, path):
    """A page over HTTP."""
    host, port = address.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    page = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    return page


async def test_it_runs_without_torch_and_stays_small(model_folders, no_torch):
    """Serve, render, drain on SIGTERM: no torch, little memory, no process left."""
    process = await start(model_folders["byte_level"], no_torch)
    try:
        listening = await line_with(process, "service.listening")
        await line_with(process, "service.ready")
        async with connect(listening["address"], ServiceSettings()) as channel:
            stub = tokenizer_pb2_grpc.TokenizerServiceStub(channel)
            assert (await stub.Encode(pb.EncodeRequest(texts=["hello"]))).runs[0].token_ids
        metrics = await fetch(listening["metrics"], "/metrics")
        assert "serin_tokenizer_encoded_tokens_total" in metrics
        assert "serin_tokenizer_encode_seconds_count 1.0" in metrics
        renderers = children(process.pid)
        assert len(renderers) == 2
        assert rss_bytes(process.pid) < MAX_RSS_BYTES
        assert all(rss_bytes(renderer) < 40 << 20 for renderer in renderers)
        process.send_signal(signal.SIGTERM)
        await process.communicate()
        assert process.returncode == 0
        for renderer in renderers:
            await gone(renderer)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def test_a_killed_service_takes_its_renderers_with_it(model_folders, no_torch):
    """SIGKILL cannot be handled; the render processes see their input end."""
    process = await start(model_folders["byte_level"], no_torch)
    try:
        await line_with(process, "service.ready")
        renderers = children(process.pid)
    finally:
        process.kill()
        await process.communicate()
    for renderer in renderers:
        await gone(renderer)


async def gone(pid):
    """Wait until a process that is not ours has ended."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(handle, ended.set)
    await ended.wait()
    asyncio.get_running_loop().remove_reader(handle)
    os.close(handle)


async def fails(no_torch, *flags):
    """Exit status and standard error of a service that does not start."""
    command = [sys.executable, "-m", "serin_tokenizer_svc", "--model", "small", *flags]
    pipe = asyncio.subprocess.PIPE
    environment = {**os.environ, "PYTHONPATH": str(no_torch)}
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, env=environment)
    _, error = await process.communicate()
    return process.returncode, error.decode().splitlines()


@pytest.mark.parametrize(("path", "said"), [("/no/such/folder", "no such folder"), ("", "--model-path")])
async def test_a_wrong_path_is_one_line_and_status_2(path, said, no_torch):
    """The line names the flag, the value and what is accepted."""
    status, lines = await fails(no_torch, "--model-path", path)
    assert status == 2
    assert len(lines) == 1
    assert lines[0].startswith("serin-tokenizer-svc: --model-path")
    assert said in lines[0]
    assert "accepted" in lines[0]


async def test_a_broken_template_is_one_line_and_status_2(tmp_path, no_torch):
    """The line names the template's own line."""
    folder = folders.make("byte_level", tmp_path / "models", chat_template="fine\n{% if %}")
    status, lines = await fails(no_torch, "--model-path", str(folder))
    assert status == 2
    assert lines[-1].startswith("serin-tokenizer-svc: --model-path")
    assert "line 2" in lines[-1]
