"""Reads server-sent events off an HTTP response, without an SDK between."""

from collections.abc import AsyncIterator

import httpx


async def read_events(response: httpx.Response) -> AsyncIterator[str]:
    """Yield the data of each event."""
    async for line in response.aiter_lines():
        if line.startswith("data: "):
            yield line.removeprefix("data: ")
