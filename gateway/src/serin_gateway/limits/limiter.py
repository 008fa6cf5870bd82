"""What may be limited, the seam of a limiter, and what it answers.

The rules, whoever carries them out: a window is the last 60 seconds, counted in buckets of 5; at no time do the tokens
used inside the window and the tokens still reserved together exceed the limit. A reservation is a *lease*: renewed with
the usage so far while its request runs, it ends by itself when its gateway dies, and what was used by then stays
counted. Knows nothing about keys, requests or Redis.
"""

from dataclasses import dataclass, field
from typing import Literal, Protocol

WINDOW_S = 60
BUCKET_S = 5
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


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a key stands against its limits, for ``x-ratelimit-*``; the resets are seconds until the window is empty."""

    limits: Limits
    remaining_requests: int = 0
    reset_requests_s: float = 0.0
    remaining_tokens: int = 0
    reset_tokens_s: float = 0.0


@dataclass(slots=True)
class Lease:
    """A running request's reservation."""

    lease_id: str
    subject: str
    limits: Limits
    reserved_tokens: int
    used_tokens: int = 0
    posted_tokens: int = field(default=0)
    """Tokens of ``used_tokens`` that the limiter has counted already."""


@dataclass(frozen=True, slots=True)
class Admission:
    """A limiter's answer: a lease, or which limit refuses and when to try again."""

    standing: Standing
    lease: Lease | None = None
    refused_by: LimitName | None = None
    retry_after_s: float = 0.0


class Limiter(Protocol):
    """Counts what a subject (a key) uses."""

    async def reserve(self, subject: str, limits: Limits, lease_id: str, tokens: int) -> Admission:
        """Count one request and reserve ``tokens``, or refuse and count nothing."""

    async def renew(self, lease: Lease) -> None:
        """Keep a lease alive and post its usage so far; later calls only release."""

    async def settle(self, lease: Lease) -> None:
        """End a lease: what was used stays counted, the rest is free again."""
