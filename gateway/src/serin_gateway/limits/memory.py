"""The limiter of one process: the twin of the shared one, and what stands in for it while Redis is away.

Knows nothing about keys or requests.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from serin_gateway.limits.calendar import day_of, month_of, until_next_day_s, until_next_month_s
from serin_gateway.limits.limiter import (
    BOUNDS_SHARE,
    BUCKET_S,
    LEASE_S,
    NANO_PER_MICRO,
    NOTHING,
    NUM_BUCKETS,
    Admission,
    Amount,
    BillingLine,
    Lease,
    LimitName,
    Scope,
    Standing,
    Window,
    tightest,
)

MAX_SCOPES = 100_000
MAX_LINES = 10_000

_Refusal = tuple[LimitName, int, float]


class MemoryLimiter:
    """Limits in memory.

    Args:
        clock: seconds that only go forward; another one for tests.
        wall: Unix seconds, for days and months.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._wall = wall
        self._counts: dict[tuple[str, str], _Count] = {}
        self.lines: deque[BillingLine] = deque(maxlen=MAX_LINES)
        """The ledger's latest lines."""

    async def reserve(self, lease: Lease) -> Admission:
        """Count one request and reserve its amount, or refuse and count nothing."""
        return self.reserve_now(lease)

    def reserve_now(self, lease: Lease, *, enforce: bool = True) -> Admission:
        """The same without waiting; ``enforce=False`` counts and never refuses."""
        return self._admit(lease, enforce, is_new=True)

    async def grow(self, lease: Lease) -> Admission:
        """Reserve more for a lease, all of it or nothing."""
        return self.grow_now(lease)

    def grow_now(self, lease: Lease, *, enforce: bool = True) -> Admission:
        """The same without waiting; ``enforce=False`` never refuses."""
        return self._admit(lease, enforce, is_new=False)

    async def renew(self, lease: Lease) -> None:
        """Keep a lease alive and count its usage."""
        self.renew_now(lease)

    def renew_now(self, lease: Lease) -> None:
        """The same without waiting."""
        for _, count in self._limited(lease):
            count.hold(lease, self._clock(), self._wall())

    async def settle(self, lease: Lease, lines: Sequence[BillingLine] = ()) -> None:
        """End a lease."""
        self.settle_now(lease)
        self.lines.extend(lines)

    def settle_later(self, lease: Lease, lines: Sequence[BillingLine] = ()) -> None:
        """End a lease."""
        self.settle_now(lease)
        self.lines.extend(lines)

    def settle_now(self, lease: Lease) -> None:
        """The same without waiting, and without lines."""
        self.renew_now(lease)
        for _, count in self._limited(lease):
            count.leases.pop(lease.lease_id, None)

    def _admit(self, lease: Lease, enforce: bool, *, is_new: bool) -> Admission:
        now, wall = self._clock(), self._wall()
        limited = list(self._limited(lease))

        def refusals_of(one: Lease, factor: int = 1) -> "list[tuple[LimitName, int, float, Scope]]":
            found = ((count.refusal(one, scope, now, wall, is_new, factor), scope) for scope, count in limited)
            return [(*refusal, scope) for refusal, scope in found if refusal is not None]

        refusals = refusals_of(lease, 1 if lease.least is None else BOUNDS_SHARE) if enforce else []
        if refusals and lease.least is not None:
            refusals = refusals_of(replace(lease, reserved=lease.least))
            lease = replace(lease, reserved=NOTHING)
        if not refusals:
            for _, count in limited:
                if is_new:
                    count.window.count(now, requests=1)
                count.hold(lease, now, wall)
        standing = tightest([count.standing(scope, now, wall) for scope, count in limited]) or Standing()
        if not refusals:
            return Admission(standing, lease.reserved)
        name, limit, retry_after_s, scope = max(refusals, key=lambda refusal: refusal[2])
        return Admission(standing, NOTHING, name, scope.kind, limit, retry_after_s)

    def _limited(self, lease: Lease) -> Iterator[tuple[Scope, "_Count"]]:
        now = self._clock()
        for scope in lease.scopes:
            if scope.limits.is_unlimited:
                continue
            name = (scope.kind, scope.name)
            count = self._counts.get(name)
            if count is None:
                if len(self._counts) >= MAX_SCOPES:
                    self._counts = {key: one for key, one in self._counts.items() if not one.is_idle(now, self._wall())}
                count = self._counts[name] = _Count()
            count.advance(now)
            yield scope, count


class _Window:
    """Requests and tokens by bucket."""

    def __init__(self) -> None:
        self._buckets: dict[int, list[int]] = {}

    def advance(self, now: float) -> None:
        oldest = int(now / BUCKET_S) - NUM_BUCKETS
        for bucket in [bucket for bucket in self._buckets if bucket <= oldest]:
            del self._buckets[bucket]

    def count(self, now: float, requests: int = 0, tokens: int = 0) -> None:
        if requests or tokens:
            counts = self._buckets.setdefault(int(now / BUCKET_S), [0, 0])
            counts[0] += requests
            counts[1] += tokens

    def total(self, kind: int) -> int:
        return sum(counts[kind] for counts in self._buckets.values())

    def wait_for(self, kind: int, amount: int, now: float) -> float:
        """Seconds until ``amount`` has left the window; the whole window at most."""
        freed = 0
        for bucket in sorted(self._buckets):
            freed += self._buckets[bucket][kind]
            if freed >= amount:
                return (bucket + NUM_BUCKETS) * BUCKET_S - now
        return float(NUM_BUCKETS * BUCKET_S)

    def reset_s(self, kind: int, now: float, *, is_held: bool = False) -> float:
        """Seconds until nothing is left in the window; what is still held leaves it as if it were used now."""
        used = [bucket for bucket, counts in self._buckets.items() if counts[kind]]
        if is_held:
            used.append(int(now / BUCKET_S))
        return (max(used) + NUM_BUCKETS) * BUCKET_S - now if used else 0.0


@dataclass(slots=True)
class _Reservation:
    outstanding: Amount
    ends_at: float
    posted: Amount = field(default_factory=Amount)


@dataclass(slots=True)
class _Count:
    """What one scope has used and holds."""

    window: _Window = field(default_factory=_Window)
    leases: dict[str, _Reservation] = field(default_factory=dict)
    spent: dict[str, int] = field(default_factory=dict)
    """Tokens by day, nano-units by month."""

    def advance(self, now: float) -> None:
        self.window.advance(now)
        for lease_id in [name for name, held in self.leases.items() if held.ends_at <= now]:
            del self.leases[lease_id]

    def is_idle(self, now: float, wall: float) -> bool:
        self.advance(now)
        spent = self.spent.get(day_of(wall), 0) or self.spent.get(month_of(wall), 0)
        return not (self.leases or self.window.total(0) or self.window.total(1) or spent)

    def hold(self, lease: Lease, now: float, wall: float) -> None:
        """Count what a lease has used since the last time, and keep the rest of it reserved."""
        held = self.leases.setdefault(lease.lease_id, _Reservation(Amount(), 0.0))
        tokens, nano = lease.used.tokens - held.posted.tokens, lease.used.nano - held.posted.nano
        self.window.count(now, tokens=tokens)
        if tokens or nano:
            day, month = day_of(wall), month_of(wall)
            self.spent = {
                day: self.spent.get(day, 0) + tokens,
                month: self.spent.get(month, 0) + nano,
            }
        held.posted, held.outstanding = lease.used, lease.reserved.less(lease.used)
        held.ends_at = now + LEASE_S

    def refusal(
        self, lease: Lease, scope: Scope, now: float, wall: float, is_new: bool, factor: int
    ) -> _Refusal | None:
        """Which limit refuses, its value and for how many seconds, if ``factor`` times what is reserved has to fit."""
        limits, wanted = scope.limits, lease.reserved.less(lease.used)
        held = self.leases.get(lease.lease_id)
        mine = held.outstanding if held else Amount()
        tokens = factor * (self._reserved().tokens - mine.tokens + wanted.tokens)
        nano = factor * (self._reserved().nano - mine.nano + wanted.nano)
        if is_new and limits.requests_per_minute:
            over = self.window.total(0) + 1 - limits.requests_per_minute
            if over > 0:
                return "requests", limits.requests_per_minute, self.window.wait_for(0, over, now)
        if limits.tokens_per_minute:
            over = self.window.total(1) + tokens - limits.tokens_per_minute
            if over > 0:
                return "tokens", limits.tokens_per_minute, self.window.wait_for(1, over, now)
        if limits.tokens_per_day:
            used, limit = self.spent.get(day_of(wall), 0), limits.tokens_per_day
            if used + tokens > limit:
                return "tokens_per_day", limit, until_next_day_s(wall) if used + wanted.tokens > limit else 1.0
        if limits.money_per_month:
            used, limit = self.spent.get(month_of(wall), 0), limits.money_per_month * NANO_PER_MICRO
            if used + nano > limit:
                return "money_per_month", limit, until_next_month_s(wall) if used + wanted.nano > limit else 1.0
        if is_new and limits.concurrent_requests and len(self.leases) + 1 > limits.concurrent_requests:
            return "concurrency", limits.concurrent_requests, 1.0
        return None

    def standing(self, scope: Scope, now: float, wall: float) -> Standing:
        limits, reserved = scope.limits, self._reserved().tokens
        requests, tokens = limits.requests_per_minute, limits.tokens_per_minute
        found = []
        if tokens:
            left = max(0, tokens - self.window.total(1) - reserved)
            reset_s = self.window.reset_s(1, now, is_held=reserved > 0)
            found.append(Window(tokens, left, reset_s, scope.kind))
        if limits.tokens_per_day:
            taken = self.spent.get(day_of(wall), 0) + reserved
            left = max(0, limits.tokens_per_day - taken)
            found.append(Window(limits.tokens_per_day, left, until_next_day_s(wall) if taken else 0.0, scope.kind))
        left = max(0, requests - self.window.total(0))
        return Standing(
            Window(requests, left, self.window.reset_s(0, now), scope.kind) if requests else None,
            min(found, key=lambda window: window.remaining, default=None),
        )

    def _reserved(self) -> Amount:
        held = [one.outstanding for one in self.leases.values()]
        return Amount(sum(one.tokens for one in held), sum(one.nano for one in held))
