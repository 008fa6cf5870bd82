"""The call that the current task serves: who asks, for which request, on which lane, until when.

The onion sets it, channels read it, so deadlines, request ids and lanes travel by themselves. Knows nothing about
gRPC servers or channels.
"""

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

LANE_KEY = "serin-lane"
VOCABULARY_KEY = "serin-vocabulary"
REQUEST_KEY = "serin-request-id"
TENANT_KEY = "serin-tenant"
KEEPALIVE_KEY = "serin-keepalive"
"""HTTP header by which a proxy asks a gateway for signs of life, every so many seconds, while an answer is awaited."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: the service that its certificate names, or nobody in particular on a plain loopback listener.

    ``trusted``: there is no TLS, so everybody who reaches this listener is on this machine and may do everything.
    """

    service: str | None = None
    trusted: bool = False

    def is_any(self, *services: str) -> bool:
        """Whether the caller is one of these services, or trusted as all of them."""
        return self.trusted or self.service in services


@dataclass(slots=True)
class ServedCall:
    """Facts of one call that is being served."""

    method: str
    request_id: str
    lane: str = ""
    caller: Caller = field(default_factory=Caller)
    deadline: float | None = None
    """When it must have ended, in the event loop's time; None: open-ended."""


_served: ContextVar[ServedCall | None] = ContextVar("serin_served_call", default=None)


def served_call() -> ServedCall | None:
    """The call that this task serves, if it serves one."""
    return _served.get()


def enter_call(call: ServedCall) -> None:
    """Make ``call`` the one that this task serves, for the rest of the task."""
    _served.set(call)


@contextmanager
def detached() -> Iterator[None]:
    """A block whose calls and tasks outlive the served call: they inherit neither its deadline nor its caller."""
    token = _served.set(None)
    try:
        yield
    finally:
        _served.reset(token)


def caller() -> Caller:
    """Who made the call that this task serves; outside of calls, nobody."""
    served = _served.get()
    return served.caller if served else Caller()


def request_id() -> str:
    """Identifier of the request that this task works for; empty outside of calls."""
    served = _served.get()
    return served.request_id if served else ""


def remaining_s() -> float | None:
    """Seconds that the served call still has; None: no limit, or no call."""
    served = _served.get()
    if served is None or served.deadline is None:
        return None
    return max(0.0, served.deadline - asyncio.get_running_loop().time())


def new_request_id() -> str:
    """A fresh identifier: ``req-`` and 24 hex digits."""
    return "req-" + secrets.token_hex(12)
