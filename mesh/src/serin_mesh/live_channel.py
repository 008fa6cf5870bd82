"""A channel that follows its certificate files: new files, new connection; running calls end on the old one.

Knows nothing about calls but when they are over.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import grpc

from serin_mesh.tls import Identity, IdentityFiles

LOOK_EVERY_S = 1.0


class Generation:
    """A channel with one identity, and the calls on it."""

    def __init__(self, identity: Identity | None, channel: grpc.aio.Channel) -> None:
        self.identity = identity
        self.channel = channel
        self.idle = asyncio.Event()
        self.idle.set()
        self._num_calls = 0
        self._callables: dict[Any, Any] = {}

    def callable(self, key: Any, make: Callable[[grpc.aio.Channel], Any]) -> Any:
        """The callable of one method, made once."""
        found = self._callables.get(key)
        if found is None:
            found = self._callables[key] = make(self.channel)
        return found

    def hold(self, call: Any) -> None:
        """Keep the channel until this call is over; without certificates it is never replaced, so nothing is to do."""
        if self.identity is None:
            return
        self._num_calls += 1
        self.idle.clear()
        call.add_done_callback(self._release)

    def _release(self, _: Any) -> None:
        self._num_calls -= 1
        if not self._num_calls:
            self.idle.set()


class LiveChannel:
    """The current generation of a channel.

    Args:
        dial: makes a channel with an identity; None: without TLS.
        files: the certificates to follow; None: no TLS.
    """

    def __init__(self, dial: Callable[[Identity | None], grpc.aio.Channel], files: IdentityFiles | None) -> None:
        self._dial = dial
        self._files = files
        identity = files.current() if files else None
        self._generation = Generation(identity, dial(identity))
        self._looked_at = time.monotonic()
        self._retiring: set[asyncio.Task[None]] = set()

    def current(self) -> Generation:
        """The generation for a new call."""
        if self._files is not None and time.monotonic() - self._looked_at >= LOOK_EVERY_S:
            self._looked_at = time.monotonic()
            identity = self._files.current()
            if identity is not self._generation.identity:
                self._retire(self._generation)
                self._generation = Generation(identity, self._dial(identity))
        return self._generation

    async def close(self, grace_s: float | None) -> None:
        """Close all generations."""
        for task in tuple(self._retiring):
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        await self._generation.channel.close(grace_s)

    def _retire(self, old: Generation) -> None:
        async def close_when_idle() -> None:
            try:
                await old.idle.wait()
            finally:
                await old.channel.close()

        task = asyncio.get_running_loop().create_task(close_when_idle())
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)
