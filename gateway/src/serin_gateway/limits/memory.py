"""The limiter of one process: the twin of the shared one, and what stands in for it while Redis is away.

Knows nothing about keys or requests.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from serin_gateway.limits.limiter import BUCKET_S, LEASE_S, NUM_BUCKETS, Admission, Lease, LimitName, Standing

MAX_SUBJECTS = 100_000


class MemoryLimiter:
    """Limits in memory.

    Args:
        clock: seconds that only go forward; another one for tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._subjects: dict[str, _Subject] = {}

    async def reserve(self, lease: Lease) -> Admission:
        """Count one request and reserve its tokens, or refuse and count nothing."""
        return self.reserve_now(lease)

    def reserve_now(self, lease: Lease, *, enforce: bool = True) -> Admission:
        """The same without waiting; ``enforce=False`` counts and never refuses."""
        subject, now = self._subject(lease), self._clock()
        refused_by, retry_after_s = subject.refusal(lease, now) if enforce else (None, 0.0)
        if refused_by is None:
            subject.window.count(now, requests=1)
            subject.leases[lease.lease_id] = _Reservation(lease.reserved_tokens, now + LEASE_S)
        return Admission(subject.standing(lease, now), refused_by, retry_after_s)

    async def grow(self, lease: Lease) -> Admission:
        """Reserve more tokens for a lease, all of them or none."""
        return self.grow_now(lease)

    def grow_now(self, lease: Lease, *, enforce: bool = True) -> Admission:
        """The same without waiting; ``enforce=False`` never refuses."""
        subject, now = self._subject(lease), self._clock()
        refused_by, retry_after_s = subject.refusal_to_grow(lease, now) if enforce else (None, 0.0)
        if refused_by is None:
            self.renew_now(lease)
        return Admission(subject.standing(lease, now), refused_by, retry_after_s)

    async def renew(self, lease: Lease) -> None:
        """Keep a lease alive and count its usage."""
        self.renew_now(lease)

    def renew_now(self, lease: Lease) -> None:
        """The same without waiting."""
        subject, now = self._subject(lease), self._clock()
        held = subject.leases.setdefault(lease.lease_id, _Reservation(lease.reserved_tokens, 0.0))
        subject.window.count(now, tokens=lease.used_tokens - held.posted)
        held.posted = lease.used_tokens
        held.outstanding = max(0, lease.reserved_tokens - lease.used_tokens)
        held.ends_at = now + LEASE_S

    async def settle(self, lease: Lease) -> None:
        """End a lease."""
        self.settle_now(lease)

    def settle_now(self, lease: Lease) -> None:
        """The same without waiting."""
        self.renew_now(lease)
        del self._subject(lease).leases[lease.lease_id]

    def _subject(self, lease: Lease) -> "_Subject":
        now = self._clock()
        subject = self._subjects.get(lease.subject)
        if subject is None:
            if len(self._subjects) >= MAX_SUBJECTS:
                self._subjects = {name: one for name, one in self._subjects.items() if not one.is_idle(now)}
            subject = self._subjects[lease.subject] = _Subject()
        subject.advance(now)
        return subject


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

    def reset_s(self, kind: int, now: float) -> float:
        used = [bucket for bucket, counts in self._buckets.items() if counts[kind]]
        return (max(used) + NUM_BUCKETS) * BUCKET_S - now if used else 0.0


@dataclass(slots=True)
class _Reservation:
    outstanding: int
    ends_at: float
    posted: int = 0


@dataclass(slots=True)
class _Subject:
    window: _Window = field(default_factory=_Window)
    leases: dict[str, _Reservation] = field(default_factory=dict)

    def advance(self, now: float) -> None:
        self.window.advance(now)
        for lease_id in [name for name, held in self.leases.items() if held.ends_at <= now]:
            del self.leases[lease_id]

    def is_idle(self, now: float) -> bool:
        self.advance(now)
        return not self.leases and not self.window.total(0) and not self.window.total(1)

    def refusal(self, lease: Lease, now: float) -> tuple[LimitName | None, float]:
        limits = lease.limits
        requests = self.window.total(0) + 1
        if limits.requests_per_minute and requests > limits.requests_per_minute:
            return "requests", self.window.wait_for(0, requests - limits.requests_per_minute, now)
        refused_by, retry_after_s = self.refusal_to_grow(lease, now)
        if refused_by is not None:
            return refused_by, retry_after_s
        if limits.concurrent_requests and len(self.leases) + 1 > limits.concurrent_requests:
            return "concurrency", 1.0
        return None, 0.0

    def refusal_to_grow(self, lease: Lease, now: float) -> tuple[LimitName | None, float]:
        limit, held = lease.limits.tokens_per_minute, self.leases.get(lease.lease_id)
        tokens = self.window.total(1) + self._outstanding() + lease.reserved_tokens - lease.used_tokens
        over = tokens - (held.outstanding if held else 0) - limit
        return ("tokens", self.window.wait_for(1, over, now)) if limit and over > 0 else (None, 0.0)

    def standing(self, lease: Lease, now: float) -> Standing:
        limits = lease.limits
        return Standing(
            limits,
            max(0, limits.requests_per_minute - self.window.total(0)),
            self.window.reset_s(0, now),
            max(0, limits.tokens_per_minute - self.window.total(1) - self._outstanding()),
            self.window.reset_s(1, now),
        )

    def _outstanding(self) -> int:
        return sum(held.outstanding for held in self.leases.values())
