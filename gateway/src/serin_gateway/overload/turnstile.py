"""Lets answers of one model through, as many at once as its limit says; the others wait in line or are refused.

Refused early is refused kindly: whoever would wait longer than it has time for hears so at once. Knows nothing about
workers or doors.
"""

import asyncio
import math
from collections.abc import Callable

from serin_mesh.errors import MeshError, Reason

from serin_gateway.overload.limit import ConcurrencyLimit
from serin_gateway.overload.line import Ticket, WaitingLine

RATE_OVER_S = 5.0
"""The rate at which answers end is that of about so long."""
ANSWER_SHARE = 0.05
"""Of the last answer in how long answers take."""
MAX_RETRY_AFTER_S = 60


class Turnstile:
    """The way to one model's workers.

    Args:
        max_waiting: requests that may wait, of one priority.
        clock: seconds that only go forward.
        on_refused: told of each request that is refused, and why: ``full`` or ``late``.
    """

    def __init__(
        self, max_waiting: int, clock: Callable[[], float], on_refused: Callable[[str], None] = lambda _: None
    ) -> None:
        self.limit = ConcurrencyLimit(clock)
        self.num_running = 0
        self.line: WaitingLine[asyncio.Future[None]] = WaitingLine(max_waiting)
        self._clock = clock
        self._on_refused = on_refused
        self._rate = self._answer_s = 0.0
        self._rated_at = clock()

    async def enter(self, tenant: str, priority: int, weight: int, timeout_s: float, *, num_turns: int = 1) -> None:
        """Go through, now or when it is this request's turn; :meth:`leave` follows.

        Where there is a line, whoever would not have its answer in time is refused at once: by the rate at which
        answers end, and how long they take.

        Args:
            tenant: whom to be fair to.
            priority: higher first.
            weight: answers that the request makes.
            timeout_s: time that the request has left.
            num_turns: times that it has to wait and be answered until it is complete, this one included.

        Raises:
            MeshError: QUEUE_FULL, the line is full or longer than ``timeout_s``; DEADLINE_EXCEEDED, it was longer than
                it seemed.
        """
        if not len(self.line) and self._has_room(weight):
            self.num_running += weight
            return
        wait_s = self._expected_wait_s(tenant, priority, weight)
        if num_turns * (wait_s + self._answer_s) > timeout_s:
            self._on_refused("late")
            raise _too_late(wait_s, self._answer_s, num_turns, timeout_s)
        ticket = Ticket(tenant, priority, weight, asyncio.get_running_loop().create_future())
        shed = self.line.join(ticket)
        if shed is not None:
            self._on_refused("full")
            if shed is ticket:
                raise _full(wait_s)
            if not shed.holder.done():  # else it has just left, and will notice in a moment
                shed.holder.set_exception(_full(wait_s))
        try:
            async with asyncio.timeout(timeout_s):
                await ticket.holder
        except TimeoutError:
            self._give_up(ticket)
            raise MeshError(
                Reason.DEADLINE_EXCEEDED, f"waited {timeout_s:.1f} s for a place, all the time that this request had"
            ) from None
        except asyncio.CancelledError:
            self._give_up(ticket)
            raise

    def leave(self, weight: int, took_s: float | None = None) -> None:
        """What :meth:`enter` let through is over; ``took_s``: from there to a whole answer, None: it has none."""
        self.num_running -= weight
        if took_s is not None:
            self._answer_s += (took_s - self._answer_s) * (ANSWER_SHARE if self._answer_s else 1.0)
        now = self._clock()
        passed = now - self._rated_at
        self._rated_at = now
        self._rate = self._rate * math.exp(-passed / RATE_OVER_S) + weight / RATE_OVER_S
        self.advance()

    def advance(self) -> None:
        """Let through whoever may go; called when the limit has changed, too."""
        while (ticket := self.line.first()) is not None and self._has_room(ticket.weight):
            has_just_left = ticket.holder.done()  # and will notice in a moment
            self.line.remove(ticket, served=not has_just_left)
            if not has_just_left:
                self.num_running += ticket.weight
                ticket.holder.set_result(None)

    def _has_room(self, weight: int) -> bool:
        return self.num_running + weight <= self.limit.value or self.num_running == 0

    def _give_up(self, ticket: Ticket[asyncio.Future[None]]) -> None:
        if ticket.is_waiting:
            self.line.remove(ticket)
            self.advance()
        elif ticket.holder.done() and not ticket.holder.cancelled() and ticket.holder.exception() is None:
            self.leave(ticket.weight)  # its turn came in the very moment it gave up

    def _expected_wait_s(self, tenant: str, priority: int, weight: int) -> float:
        """0 while nothing is known about the rate at which answers end."""
        rate = self._rate * math.exp(-(self._clock() - self._rated_at) / RATE_OVER_S)
        if rate * RATE_OVER_S < 1:
            return 0.0
        return (self.line.weight_before(tenant, priority) + weight) / rate


def _retry_after(wait_s: float) -> str:
    return str(min(MAX_RETRY_AFTER_S, max(1, math.ceil(wait_s))))


def _full(wait_s: float) -> MeshError:
    return MeshError(
        Reason.QUEUE_FULL,
        "more is asked than can be answered, and the line for this model is full; try again later",
        retry_after_s=_retry_after(wait_s),
    )


def _too_late(wait_s: float, answer_s: float, num_turns: int, timeout_s: float) -> MeshError:
    often = f", {num_turns} times over" if num_turns > 1 else ""
    return MeshError(
        Reason.QUEUE_FULL,
        f"more is asked than can be answered: the line for this model takes about {wait_s:.1f} s and an answer "
        f"{answer_s:.1f} s{often}, this request has {timeout_s:.1f} s; try again later, or allow more time",
        retry_after_s=_retry_after(wait_s),
    )
