"""Where responses are kept: the seam, and its twin in memory.

All responses that continue one another are one conversation, a tree: it lives as long as it is continued, and goes as a
whole. Each is kept with its own input and output and the name of the one it continues. What a kept response continues
stays readable to it, deleted or not, and ends with it. Nothing is found under another tenant. Knows nothing about
items, requests or Redis.
"""

import enum
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from serin_gateway.responses.identifier import conversation_of

RECORD_OVERHEAD_BYTES = 1024
"""What a response costs beside its own bytes."""


class ResponsesDown(Exception):
    """The store did not answer in time."""


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """One response as it is kept; the bytes are JSON.

    Attributes:
        response_id: names its conversation too; of one that continues another, the same.
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
        max_bytes: of all responses of one tenant; conversations that were continued longest ago go first.
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
class StoredConversation:
    """A response and all that it continues, oldest first; without turns unless it was found whole."""

    walk: Walk
    turns: Sequence[Turn] = ()
    session: str = ""


class ResponseStore(Protocol):
    """Keeps responses by tenant and identifier. Every method may raise :class:`ResponsesDown`."""

    async def reach(self) -> None:
        """Ask whether it is there."""

    async def put(self, tenant: str, response: StoredResponse, bounds: Bounds) -> Kept:
        """Keep a response, and its conversation as long; make room for it."""

    async def find(self, tenant: str, response_id: str) -> tuple[bytes, bytes] | None:
        """Head and output of a response."""

    async def find_input(self, tenant: str, response_id: str) -> bytes | None:
        """Its own input items."""

    async def walk(self, tenant: str, response_id: str, max_turns: int, max_bytes: int) -> StoredConversation:
        """The conversation that ends with a response, in one round trip; ``max_bytes``: of input and output."""

    async def delete(self, tenant: str, response_id: str) -> bool:
        """Forget a response, and whatever deleted ones only it continued; False: there is none."""


@dataclass(slots=True)
class _Record:
    response: StoredResponse
    is_deleted: bool = False
    num_children: int = 0

    @property
    def num_bytes(self) -> int:
        return self.response.num_bytes - (len(self.response.head) if self.is_deleted else 0)


@dataclass(slots=True)
class _Tree:
    ends_at: float = 0.0
    used_at: int = 0
    records: dict[str, _Record] = field(default_factory=dict)

    @property
    def num_bytes(self) -> int:
        return sum(record.num_bytes for record in self.records.values())

    def drop(self, response_id: str) -> None:
        """Forget one, and deleted ones that nothing continues any more."""
        while True:
            response = self.records.pop(response_id).response
            parent = self.records.get(response.previous_id)
            if parent is None:
                return
            parent.num_children -= 1
            if parent.num_children or not parent.is_deleted:
                return
            response_id = response.previous_id


class MemoryResponses:
    """Responses of one process. ``down`` makes every call fail."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._trees: dict[str, dict[str, _Tree]] = {}
        self._num_puts = 0
        self.down = False

    async def reach(self) -> None:
        """Whether it is there."""
        self._kept("")

    async def put(self, tenant: str, response: StoredResponse, bounds: Bounds) -> Kept:
        """Keep a response."""
        trees, name = self._kept(tenant), conversation_of(response.response_id)
        tree = trees.get(name, _Tree())
        previous = tree.records.get(response.previous_id)
        if response.previous_id and previous is None:
            return Kept.GONE
        if tree.num_bytes + response.num_bytes > bounds.max_bytes:
            return Kept.FULL
        if previous is not None:
            previous.num_children += 1
        self._num_puts += 1
        tree.records[response.response_id] = _Record(response)
        tree.ends_at, tree.used_at = self._clock() + bounds.ttl_s, self._num_puts
        trees[name] = tree
        while sum(one.num_bytes for one in trees.values()) > bounds.max_bytes:
            del trees[min(trees, key=lambda one: trees[one].used_at)]
        return Kept.KEPT

    async def find(self, tenant: str, response_id: str) -> tuple[bytes, bytes] | None:
        """Head and output."""
        record = self._find(tenant, response_id)
        return None if record is None else (record.response.head, record.response.output)

    async def find_input(self, tenant: str, response_id: str) -> bytes | None:
        """Input items."""
        record = self._find(tenant, response_id)
        return None if record is None else record.response.input

    async def walk(self, tenant: str, response_id: str, max_turns: int, max_bytes: int) -> StoredConversation:
        """A conversation."""
        record = self._find(tenant, response_id)
        if record is None:
            return StoredConversation(Walk.MISSING)
        records, session = self._kept(tenant)[conversation_of(response_id)].records, record.response.session
        turns: list[Turn] = []
        num_bytes = 0
        while record is not None:
            turn = Turn(record.response.input, record.response.output)
            num_bytes += len(turn.input) + len(turn.output)
            if len(turns) == max_turns:
                return StoredConversation(Walk.TOO_LONG)
            if num_bytes > max_bytes:
                return StoredConversation(Walk.TOO_LARGE)
            turns.append(turn)
            record = records.get(record.response.previous_id)
        return StoredConversation(Walk.FOUND, turns[::-1], session)

    async def delete(self, tenant: str, response_id: str) -> bool:
        """Forget a response."""
        record = self._find(tenant, response_id)
        if record is None:
            return False
        trees, name = self._kept(tenant), conversation_of(response_id)
        if record.num_children:
            record.is_deleted = True
        else:
            trees[name].drop(response_id)
        if not trees[name].records:
            del trees[name]
        return True

    def _find(self, tenant: str, response_id: str) -> _Record | None:
        tree = self._kept(tenant).get(conversation_of(response_id))
        record = tree.records.get(response_id) if tree is not None else None
        return None if record is None or record.is_deleted else record

    def _kept(self, tenant: str) -> dict[str, _Tree]:
        if self.down:
            raise ResponsesDown("the responses are down")
        trees, now = self._trees.setdefault(tenant, {}), self._clock()
        for name in [name for name, tree in trees.items() if tree.ends_at <= now]:
            del trees[name]
        return trees
