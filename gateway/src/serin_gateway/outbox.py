"""Between what makes a request's events and the door that writes them: nothing waits while the reader keeps up.

Texts of one choice that the reader has not taken yet grow into one chunk, so chunks coalesce only when the reader or
the core is the limit, and memory stays bounded: makers wait for room. Knows nothing about where events come from.
"""

import asyncio
from collections import deque

from serin_gateway.events import Event, TextChunk

DEFAULT_ROOM_CHARACTERS = 65_536


class Outbox:
    """Events of one request: many makers, one reader."""

    def __init__(self, room_characters: int = DEFAULT_ROOM_CHARACTERS) -> None:
        self._events: deque[Event] = deque()
        self._open_chunks: dict[int, TextChunk] = {}
        self._arrived = asyncio.Event()
        self._taken = asyncio.Event()
        self._room_characters = room_characters
        self._num_characters = 0
        self._failure: BaseException | None = None
        self.has_begun = False
        """True once there was an event: from then on the reader may have seen something."""

    @property
    def is_full(self) -> bool:
        """True when makers should wait for the reader."""
        return self._num_characters > self._room_characters

    def put(self, event: Event) -> None:
        """Add an event; a chunk joins the one that the reader has not taken yet."""
        self.has_begun = True
        if isinstance(event, TextChunk):
            self._num_characters += len(event.text) + 8 * len(event.token_ids) + 256 * len(event.logprobs)
            waiting = self._open_chunks.get(event.choice_index)
            if waiting is not None:
                waiting.text += event.text
                waiting.token_ids.extend(event.token_ids)
                waiting.logprobs.extend(event.logprobs)
                return
            self._open_chunks[event.choice_index] = event
        self._events.append(event)
        self._arrived.set()

    def fail(self, error: BaseException) -> None:
        """End with an error, raised once everything put before has been taken; the first one counts."""
        if self._failure is None:
            self._failure = error
        self._arrived.set()

    async def take(self) -> list[Event]:
        """Everything put since the last call, waiting for at least one event; the last one of a request is `Completed`.

        Raises:
            BaseException: what :meth:`fail` was given.
        """
        while not self._events:
            if self._failure is not None:
                raise self._failure
            self._arrived.clear()
            await self._arrived.wait()
        return self._drained()

    async def room(self) -> None:
        """Wait until the reader has caught up."""
        while self.is_full:
            self._taken.clear()
            await self._taken.wait()

    def _drained(self) -> list[Event]:
        events = list(self._events)
        self._events.clear()
        self._open_chunks.clear()
        self._num_characters = 0
        self._taken.set()
        return events
