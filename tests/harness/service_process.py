"""One service of ours as a process by its own command, until it serves. Knows no service in particular."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from serin_mesh.errors import MeshError
from serin_mesh.health import check
from serin_mesh.testing import free_port

from harness.eventually import eventually
from harness.leash import leashed

STOP_TIMEOUT_S = 30.0


class ServiceDied(Exception):
    """The process ended before it served; the message holds what it printed."""


@asynccontextmanager
async def service_process(
    module: str, *flags: str, folder: Path, service: str = "", tls_dir: Path | None = None
) -> AsyncIterator[str]:
    """Run `python -m MODULE FLAGS` on a free port; gives its ``host:port`` once it says SERVING.

    Args:
        module: what to run.
        flags: its settings, without ``--port``.
        folder: where its log goes.
        service: who its certificate names, for the health check.
        tls_dir: certificates that the health check shows.
    """
    address = f"127.0.0.1:{free_port()}"
    log = folder / f"{module}.log"
    command = [sys.executable, "-m", module, "--port", address.rpartition(":")[2], *flags]
    process = _start(command, log)

    async def health() -> str:
        if process.poll() is not None:
            raise ServiceDied(f"{module} ended with {process.returncode}:\n{log.read_text(errors='replace')}")
        try:
            return await check(address, service, tls_dir=tls_dir)
        except MeshError as error:
            return error.message

    try:
        await eventually(health, lambda status: status == "SERVING", f"{module} serving", timeout_s=60)
        yield address
    finally:
        process.terminate()
        try:
            await asyncio.to_thread(process.wait, STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            await asyncio.to_thread(process.wait)
            raise


def _start(command: list[str], log: Path) -> "subprocess.Popen[bytes]":
    with log.open("wb") as output:
        return subprocess.Popen(leashed(command), stdout=output, stderr=output, start_new_session=True)
