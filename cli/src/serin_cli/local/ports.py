"""Ports of this machine: which are taken, and one that is free and stays free.

Knows nothing about who wants them.
"""

import asyncio
import contextlib
import errno
import random
import socket

import psutil

from serin_cli.errors import StartRefused, UsageProblem

# Below the range from which systems take ports of outgoing connections, so that a service that starts again finds its
# port as it left it.
LOWEST, HIGHEST = 20_000, 29_999
NUM_TRIES = 200


def free_port(host: str = "127.0.0.1") -> int:
    """A port nobody listens on.

    Raises:
        StartRefused: none was found.
    """
    for _ in range(NUM_TRIES):
        port = random.randint(LOWEST, HIGHEST)
        if _is_free(host, port):
            return port
    raise StartRefused(f"no free port found on {host} between {LOWEST} and {HIGHEST}; stop what listens there")


class PortClaims:
    """The ports a mesh has taken; wanting the same again gives the same port, though it is in use by then."""

    def __init__(self) -> None:
        self._claimed: dict[str, tuple[int, int]] = {}

    def claim(self, flag: str, port: int) -> int:
        """A port for a flag; raises what :func:`claim` raises, and UsageProblem for another flag's port."""
        wanted, given = self._claimed.get(flag, (-1, -1))
        if wanted != port:
            others = {taken: other for other, (_, taken) in self._claimed.items() if other != flag}
            if port in others:
                raise UsageProblem.setting(flag, port, f"another port than {others[port]}, or 0: any free one")
            given = claim(flag, port)
            while given in others:  # a random one that has an owner who does not listen yet
                given = claim(flag, port)
            self._claimed[flag] = (port, given)
        return given


def claim(flag: str, port: int, host: str = "127.0.0.1") -> int:
    """The port itself if it is free; 0: any free one.

    Raises:
        UsageProblem: it may not be listened on.
        StartRefused: somebody listens on it.
    """
    if port == 0:
        return free_port(host)
    try:
        if _is_free(host, port):
            return port
    except PermissionError as error:
        raise UsageProblem.setting(flag, port, "a port this user may listen on (1024 and above), or 0: any") from error
    raise StartRefused(f"{flag}: port {port} is in use{_owner(port)}; choose another, or {flag} 0 for any free one")


async def is_listening(port: int, host: str = "127.0.0.1") -> bool:
    """Whether somebody accepts connections on a port."""
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


def _is_free(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
    return True


def _owner(port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,) and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (process {connection.pid})"
    except (psutil.Error, OSError):
        pass
    return ""
