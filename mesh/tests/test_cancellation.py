"""Lost cancels are raised after all, and nothing else changes."""

import asyncio

import pytest
from serin_mesh.cancellation import cancels_kept


async def swallow(go: asyncio.Event) -> str:
    """A call of somebody's code that passes over one cancel."""
    try:
        await go.wait()
    except asyncio.CancelledError:
        return "as if nothing had been"
    return "done"


async def fail_instead(go: asyncio.Event) -> None:
    """A call of somebody's code that turns a cancel into an error of its own."""
    try:
        await go.wait()
    except asyncio.CancelledError:
        raise ConnectionError("the socket was closed") from None


@pytest.mark.parametrize("call", [swallow, fail_instead])
async def test_a_lost_cancel_is_raised(call):
    """A loop around such calls ends when it is cancelled once."""
    inside = asyncio.Event()

    async def loop() -> None:
        while True:
            with cancels_kept():
                inside.set()
                await call(asyncio.Event())

    task = asyncio.create_task(loop())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancel_at_the_moment_a_wait_ends_is_kept():
    """The case that clients of databases bring about: a future ends and its waiter is cancelled in one tick."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def wait() -> str:
        with cancels_kept():
            await asyncio.wait_for(future, 60)
        return "went on"

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    future.set_result(None)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_everything_else_passes():
    """Results, errors and time-outs are as without it."""
    with cancels_kept():
        assert await asyncio.wait_for(asyncio.sleep(0, "result"), 60) == "result"
    with pytest.raises(ConnectionError), cancels_kept():
        raise ConnectionError
    with pytest.raises(TimeoutError):
        await _too_late()


async def _too_late() -> None:
    async with asyncio.timeout(0.001):
        with cancels_kept():
            await asyncio.Event().wait()


async def test_a_task_that_ends_after_its_cancel_may_call():
    """What a cancelled task does at its end is not cancelled again."""
    cleaned = False

    async def work() -> None:
        nonlocal cleaned
        try:
            await asyncio.Event().wait()
        finally:
            with cancels_kept():
                await asyncio.sleep(0)
            cleaned = True

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cleaned
