"""Where responses are kept: the seam, and its twin in memory.

Each is kept with its own input and output and the name of the one it continues; a conversation is found by walking
these. What a later response continues stays readable to it, deleted or not, and ends with it. Nothing is found under
another tenant. Knows nothing about items, requests or Redis.
"""

import enum
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

RECORD_OVERHEAD_BYTES = 512
"""What a response costs beside its own bytes."""


class ResponsesDown(Exception):
    """The store did not answer in time."""


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """One response as it is kept; the bytes are JSON.

    Attributes:
        response_id: unguessable.
        head: the response without its output items.
        output: a list of its output items.
        input: a list of its own input items, without those of what it continues.
        previous_id: the response that it continues; empty: none.
        session: what keeps its conversation on one lane.
    """

    response_id: str
    head: bytes
    output: bytes
    input: bytes
    previous_id: str = ""
    session: str = ""

    @property
    def num_bytes(self) -> int:
        """What it takes of its tenant's share."""
        return len(self.head) + len(self.output) + len(self.input) + len(self.session) + RECORD_OVERHEAD_BYTES


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much is kept.

    Attributes:
        ttl_s: from the last time that a conversation was continued; 0: nothing is kept.
        max_bytes: of all responses of one tenant; those go first whose conversations were continued longest ago.
    """

    ttl_s: float
    max_bytes: int


class Kept(enum.StrEnum):
    """What became of a response."""

    KEPT = "kept"
    GONE = "gone"
    """What it continues is not kept any more."""
    FULL = "full"
    """Its conversation alone has more than its tenant's share."""


class Walk(enum.StrEnum):
    """What became of the walk through a conversation."""

    FOUND = "found"
    MISSING = "missing"
    TOO_LONG = "too_long"
    TOO_LARGE = "too_large"


@dataclass(frozen=True, slots=True)
class Turn:
    """Input and output items of one response, as JSON lists."""

    input: bytes
    output: bytes


@dataclass(frozen=True, slots=True)
class Conversation:
    """A response and all that it continues, oldest first; without turns unless it was found whole."""

    walk: Walk
    turns: Sequence[Turn] = ()
    session: str = ""


class ResponseStore(Protocol):
    """Keeps responses by tenant and identifier. Every method may raise :class:`ResponsesDown`."""

    async def reach(self) -> None:
        """Ask whether it is there."""

    async def put(self, tenant: str, response: StoredResponse, bounds: Bounds) -> Kept:
        """Keep a response, and what it continues as long; make room for it."""

    async def find(self, tenant: str, response_id: str) -> tuple[bytes, bytes] | None:
        """Head and output of a response."""

    async def find_input(self, tenant: str, response_id: str) -> bytes | None:
        """Its own input items."""

    async def walk(self, tenant: str, response_id: str, max_turns: int, max_bytes: int) -> Conversation:
        """The conversation that ends with a response, in one round trip; ``max_bytes``: of input and output."""

    async def delete(self, tenant: str, response_id: str) -> bool:
        """Forget a response, and whatever deleted ones only it continued; False: there is none."""


@dataclass(slots=True)
class _Record:
    response: StoredResponse
    ends_at: float
    used_at: int
    is_deleted: bool = False
    num_children: int = 0

    @property
    def num_bytes(self) -> int:
        return self.response.num_bytes - (len(self.response.head) if self.is_deleted else 0)


@dataclass(slots=True)
class _Shelf:
    records: dict[str, _Record] = field(default_factory=dict)

    def drop(self, response_id: str) -> None:
        """Forget one, and deleted ones that nothing continues any more."""
        while True:
            record = self.records.pop(response_id, None)
            parent = self.records.get(record.response.previous_id) if record is not None else None
            if record is None or parent is None:
                return
            parent.num_children -= 1
            if parent.num_children > 0 or not parent.is_deleted:
                return
            response_id = record.response.previous_id


class MemoryResponses:
    """Responses of one process. ``down`` makes every call fail."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._shelves: dict[str, _Shelf] = {}
        self._num_puts = 0
        self.down = False

    async def reach(self) -> None:
        """Whether it is there."""
        self._shelf("")

    async def put(self, tenant: str, response: StoredResponse, bounds: Bounds) -> Kept:
        """Keep a response."""
        shelf, now = self._shelf(tenant), self._clock()
        previous = shelf.records.get(response.previous_id)
        if response.previous_id and previous is None:
            return Kept.GONE
        self._num_puts += 1
        shelf.records[response.response_id] = _Record(response, now + bounds.ttl_s, 0)
        if previous is not None:
            previous.num_children += 1
        used_at, num_bytes, at = self._num_puts << 20, 0, response.response_id
        while (record := shelf.records.get(at)) is not None:
            # Of one conversation the beginning goes last: without it nothing of it can be continued.
            record.ends_at, record.used_at, used_at = now + bounds.ttl_s, used_at, used_at + 1
            num_bytes += record.num_bytes
            at = record.response.previous_id
        if num_bytes > bounds.max_bytes:
            shelf.drop(response.response_id)
            return Kept.FULL
        while sum(record.num_bytes for record in shelf.records.values()) > bounds.max_bytes:
            shelf.drop(min(shelf.records, key=lambda name: shelf.records[name].used_at))
        return Kept.KEPT

    async def find(self, tenant: str, response_id: str) -> tuple[bytes, bytes] | None:
        """Head and output."""
        record = self._find(tenant, response_id)
        return None if record is None else (record.response.head, record.response.output)

    async def find_input(self, tenant: str, response_id: str) -> bytes | None:
        """Input items."""
        record = self._find(tenant, response_id)
        return None if record is None else record.response.input

    async def walk(self, tenant: str, response_id: str, max_turns: int, max_bytes: int) -> Conversation:
        """A conversation."""
        first = self._find(tenant, response_id)
        if first is None:
            return Conversation(Walk.MISSING)
        turns: list[Turn] = []
        num_bytes, at = 0, response_id
        while at:
            record = self._shelf(tenant).records.get(at)
            if record is None:
                return Conversation(Walk.MISSING)
            turn = Turn(record.response.input, record.response.output)
            num_bytes += len(turn.input) + len(turn.output)
            if len(turns) == max_turns:
                return Conversation(Walk.TOO_LONG)
            if num_bytes > max_bytes:
                return Conversation(Walk.TOO_LARGE)
            turns.append(turn)
            at = record.response.previous_id
        return Conversation(Walk.FOUND, turns[::-1], first.response.session)

    async def delete(self, tenant: str, response_id: str) -> bool:
        """Forget a response."""
        record = self._find(tenant, response_id)
        if record is None:
            return False
        if record.num_children > 0:
            record.is_deleted = True
        else:
            self._shelf(tenant).drop(response_id)
        return True

    def _find(self, tenant: str, response_id: str) -> _Record | None:
        record = self._shelf(tenant).records.get(response_id)
        return None if record is None or record.is_deleted else record

    def _shelf(self, tenant: str) -> _Shelf:
        if self.down:
            raise ResponsesDown("the responses are down")
        shelf, now = self._shelves.setdefault(tenant, _Shelf()), self._clock()
        for name in [name for name, record in shelf.records.items() if record.ends_at <= now]:
            shelf.drop(name)
        return shelf
