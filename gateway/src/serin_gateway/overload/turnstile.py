"""Lets answers of one model through, as many at once as its limit says; the others wait in line or are refused.

A line is fair only to those who stand in it: who holds all that may run, for as long as it likes, is not asked again.
So a tenant for which nothing runs does not wait for that: one request of it goes through beyond the limit, and workers
give it a place of the tenant that has most. Refused early is refused kindly: whoever would wait longer than it has time
for hears so at once. Knows nothing about workers or doors.
"""

import asyncio
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from serin_mesh.errors import MeshError, Reason

from serin_gateway.overload.limit import LATE, ConcurrencyLimit
from serin_gateway.overload.line import Ticket, WaitingLine
from serin_gateway.overload.usual import Usual

RATE_OVER_S = 5.0
"""The rate at which answers end is that of about so long."""
FORESEEN_S = 0.1
"""What is expected to be shorter is no forecast; nor is what is shorter than an answer: those that run may have begun
together, and end together."""
TURNS_TO_KNOW = 2
"""Until so many times what runs has ended since there is work, what ended is mostly what is short."""
MAX_TENANTS = 1024
"""Whose patience is remembered; beyond, all is learned anew."""
LEAST_S = 0.001
FORGET_S = 10.0
"""After so long without work other callers may come, with other times."""
CUT_OFF = 1.25
"""An answer that its caller's time cut off would have taken so many times as long, or more."""
SOONER = 0.75
"""So much of their time answers take, it is assumed, once fewer are made at once because they took too long."""
NEARLY = 0.95
"""Of its time: what was not whole by then was cut off by it."""
MAX_RETRY_AFTER_S = 60


@dataclass(frozen=True, slots=True)
class Entry:
    """What went through: whose, how many answers, how long it may take, since when, and whether beyond the limit."""

    tenant: str
    weight: int
    timeout_s: float = field(default=math.inf, compare=False)
    since: float = field(default=0.0, compare=False)
    is_spare: bool = False


@dataclass(frozen=True, slots=True)
class _Waiter:
    """Who waits in line: how to call it, until when its answer has to be whole, and how long the line had seemed.

    Attributes:
        was_foreseen: whether that was a forecast.
    """

    called: "asyncio.Future[Entry]"
    since: float
    until: float
    expected_s: float
    was_foreseen: bool

    def overrun(self, now: float) -> float:
        """How long it has waited, in parts of how long that had seemed."""
        return (now - self.since) / self.expected_s

    def refuse(self, error: MeshError) -> None:
        """Say that it will not be called, unless it has just left, and will notice in a moment."""
        if not self.called.done():
            self.called.set_exception(error)


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
        """Answers that went through within the limit."""
        self._num_spare = 0
        self._held: Counter[str] = Counter()
        self.line: WaitingLine[_Waiter] = WaitingLine(max_waiting)
        self._clock = clock
        self._on_refused = on_refused
        self._answers = Usual()
        """Seconds from when a request is let through to its whole answer."""
        self._spent: dict[str, Usual] = {}
        """The same in parts of the time that it had, by tenant, of those that began since the limit shrank last."""
        self._spent_since = 0.0
        self._overruns = Usual(before=1.0)
        """How long it was waited, in parts of how long that had seemed."""
        self._rate = 0.0
        self._rated_at = clock()
        self._busy_since = clock()
        self._num_ended = 0
        """Answers since then."""

    async def enter(self, tenant: str, priority: int, weight: int, timeout_s: float, *, num_turns: int = 1) -> Entry:
        """Go through, now or when it is this request's turn; :meth:`leave` follows, with what is returned.

        Where there is a line, whoever would not have its answer in time is refused at once: by the rate at which
        answers end, and how long they take. Where there is none, that happens only while answers come too late. Should
        the line take longer than it seemed, it is refused when its turn comes: an answer that will break off takes
        places from those that would be whole.

        Args:
            tenant: whom to be fair to.
            priority: higher first.
            weight: answers that the request makes.
            timeout_s: time that the request has left.
            num_turns: times that it has to wait and be answered until it is complete, this one included.

        Raises:
            MeshError: QUEUE_FULL, the line is full or longer than there is time for; DEADLINE_EXCEEDED, ``timeout_s``
                are over.
        """
        self._refuse_if_cut_off(tenant, timeout_s)
        if not len(self.line) and self._has_room(weight):
            return self._let_through(tenant, weight, timeout_s)
        if self._may_go_beyond(tenant):
            return self._let_through(tenant, weight, timeout_s, is_spare=True)
        wait_s = self._refuse_if_late(tenant, priority, weight, timeout_s, num_turns)
        called: asyncio.Future[Entry] = asyncio.get_running_loop().create_future()
        now = self._clock()
        waiter = _Waiter(called, now, now + timeout_s, wait_s, self._is_forecast(wait_s))
        ticket = Ticket(tenant, priority, weight, waiter)
        shed = self.line.join(ticket)
        if shed is not None:
            self._on_refused("full")
            if shed is ticket:
                raise _full(wait_s)
            shed.holder.refuse(_full(wait_s))
        try:
            async with asyncio.timeout(timeout_s):
                return await called
        except TimeoutError:
            self._give_up(ticket)
            raise MeshError(
                Reason.DEADLINE_EXCEEDED, f"waited {timeout_s:.1f} s for a place, all the time that this request had"
            ) from None
        except asyncio.CancelledError:
            self._give_up(ticket)
            raise

    def look(self, tenant: str, priority: int, weight: int, timeout_s: float, *, num_turns: int = 1) -> None:
        """Refuse whom :meth:`enter` would refuse at once for its time, before anything was done for it.

        Raises:
            MeshError: QUEUE_FULL.
        """
        self._refuse_if_cut_off(tenant, timeout_s)
        if len(self.line) and not self._may_go_beyond(tenant):
            self._refuse_if_late(tenant, priority, weight, timeout_s, num_turns)

    def leave(self, entry: Entry, took_s: float = 0.0, *, is_whole: bool = False) -> None:
        """What :meth:`enter` let through is over, after ``took_s``; ``is_whole``: with its whole answer."""
        if entry.is_spare:
            self._num_spare -= 1
        else:
            self.num_running -= entry.weight
        self._held[entry.tenant] -= 1
        if not self._held[entry.tenant]:
            del self._held[entry.tenant]
        self._learn(entry, took_s, is_whole)
        self._num_ended += entry.weight
        now = self._clock()
        passed = now - self._rated_at
        self._rated_at = now
        self._rate = self._rate * math.exp(-passed / RATE_OVER_S) + entry.weight / RATE_OVER_S
        self.advance()

    @property
    def pressure(self) -> float | None:
        """What most answers take of the time that their callers have, 1: all of it; 0: nothing runs, None: unknown.

        That of the tenant for which something runs and which has most time: who wants answers in no time does not have
        fewer made for those who can wait.
        """
        if not self._held:
            return 0.0
        return min((self._spent[tenant].most for tenant in self._held if tenant in self._spent), default=None)

    @property
    def is_empty(self) -> bool:
        """Whether nobody has gone through who is still there, and nobody waits."""
        return not self._held and not len(self.line)

    def adapt(self, num_places: int, num_waiting: int) -> None:
        """Take in what workers report, their places and the sequences that wait there; let through whoever may go."""
        shrank = self.limit.adapt(
            num_places,
            num_waiting,
            self.num_running,
            is_contended=bool(len(self.line)),
            pressure=self.pressure,
            answer_s=self._answers.mean,
        )
        if shrank:  # what began before says nothing about those that begin from now on, which have more of the workers
            self._forget_spent()
            self._answers.scale(SOONER)
        self.advance()

    def advance(self) -> None:
        """Let through whoever may go."""
        while (ticket := self.line.first()) is not None and self._has_room(ticket.weight):
            self._call(ticket)
        while self._has_spare and (ticket := self.line.first_of(self._holds_nothing)) is not None:
            self._call(ticket, is_spare=True)

    def _call(self, ticket: Ticket[_Waiter], *, is_spare: bool = False) -> None:
        waiter = ticket.holder
        left_s = waiter.until - self._clock()
        has_left = waiter.called.done()  # and will notice in a moment
        is_late = left_s < self._answers.most
        self.line.remove(ticket, served=not (has_left or is_late))
        if has_left:
            return
        if waiter.was_foreseen:
            self._overruns.note(waiter.overrun(self._clock()))
        if is_late:
            self._on_refused("late")
            wait_s = self._expected_wait_s(ticket.tenant, ticket.priority, ticket.weight)
            waiter.refuse(_overtaken(wait_s, self._answers.most, left_s))
        else:
            waiter.called.set_result(self._let_through(ticket.tenant, ticket.weight, left_s, is_spare=is_spare))

    def _learn(self, entry: Entry, took_s: float, is_whole: bool) -> None:
        """How long an answer took, or would have taken at least."""
        if entry.since < self._spent_since:
            return
        if is_whole:
            self._answers.note(took_s)
        elif took_s < NEARLY * entry.timeout_s:
            self._answers.note_at_least(took_s)  # its caller has left, or it failed
            return
        else:
            took_s *= CUT_OFF
            self._answers.note_at_least(took_s)
        if entry.tenant not in self._spent and len(self._spent) >= MAX_TENANTS:
            self._spent.clear()
        self._spent.setdefault(entry.tenant, Usual()).note(took_s / max(LEAST_S, entry.timeout_s))

    def _let_through(self, tenant: str, weight: int, timeout_s: float = math.inf, *, is_spare: bool = False) -> Entry:
        now = self._clock()
        if not self._held:
            self._busy_since, self._num_ended = now, 0
            if now - self._rated_at > FORGET_S:
                self._forget_spent()
        self._held[tenant] += 1
        if is_spare:
            self._num_spare += 1
        else:
            self.num_running += weight
        return Entry(tenant, weight, timeout_s, now, is_spare)

    def _forget_spent(self) -> None:
        self._spent, self._spent_since = {}, self._clock()

    @property
    def _has_spare(self) -> bool:
        return self._num_spare < self.limit.num_spare

    def _holds_nothing(self, tenant: str) -> bool:
        return tenant not in self._held

    def _may_go_beyond(self, tenant: str) -> bool:
        return self._has_spare and self._holds_nothing(tenant)

    def _has_room(self, weight: int) -> bool:
        return self.num_running + weight <= self.limit.value or self.num_running == 0

    def _give_up(self, ticket: Ticket[_Waiter]) -> None:
        called = ticket.holder.called
        if ticket.is_waiting:
            self.line.remove(ticket)
            if ticket.holder.was_foreseen:
                self._overruns.note_at_least(ticket.holder.overrun(self._clock()))
            self.advance()
        elif called.done() and not called.cancelled() and called.exception() is None:
            self.leave(called.result())  # its turn came in the very moment it gave up

    def _refuse_if_cut_off(self, tenant: str, timeout_s: float) -> None:
        """Raises QUEUE_FULL where a tenant's answers come too late, and would again: they only slow the others."""
        own = self._spent.get(tenant)
        if self._held and own is not None and own.most > LATE and self._answers.most > timeout_s:
            self._on_refused("late")
            raise _cut_off(self._answers.most, timeout_s)

    def _refuse_if_late(self, tenant: str, priority: int, weight: int, timeout_s: float, num_turns: int) -> float:
        """How long the line seems; raises QUEUE_FULL where most answers would be late."""
        wait_s, answer_s = self._expected_wait_s(tenant, priority, weight), self._answers.most
        if num_turns * (wait_s * self._overruns.most + answer_s) > timeout_s:
            self._on_refused("late")
            raise _too_late(wait_s * self._overruns.most, answer_s, num_turns, timeout_s)
        return wait_s

    def _expected_wait_s(self, tenant: str, priority: int, weight: int) -> float:
        """0 while nothing is known about the rate at which answers end."""
        rate = self._rate_of_ends()
        return (self.line.weight_before(tenant, priority) + weight) / rate if rate else 0.0

    def _is_forecast(self, wait_s: float) -> bool:
        """Whether it can be learned from how long will have been waited."""
        is_known = self._num_ended >= TURNS_TO_KNOW * self.num_running
        return is_known and wait_s > max(FORESEEN_S, self._answers.mean)

    def _rate_of_ends(self) -> float:
        """Answers a second, 0: unknown. Those that ended; or, where that is more, what runs by its mean time (Little).

        The first ends after idleness are too few to count, and those of answers that began together leave gaps. Where
        none has ended for longer than one used to take, they take longer by now.
        """
        now = self._clock()
        counted = self._rate * math.exp(-(now - self._rated_at) / RATE_OVER_S)
        if not self._answers.mean:
            return counted if counted * RATE_OVER_S >= 1 else 0.0
        quiet_s = now - max(self._rated_at, self._busy_since)
        return max(counted, self.num_running / max(self._answers.mean, quiet_s))


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


def _cut_off(answer_s: float, timeout_s: float) -> MeshError:
    return MeshError(
        Reason.QUEUE_FULL,
        f"more is asked than can be answered: beside those that are made now an answer takes about {answer_s:.1f} s, "
        f"this request has {timeout_s:.1f} s; try again later, or allow more time",
        retry_after_s=_retry_after(answer_s),
    )


def _overtaken(wait_s: float, answer_s: float, left_s: float) -> MeshError:
    return MeshError(
        Reason.QUEUE_FULL,
        "more is asked than can be answered: the line for this model took longer than it seemed; an answer takes about "
        f"{answer_s:.1f} s, this request has {max(0.0, left_s):.1f} s left; try again later, or allow more time",
        retry_after_s=_retry_after(wait_s),
    )
