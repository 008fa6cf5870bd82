"""The breaker: a slow or dead store costs a budget at most, and soon nothing."""

import asyncio

import pytest
from serin_mesh.breaker import BreakerState, CircuitBreaker, Unavailable


class Clock:
    """Seconds that pass when a test says so."""

    now = 0.0

    def __call__(self) -> float:
        """Now."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock that a test moves."""
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> CircuitBreaker:
    """Opens after two failures, for a second."""
    return CircuitBreaker("redis", max_failures=2, rest_s=1.0, clock=clock)


async def dead() -> None:
    """A store that is not there."""
    raise ConnectionRefusedError


async def fine() -> str:
    """A store that answers."""
    return "value"


async def test_results_pass(breaker) -> None:
    """A healthy store is simply called."""
    assert await breaker.call(fine) == "value"
    assert breaker.state is BreakerState.CLOSED


async def test_a_hanging_call_ends_with_its_budget(breaker) -> None:
    """The operation is cancelled and its caller goes on without it."""
    cancelled = asyncio.Event()

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(Unavailable, match=r"redis: TimeoutError within 0\.05 s"):
        await breaker.call(hang)
    assert cancelled.is_set()


async def test_failures_in_a_row_open_it(breaker) -> None:
    """Open: nothing is tried any more. A success in between starts the count again."""
    with pytest.raises(Unavailable) as caught:
        await breaker.call(dead)
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
    await breaker.call(fine)
    with pytest.raises(Unavailable):
        await breaker.call(dead)
    assert breaker.state is BreakerState.CLOSED
    with pytest.raises(Unavailable):
        await breaker.call(dead)
    assert breaker.state is BreakerState.OPEN

    async def never() -> None:
        raise AssertionError("tried while open")

    with pytest.raises(Unavailable, match="not tried"):
        await breaker.call(never)


async def opened(breaker: CircuitBreaker) -> None:
    """Fail until it is open."""
    for _ in range(2):
        with pytest.raises(Unavailable):
            await breaker.call(dead)


async def test_after_a_rest_one_call_tries(breaker, clock) -> None:
    """One trial at a time; its success closes the breaker, its failure opens it again."""
    await opened(breaker)
    clock.now = 1.0
    assert breaker.state is BreakerState.HALF_OPEN
    with pytest.raises(Unavailable):
        await breaker.call(dead)
    assert breaker.state is BreakerState.OPEN
    clock.now = 2.0
    go = asyncio.Event()
    trial = asyncio.create_task(breaker.call(go.wait))
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="not tried"):
        await breaker.call(fine)
    go.set()
    assert await trial is True
    assert breaker.state is BreakerState.CLOSED


async def test_a_caller_that_leaves_says_nothing_about_the_store(breaker, clock) -> None:
    """Cancellation passes through, counts for nothing, and frees the trial."""
    await opened(breaker)
    clock.now = 1.0
    trial = asyncio.create_task(breaker.call(asyncio.Event().wait))
    await asyncio.sleep(0)
    trial.cancel()
    with pytest.raises(asyncio.CancelledError):
        await trial
    assert breaker.state is BreakerState.HALF_OPEN


async def test_other_exceptions_prove_that_it_answers(breaker) -> None:
    """A programming error is the caller's, not the store's."""

    async def wrong() -> None:
        raise KeyError("x")

    for _ in range(5):
        with pytest.raises(KeyError):
            await breaker.call(wrong)
    assert breaker.state is BreakerState.CLOSED
