"""Gateway processes beside the one that a mesh has. Knows their command line, nothing about what they are asked."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
from serin_mesh.testing import free_port

from harness.leash import leashed
from harness.running_mesh import RunningMesh

STOP_TIMEOUT_S = 30.0


@contextmanager
def process(
    command: list[str], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that is gone in the end; ``environment`` is added to this one's."""
    with log.open("wb") as output:
        running = subprocess.Popen(
            leashed(command), stdout=output, stderr=output, start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
        )  # fmt: skip
    try:
        yield running
    finally:
        running.terminate()
        try:
            running.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


@contextmanager
def further_gateway(
    mesh: RunningMesh, name: str, folder: Path, *flags: str
) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """One more gateway of a mesh: its URL, and its process; it may not listen yet."""
    port = free_port()
    command = [
        sys.executable, "-m", "serin_gateway", "--instance", name, "--http-port", str(port), "--port", "0",
        "--control", mesh.control, "--mesh-secret-file", str(mesh.state / "mesh.secret"),
        "--state-redis", mesh.record["state_redis"], *flags,
    ]  # fmt: skip
    with process(command, folder / f"{name}.log") as running:
        yield f"http://127.0.0.1:{port}", running


async def serves(client: httpx.AsyncClient, base: str, model: str) -> bool:
    """Whether a gateway answers for a model."""
    try:
        return bool((await client.get(f"{base}/v1/models/{model}")).json().get("ready", False))
    except (httpx.TransportError, ValueError):
        return False
