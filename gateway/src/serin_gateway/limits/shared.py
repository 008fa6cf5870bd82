"""The limiter that all gateways share: one Lua script in the state Redis, on Redis' clock.

Operations that arrive while a call is on its way go with the next one (group commit); those that decide about nothing,
as no scope has limits, wait a moment for each other: a busy gateway pays for few calls. Settlements are numbered and
sent in order until Redis has confirmed them, so each is carried out once, whatever becomes of calls. Knows nothing of
requests.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Protocol, TypeVar

import orjson
from redis.asyncio import Redis

from serin_gateway.limits.limiter import (
    BOUNDS_SHARE,
    NANO_PER_MICRO,
    NOTHING,
    Admission,
    Amount,
    BillingLine,
    Lease,
    Scope,
    Standing,
    Window,
)

T = TypeVar("T")

AT_ONCE = 128
"""Operations in one call: Redis does nothing else meanwhile."""
OWED_AT_ONCE = 32
"""Of settlements that Redis could not hear of, so many go with a call: whoever asks now does not wait for all."""
LINGER_S = 0.004
"""What decides about nothing waits so long for more to go with it; meanwhile its prompt is tokenized."""
MAX_OWED = 100_000
"""Settlements that wait for Redis to come back."""
LINES_KEPT_DAYS = 35
SUMS_KEPT_DAYS = 400


class Calls(Protocol):
    """Makes calls that may fail or hang."""

    async def call(self, operation: Callable[[], Awaitable[T]]) -> T:
        """The operation's result.

        Raises:
            Unavailable: not tried, failed, or too slow.
        """


class Patient:
    """Calls that take as long as they take."""

    async def call(self, operation: Callable[[], Awaitable[T]]) -> T:
        """The operation's result, or what it raises."""
        return await operation()


@dataclass(slots=True)
class _Waiting:
    operation: bytes
    done: "asyncio.Future[Any]"
    is_settlement: bool = False
    is_urgent: bool = True


@dataclass(frozen=True, slots=True)
class Lapsed:
    """A lease whose gateway is gone: its facts, and what it had posted."""

    lease_id: str
    facts: str
    used: Amount


class RedisLimiter:
    """Limits in Redis.

    Args:
        redis: a client of the state Redis; not closed here.
        organization: hash tag of all keys.
        calls: gives calls their budget; default: they take their time.
        lines_kept_days, sums_kept_days: how long the ledger's lines and their sums by day are kept.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        organization: str = "default",
        calls: Calls | None = None,
        lines_kept_days: int = LINES_KEPT_DAYS,
        sums_kept_days: int = SUMS_KEPT_DAYS,
    ) -> None:
        self._script = redis.register_script(files(__package__).joinpath("limits.lua").read_text())
        self._prefix = f"serin:{{{organization}}}:"
        self._calls = calls or Patient()
        self._arguments = (secrets.token_hex(8), lines_kept_days, sums_kept_days)
        self._posted: dict[str, Amount] = {}
        self._waiting: deque[_Waiting] = deque()
        self._owed: deque[bytes] = deque()
        self._num_settled = 0
        self._num_urgent = 0
        self._lingering: asyncio.TimerHandle | None = None
        self._sending: asyncio.Task[None] | None = None
        self.num_lost = 0
        """Settlements that were given up, as too many waited for Redis."""

    async def reserve(self, lease: Lease) -> Admission:
        """Count one request and reserve its amount, or refuse and count nothing."""
        loose = {} if lease.least is None else {"least": [lease.least.tokens, lease.least.nano, BOUNDS_SHARE]}
        operation = self._operation("reserve", lease, **loose)
        answer = await self._send(_Waiting(operation, _future(), is_urgent=lease.is_limited))
        return _admission(answer, lease)

    async def grow(self, lease: Lease) -> Admission:
        """Reserve more for a lease, all of it or nothing."""
        return _admission(await self._ask("grow", lease), lease)

    async def renew(self, lease: Lease) -> None:
        """Keep a lease alive and count its usage."""
        used = lease.used
        await self._ask("renew", lease)
        self._posted[lease.lease_id] = used

    async def settle(self, lease: Lease, lines: Sequence[BillingLine] = ()) -> None:
        """End a lease. While Redis is away it is owed: sent again, in order, once Redis is back.

        Raises:
            Unavailable: it is owed from now on.
        """
        done = self._settle(lease, lines, is_urgent=True)
        if done is not None:
            await done

    def settle_later(self, lease: Lease, lines: Sequence[BillingLine] = ()) -> None:
        """The same for a lease that nobody waits for. Should this gateway die before, its worker's account says it."""
        self._settle(lease, lines, is_urgent=False)

    def _settle(self, lease: Lease, lines: Sequence[BillingLine], *, is_urgent: bool) -> "asyncio.Future[Any] | None":
        self._num_settled += 1
        operation = self._operation("settle", lease, q=self._num_settled, b=[_line(line) for line in lines])
        self._posted.pop(lease.lease_id, None)
        if self._owed:  # an earlier one must not be overtaken
            self._owe(operation)
            return None
        return self._send(_Waiting(operation, _future(), is_settlement=True, is_urgent=is_urgent))

    async def pay(self) -> None:
        """Send everything that waits or is owed.

        Raises:
            Unavailable: it still is.
        """
        while self._owed or self._waiting:
            await self._send(_Waiting(b"", _future()))

    @property
    def num_owed(self) -> int:
        """Settlements that wait for Redis."""
        return len(self._owed)

    async def claim(self) -> list[Lapsed]:
        """Some leases whose gateways are gone and which nobody else looks into: they are the caller's for 30 s."""
        answer = await self._send(_Waiting(b'{"v":"claim"}', _future()))
        return [Lapsed(one.decode(), facts.decode(), Amount(tokens, nano)) for one, facts, tokens, nano in answer]

    async def reap(self, lease: Lease, known: Amount, lines: Sequence[BillingLine]) -> bool:
        """End a lapsed lease, of which ``known`` had been posted, with these lines; False: somebody else was first."""
        self._posted[lease.lease_id] = known
        try:
            (said,) = await self._ask("reap", lease, b=[_line(line) for line in lines])
        finally:
            self._posted.pop(lease.lease_id, None)
        return bool(said == b"written")

    async def _ask(self, verb: str, lease: Lease, **more: Any) -> Any:
        return await self._send(_Waiting(self._operation(verb, lease, **more), _future()))

    def _send(self, waiting: _Waiting) -> "asyncio.Future[Any]":
        self._waiting.append(waiting)
        self._num_urgent += waiting.is_urgent
        self._begin_soon()
        return waiting.done

    def _begin_soon(self) -> None:
        if self._sending is not None or not self._waiting:
            return
        if self._num_urgent:
            self._begin()
        elif self._lingering is None:
            self._lingering = asyncio.get_running_loop().call_later(LINGER_S, self._begin)

    def _begin(self) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        if self._sending is None:
            self._sending = asyncio.create_task(self._send_all())

    async def _send_all(self) -> None:
        try:
            while True:
                asked = [self._waiting.popleft() for _ in range(min(AT_ONCE, len(self._waiting)))]
                owed = [self._owed[at] for at in range(min(OWED_AT_ONCE, len(self._owed)))]
                self._num_urgent -= sum(one.is_urgent for one in asked)
                await self._send_some(asked, owed)
                if not self._num_urgent:
                    return
        finally:
            self._sending = None
            self._begin_soon()

    async def _send_some(self, asked: list[_Waiting], owed: list[bytes]) -> None:
        operations = [*(one.operation for one in asked if one.operation), *owed]
        try:
            answers = await self._calls.call(
                lambda: self._script([self._prefix], [b"[" + b",".join(operations) + b"]", *self._arguments])
            )
        except BaseException as error:
            self._failed(asked, error)
            if not isinstance(error, Exception):
                raise
            return
        for _ in owed:
            self._owed.popleft()
        given = iter(answers)
        for one in asked:
            answer = next(given) if one.operation else None
            if not one.done.done():
                one.done.set_result(answer)

    def _failed(self, asked: Sequence[_Waiting], error: BaseException) -> None:
        """All who wait hear of it, so that nobody waits for a second failure; their settlements are owed."""
        for one in (*asked, *self._waiting):
            if one.is_settlement:
                self._owe(one.operation)
            if not one.done.done():
                one.done.set_exception(error)
                one.done.exception()  # who was cancelled meanwhile does not look at it
        self._waiting.clear()
        self._num_urgent = 0

    def _owe(self, operation: bytes) -> None:
        self._owed.append(operation)
        if len(self._owed) > MAX_OWED:
            self._owed.popleft()
            self.num_lost += 1

    def _operation(self, verb: str, lease: Lease, **more: Any) -> bytes:
        rest = lease.reserved.less(lease.used)
        known = self._posted.get(lease.lease_id, NOTHING)
        operation = {
            "v": verb,
            "l": lease.lease_id,
            "t": rest.tokens,
            "n": rest.nano,
            "ut": lease.used.tokens,
            "un": lease.used.nano,
            "g": lease.revision,
            "kt": known.tokens,
            "kn": known.nano,
            "s": [_scope(scope) for scope in lease.scopes],
            "a": lease.facts,
        }
        return orjson.dumps(operation | more)


def _future() -> "asyncio.Future[Any]":
    return asyncio.get_running_loop().create_future()


def _scope(scope: Scope) -> tuple[str | int, ...]:
    limits = scope.limits
    return (
        scope.kind,
        scope.name,
        limits.requests_per_minute,
        limits.tokens_per_minute,
        limits.concurrent_requests,
        limits.tokens_per_day,
        limits.money_per_month * NANO_PER_MICRO,
    )


def _line(line: BillingLine) -> tuple[str | int, ...]:
    figures = (line.sums, line.prompt_tokens, line.cached_tokens, line.completion_tokens, line.nano, line.text)
    return (*figures, line.waived_text, line.credit_text) if line.waived_text else figures


def _admission(answer: Sequence[Any], lease: Lease) -> Admission:
    refused_by, scope, limit, retry_ms, *windows, is_to_be_counted = answer
    standing = Standing(_window(windows[:4]), _window(windows[4:]))
    reserved = NOTHING if is_to_be_counted else lease.reserved
    return Admission(standing, reserved, refused_by.decode() or None, scope.decode() or None, limit, retry_ms / 1000)


def _window(answer: Sequence[Any]) -> Window | None:
    limit, remaining, reset_ms, scope = answer
    return Window(limit, remaining, reset_ms / 1000, scope.decode()) if limit else None
