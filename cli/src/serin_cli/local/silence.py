"""Which processes of a mesh hang: they live, are called ready, and answer nothing.

The record cannot know: a process that was stopped (SIGSTOP) or hangs says nothing about itself, and its port still
takes connections. So each is asked itself, all at once. Knows nothing about what is done with the answer.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from serin_mesh.health import answers

from serin_cli.local.board import Phase
from serin_cli.local.names import CACHE_STORE, EDGE, GATEWAY, STATE_STORE
from serin_cli.local.store_policy import await_store
from serin_cli.local.valkey import store_url
from serin_cli.record import MeshRecord
from serin_cli.state_dir import StateDir

ANSWER_S = 2.0

_Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


async def silent(record: MeshRecord, state: StateDir) -> frozenset[str]:
    """Names of the processes that are called ready and do not answer within :data:`ANSWER_S`; takes no longer."""
    ready = [process for process in record.processes if process["phase"] == Phase.READY and process["pid"] is not None]
    answered = await asyncio.gather(*(_answers(process, state) for process in ready))
    return frozenset(process["name"] for process, does in zip(ready, answered, strict=True) if not does)


async def _answers(process: dict[str, Any], state: StateDir) -> bool:
    """Whether a process says anything at all; one that cannot be asked is believed."""
    name, address = process["name"], process["address"]
    try:
        async with asyncio.timeout(ANSWER_S):
            if name in (STATE_STORE, CACHE_STORE):
                await await_store(store_url(name, state))
            elif name == EDGE:
                await _says_something(lambda: asyncio.open_unix_connection(state.socket(EDGE)), "/ready")
            elif name.partition(".")[0] == GATEWAY and address:
                host, _, port = address.rpartition(":")
                await _says_something(lambda: asyncio.open_connection(host, int(port)), "/live")
            elif address:
                return await answers(address, timeout_s=ANSWER_S)
    except (OSError, TimeoutError):
        return False
    return True


async def _says_something(connect: _Connect, path: str) -> None:
    """Ask over HTTP; what is said does not matter.

    Raises:
        OSError: it hangs up without a word, or nobody listens.
    """
    reader, writer = await connect()
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
        if not await reader.read(1):
            raise ConnectionError("hung up")
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
