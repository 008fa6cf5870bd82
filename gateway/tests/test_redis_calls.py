"""Calls of the state Redis end in time, and a cancel of who waits is never lost."""

import asyncio

import pytest
from serin_gateway.redis_calls import in_time


class Down(Exception):
    """What the store says."""


async def lost_cancel() -> None:
    """A client that passes over a cancel."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        return


async def test_a_loop_of_calls_ends_with_its_first_cancel():
    """What the client passes over is raised after all: whoever stops waits for this."""

    async def loop() -> None:
        while True:
            await in_time(lost_cancel(), 60, Down)

    task = asyncio.create_task(loop())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_takes_too_long_is_down():
    """And says so as its store does."""
    with pytest.raises(Down, match="TimeoutError"):
        await in_time(asyncio.Event().wait(), 0.01, Down)
