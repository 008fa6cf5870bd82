"""Signs of life on an HTTP/1.1 exchange that has nothing to say yet.

A proxy that asks for them tells a gateway that waits from one that hangs, which TCP does not: the kernel of a process
that hangs acknowledges for it. Before an answer they are interim responses, which proxies drop; between the events of a
stream they are comments, which readers skip. Knows nothing about requests and answers.
"""

import asyncio
from collections.abc import Iterable

from serin_mesh.call import KEEPALIVE_KEY
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

STATE_KEY = "keepalive"
"""Where an application finds the :class:`Keepalive` of its exchange in the `state` of its ASGI scope, if it has one."""

MAX_EVERY_S = 60

_HEADER = KEEPALIVE_KEY.encode()
_INTERIM = b"HTTP/1.1 199 Working\r\n\r\n"
"""Of no meaning (RFC 9110, 15.2): 100, 102 and 103 have one, and Envoy does not take them for a sign of life."""
_COMMENT = b"3\r\n:\n\n\r\n"
"""A chunk that holds a comment and ends it as an event ends: https://html.spec.whatwg.org/#server-sent-events."""


def asked_every_s(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    """How often signs of life are wanted, in seconds from 1 to 60; None: nothing is said of it; 0: no such time is."""
    value = next((value for name, value in headers if name == _HEADER), None)
    if value is None:
        return None
    return int(value) if value.isdigit() and len(value) <= 2 and int(value) <= MAX_EVERY_S else 0


class Keepalive:
    """The signs of life of one exchange, from its request's head to its answer's end.

    Args:
        transport: where the exchange is written.
        cycle: the exchange, the only one that writes there now.
        every_s: after so many seconds without one, and in an answer before twice as many, a sign follows.
    """

    def __init__(self, transport: asyncio.Transport, cycle: RequestResponseCycle, every_s: float) -> None:
        self._transport = transport
        self._cycle = cycle
        self._every_s = every_s
        self._has_events = False
        self._has_spoken = False
        self._timer = asyncio.get_running_loop().call_later(every_s, self._tick)

    def announce_events(self) -> None:
        """The answer will be a stream of server-sent events, each of which is written whole."""
        self._has_events = True

    def spoke(self) -> None:
        """Part of the answer was written."""
        self._has_spoken = True

    def close(self) -> None:
        """No more signs."""
        self._timer.cancel()

    def _tick(self) -> None:
        has_begun = self._cycle.response_started
        has_room_for_comments = self._has_events and self._cycle.chunked_encoding
        if self._cycle.response_complete or self._transport.is_closing() or (has_begun and not has_room_for_comments):
            return
        # Who reads nothing needs no sign that there is something to read.
        if not self._has_spoken and not self._cycle.flow.write_paused:
            self._transport.write(_COMMENT if has_begun else _INTERIM)
        self._has_spoken = False
        self._timer = asyncio.get_running_loop().call_later(self._every_s, self._tick)
