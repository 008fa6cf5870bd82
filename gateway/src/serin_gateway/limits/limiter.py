"""What may be limited, the seam of a limiter, and what it answers.

The rules, whoever carries them out: a window is the last 60 seconds, counted in buckets of one; at no time do the
requests inside the window, or the tokens used inside it and those still reserved together, exceed the limit. A
reservation is a *lease*: renewed with the usage so far while its request runs, it ends by itself when its gateway dies,
and what was used by then stays counted. Knows nothing about keys, requests or Redis.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

BUCKET_S = 1
NUM_BUCKETS = 61
"""Buckets that a window of 60 seconds may touch."""
LEASE_S = 30
"""A lease that is not renewed for this long ends."""

LimitName = Literal["requests", "tokens", "concurrency"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a key; 0: none."""

    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    concurrent_requests: int = 0

    @property
    def is_unlimited(self) -> bool:
        """True when nothing needs counting."""
        return not (self.requests_per_minute or self.tokens_per_minute or self.concurrent_requests)

    def share(self, part: float) -> "Limits":
        """A part of every limit, at least 1 of each that is set."""
        return Limits(
            *(
                max(1, int(limit * part)) if limit else 0
                for limit in (self.requests_per_minute, self.tokens_per_minute, self.concurrent_requests)
            )
        )


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a subject stands against its limits; the resets are seconds until its window is empty.

    ``is_local_share``: the limits are this gateway's own share of the subject's, as no shared count could be asked.
    """

    limits: Limits
    remaining_requests: int = 0
    reset_requests_s: float = 0.0
    remaining_tokens: int = 0
    reset_tokens_s: float = 0.0
    is_local_share: bool = False


@dataclass(slots=True)
class Lease:
    """A running request's reservation: ``reserved_tokens`` at most, ``used_tokens`` of them so far."""

    lease_id: str
    subject: str
    limits: Limits
    reserved_tokens: int
    used_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Admission:
    """A limiter's answer: admitted, or which limit refuses and in how many seconds to try again."""

    standing: Standing
    refused_by: LimitName | None = None
    retry_after_s: float = 0.0


class Limiter(Protocol):
    """Counts what subjects (keys) use. Each lease is reserved and settled once, grown and renewed in between."""

    async def reserve(self, lease: Lease) -> Admission:
        """Count one request and reserve its tokens, or refuse and count nothing."""

    async def grow(self, lease: Lease) -> Admission:
        """Reserve ``reserved_tokens`` for a lease that holds fewer, all of them or none; no request is counted."""

    async def renew(self, lease: Lease) -> None:
        """Keep a lease alive and count its usage since the last call; the rest of it stays reserved."""

    async def settle(self, lease: Lease) -> None:
        """End a lease: what was used stays counted, the rest is free again."""
