"""What may be limited, the seam of a limiter, and what it answers.

A request counts at four *scopes*: its key, project, organization and model. It is admitted at all of them or at none.
The rules, whoever carries them out: a window is the last 60 seconds, counted in buckets of one; at no time do the
requests inside the window, or the tokens used inside it and those still reserved together, exceed a limit. Days and
months are those of the calendar (UTC); money is an integer of *nano-units*, 10^-9 of the currency. A reservation is a
*lease*: renewed with the usage so far while its request runs, it ends by itself when its gateway dies, and what was
used by then stays counted. Knows nothing about keys, requests or Redis.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Literal, Protocol

BUCKET_S = 1
NUM_BUCKETS = 61
"""Buckets that a window of 60 seconds may touch."""
BOUNDS_SHARE = 4
"""Loose bounds hold at most this part of what a limit has left: they are several times what requests need."""
LEASE_S = 30
"""A lease that is not renewed for this long ends."""
NANO_PER_MICRO = 1000

ScopeKind = Literal["key", "project", "organization", "model"]
LimitName = Literal["requests", "tokens", "concurrency", "tokens_per_day", "money_per_month"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a scope; 0: none. ``money_per_month`` is in micro-units, 10^-6 of the currency."""

    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    concurrent_requests: int = 0
    tokens_per_day: int = 0
    money_per_month: int = 0

    @property
    def is_unlimited(self) -> bool:
        """True when nothing needs counting."""
        return self == NO_LIMITS

    @classmethod
    def read(cls, stored: Mapping[str, int]) -> "Limits":
        """Stored limits; those that only a newer version knows are ignored."""
        return cls(**{one.name: stored[one.name] for one in fields(cls) if one.name in stored})

    def share(self, part: float) -> "Limits":
        """A part of every limit, at least 1 of each that is set."""
        values = [getattr(self, one.name) for one in fields(self)]
        return Limits(*(max(1, int(limit * part)) if limit else 0 for limit in values))


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose limits: a kind, a name within the kind, and what they are."""

    kind: ScopeKind
    name: str
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class Amount:
    """Tokens, and what they cost in nano-units."""

    tokens: int = 0
    nano: int = 0

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(self.tokens + other.tokens, self.nano + other.nano)

    def less(self, other: "Amount") -> "Amount":
        """What is left of it, nothing at least."""
        return Amount(max(0, self.tokens - other.tokens), max(0, self.nano - other.nano))

    def at_most(self, other: "Amount") -> "Amount":
        """The least of both, in tokens and in money."""
        return Amount(min(self.tokens, other.tokens), min(self.nano, other.nano))

    def at_least(self, other: "Amount") -> "Amount":
        """The most of both, in tokens and in money."""
        return Amount(max(self.tokens, other.tokens), max(self.nano, other.nano))

    def holds(self, other: "Amount") -> bool:
        """Whether the other one is no more, neither in tokens nor in money."""
        return other.tokens <= self.tokens and other.nano <= self.nano


NOTHING = Amount()


@dataclass(frozen=True, slots=True)
class Window:
    """Where the tightest limit of a kind stands.

    ``reset_s``: seconds until all of it is free again if nothing more is asked; 0 exactly where all of it is free now.
    What running requests hold counts as if it were used now: what they leave over is free earlier.
    """

    limit: int
    remaining: int
    reset_s: float
    scope: str


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a request's scopes stand, by the tightest limit of requests and of tokens; None: no such limit.

    ``is_local_share``: the limits are this gateway's own share, as no shared count could be asked.
    """

    requests: Window | None = None
    tokens: Window | None = None
    is_local_share: bool = False

    @property
    def remaining_requests(self) -> int:
        """Requests that the tightest limit still allows; 0 where there is none."""
        return self.requests.remaining if self.requests else 0

    @property
    def remaining_tokens(self) -> int:
        """Tokens that the tightest limit still allows; 0 where there is none."""
        return self.tokens.remaining if self.tokens else 0


def tightest(standings: Sequence[Standing]) -> Standing | None:
    """Where several standings are tightest, of requests and of tokens; None: there is none."""
    if len(standings) < 2:
        return standings[0] if standings else None
    requests = [one.requests for one in standings if one.requests]
    tokens = [one.tokens for one in standings if one.tokens]
    return Standing(
        min(requests, key=lambda window: window.remaining, default=None),
        min(tokens, key=lambda window: window.remaining, default=None),
        any(one.is_local_share for one in standings),
    )


@dataclass(frozen=True, slots=True)
class BillingLine:
    """One line of the ledger: what it adds to which sum, and its text.

    Attributes:
        sums: name under which it is summed up, see `ledger.line`.
        text: the whole line as JSON.
        waived_text: the same where it is not billed, as somebody else made the answer anew; empty: always billed.
        credit_text: a line that takes back what this one billed, written when that turns out afterwards.
    """

    sums: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    nano: int
    text: str
    waived_text: str = ""
    credit_text: str = ""


@dataclass(slots=True)
class Lease:
    """A running request's reservation: ``reserved`` at most, ``used`` of it so far.

    ``least``: ``reserved`` is a loose bound, of which so much at least is needed; None: it is exact. ``facts``: what
    somebody else needs to know to settle it when its gateway is gone; empty: it leaves no line. ``revision`` counts
    changes of ``reserved``, so that no call that was late takes back a later one. ``is_missed``: somebody may wait for
    what it leaves over.
    """

    lease_id: str
    scopes: Sequence[Scope]
    reserved: Amount
    used: Amount = field(default_factory=Amount)
    facts: str = ""
    least: Amount | None = None
    revision: int = 0
    is_missed: bool = True

    @property
    def is_limited(self) -> bool:
        """Whether any of its scopes has limits."""
        return any(not scope.limits.is_unlimited for scope in self.scopes)


@dataclass(frozen=True, slots=True)
class Admission:
    """A limiter's answer: admitted, or which limit of which scope refuses and in how many seconds to try again.

    ``limit`` is that limit's value; of money in nano-units. ``reserved``: what an admitted lease holds now;
    nothing, where a bound was too much and its tokens have to be counted first.
    """

    standing: Standing
    reserved: Amount = field(default_factory=Amount)
    refused_by: LimitName | None = None
    scope: ScopeKind | None = None
    limit: int = 0
    retry_after_s: float = 0.0


class Limiter(Protocol):
    """Counts what scopes use. Each lease is reserved and settled once, grown and renewed in between."""

    async def reserve(self, lease: Lease) -> Admission:
        """Count one request and reserve its amount, or refuse and count nothing.

        Where loose bounds would hold more than `BOUNDS_SHARE` of what is left, nothing is reserved yet: `grow` does it.
        """

    async def grow(self, lease: Lease) -> Admission:
        """Reserve ``reserved`` for a lease that holds less, all of it or nothing; no request is counted."""

    async def renew(self, lease: Lease) -> None:
        """Keep a lease alive and count its usage since the last call; of ``reserved`` the rest stays reserved."""

    async def settle(self, lease: Lease, lines: Sequence[BillingLine] = ()) -> None:
        """End a lease: what was used stays counted, the rest is free again, its lines are in the ledger once."""

    def settle_later(self, lease: Lease, lines: Sequence[BillingLine] = ()) -> None:
        """The same, within moments, and before whatever this gateway asks next: for leases that nobody waits for."""
