"""A circuit breaker with a time budget, for calls that are worth making only while they are quick.

Knows nothing about what is called. Callers go on without the answer when it raises.
"""

import asyncio
import enum
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


class Unavailable(Exception):
    """The operation was not tried, failed, or took longer than its budget; ``__cause__`` says which."""


class BreakerState(enum.StrEnum):
    """CLOSED: calls go through. OPEN: none does. HALF_OPEN: one at a time does, to see."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class CircuitBreaker:
    """Gives each call a budget, and stops calling for a while after several failures in a row.

    Args:
        name: what is called, for messages.
        failures: exceptions that count as failures; others pass through and prove that the other side answers.
        budget_s: most seconds a call may take, waiting for anything included.
        max_failures: failures in a row after which it opens.
        rest_s: seconds that it stays open before one call tries again.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        name: str,
        *,
        failures: tuple[type[Exception], ...] = (OSError,),
        budget_s: float = 0.05,
        max_failures: int = 3,
        rest_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.budget_s = budget_s
        self._failures: tuple[type[Exception], ...] = (TimeoutError, *failures)
        self._max_failures = max_failures
        self._rest_s = rest_s
        self._clock = clock
        self._num_failures = 0
        self._opened_at: float | None = None
        self._trying = False

    @property
    def state(self) -> BreakerState:
        """Whether calls go through now."""
        if self._opened_at is None:
            return BreakerState.CLOSED
        rested = self._clock() - self._opened_at >= self._rest_s
        return BreakerState.HALF_OPEN if rested and not self._trying else BreakerState.OPEN

    async def call(self, operation: Callable[[], Awaitable[T]]) -> T:
        """The operation's result.

        Raises:
            Unavailable: the breaker is open, or the operation failed or was too slow.
        """
        state = self.state
        if state is BreakerState.OPEN:
            raise Unavailable(f"{self.name}: not tried: it failed {self._num_failures} times in a row")
        is_trial = state is BreakerState.HALF_OPEN
        self._trying = self._trying or is_trial
        try:
            async with asyncio.timeout(self.budget_s):
                result = await operation()
        except self._failures as error:
            self._fail()
            raise Unavailable(f"{self.name}: {type(error).__name__} within {self.budget_s:g} s") from error
        except asyncio.CancelledError:
            raise  # the caller left; that says nothing about the other side
        except Exception:
            self._succeed()
            raise
        finally:
            if is_trial:
                self._trying = False
        self._succeed()
        return result

    def _fail(self) -> None:
        self._num_failures += 1
        if self._opened_at is not None or self._num_failures >= self._max_failures:
            self._opened_at = self._clock()

    def _succeed(self) -> None:
        self._num_failures = 0
        self._opened_at = None
