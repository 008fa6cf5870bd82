"""Between what makes a request's events and the door that writes them: nothing waits while the reader keeps up.

Texts of one choice that the reader has not taken yet grow into one chunk, and so do the arguments of one call: chunks
coalesce only when the reader or the core is the limit, and memory stays bounded: makers wait for room. Knows nothing
about where events come from.
"""

import asyncio
from collections import deque

from serin_gateway.events import Event, TextChunk, ToolCallBegun, ToolCallEnded, ToolCallGrew

DEFAULT_ROOM_CHARACTERS = 65_536
SLOW_READER_TIMEOUT_S = 60.0
"""A client that takes nothing of what a door writes for this long is cut off, and its request ends."""


class Outbox:
    """Events of one request: many makers, one reader."""

    def __init__(self, room_characters: int = DEFAULT_ROOM_CHARACTERS) -> None:
        self._events: deque[Event] = deque()
        self._open_chunks: dict[int, TextChunk] = {}
        self._open_calls: dict[int, ToolCallGrew] = {}
        self._behind_call: set[int] = set()  # choices with a call behind their open chunk
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
        """Add an event; a chunk joins the one that the reader has not taken yet, and never overtakes a call."""
        self.has_begun = True
        if isinstance(event, TextChunk):
            is_joined = self._join_text(event)
        elif isinstance(event, ToolCallGrew):
            is_joined = self._join_call(event)
        else:
            is_joined = False
            if isinstance(event, ToolCallBegun | ToolCallEnded):
                self._open_calls.pop(event.choice_index, None)
                self._behind_call.add(event.choice_index)
        if not is_joined:
            self._events.append(event)
            self._arrived.set()

    def _join_text(self, event: TextChunk) -> bool:
        spelled = sum(1 + len(one.alternatives) for one in event.logprobs)
        self._num_characters += len(event.text) + 8 * len(event.token_ids) + 256 * spelled
        waiting = self._open_chunks.get(event.choice_index)
        if waiting is None or (event.text and event.choice_index in self._behind_call):
            self._open_chunks[event.choice_index] = event
            self._behind_call.discard(event.choice_index)
            return False
        waiting.text += event.text
        waiting.token_ids.extend(event.token_ids)
        waiting.logprobs.extend(event.logprobs)
        return True

    def _join_call(self, event: ToolCallGrew) -> bool:
        self._num_characters += len(event.arguments_json)
        waiting = self._open_calls.get(event.choice_index)
        if waiting is None:
            self._open_calls[event.choice_index] = event
            return False
        waiting.arguments_json += event.arguments_json
        return True

    def fail(self, error: BaseException) -> None:
        """End with an error, raised once everything put before has been taken; the first one counts."""
        if self._failure is None:
            self._failure = error
        self._arrived.set()

    async def take(self) -> list[Event]:
        """Everything put since the last call, waiting for at least one event; the last one of a request is `Completed`.

        Raises:
            BaseException: what :meth:`fail` was given, once.
        """
        while not self._events:
            if self._failure is not None:
                try:
                    raise self._failure
                finally:
                    self._failure = None  # its traceback holds whoever takes from here, and so this
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
        self._open_calls.clear()
        self._behind_call.clear()
        self._num_characters = 0
        self._taken.set()
        return events
