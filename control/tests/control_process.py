"""Control planes as processes: started, heard until they listen, and ended in order."""

import asyncio
import json
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path

PATIENCE_S = 60  # a bound on hanging, far beyond any wait of a loaded machine


class Process:
    """A control plane process that said where it listens."""

    def __init__(self, process: asyncio.subprocess.Process, address: str, metrics_address: str) -> None:
        self.process = process
        self.address = address
        self.metrics_address = metrics_address

    @property
    def rss_bytes(self) -> int:
        """Resident memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024

    async def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        await self.process.wait()


async def spawn(*flags: str) -> asyncio.subprocess.Process:
    """Start one."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "faulthandler", "-m", "serin_control", "--log-format", "json", *flags),
        stderr=asyncio.subprocess.PIPE,
    )


@asynccontextmanager
async def control_process(*flags: str):
    """A control plane that listens; what it logs after that is read and dropped."""
    process = await spawn(*flags)
    while line := await process.stderr.readline():
        said = json.loads(line)
        if said["event"] == "service.listening":
            break
    else:
        raise AssertionError("it ended without listening")
    reader = asyncio.create_task(process.stderr.read())
    try:
        yield Process(process, said["address"], said["metrics"])
    finally:
        if process.returncode is None:
            process.terminate()
            await ended(process, reader)
        await reader


async def ended(process: asyncio.subprocess.Process, reader: "asyncio.Task[bytes]") -> None:
    """Wait for an orderly end; one that hangs in its drain is killed, and what it said and where it hangs is shown."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            code = await process.wait()
    except TimeoutError:
        process.send_signal(signal.SIGABRT)
        raise AssertionError(f"it hangs in its drain; it said: {(await reader).decode()[-4000:]}") from None
    assert code == 0, (await reader).decode()[-4000:]
