"""Keeps responses for their projects, and says in words for callers what cannot be done.

Knows nothing about how a response is written, nor where it is kept.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from serin_mesh.errors import MeshError, Reason

from serin_gateway.ask import refuse
from serin_gateway.responses.identifier import conversation_of
from serin_gateway.responses.store import (
    Bounds,
    Kept,
    ResponsesDown,
    ResponseStore,
    StoredConversation,
    StoredResponse,
    Walk,
)

T = TypeVar("T")

MAX_TURNS = 1024
"""Responses of one conversation."""
MAX_RESPONSE_BYTES = 16 << 20
"""Of one response with its own input; what is larger is delivered, and not kept."""
DAY_S = 86_400.0


class ResponseDesk:
    """What is kept of responses.

    Args:
        store: where.
        on_not_kept: told why a response that was to be kept is not: ``away``, ``large``, ``full`` or ``gone``.
    """

    def __init__(self, store: ResponseStore, on_not_kept: Callable[[str], None] = lambda why: None) -> None:
        self._store = store
        self._on_not_kept = on_not_kept

    async def may_keep(self, wanted: bool | None, bounds: Bounds) -> bool:
        """Whether a response is to be kept; by default it is, where anything is.

        Raises:
            MeshError: it is wanted by name, and PARAMETER_UNSUPPORTED, nothing is kept here; NOT_READY, the store is
                away.
        """
        if wanted and bounds.ttl_s <= 0:
            raise refuse(
                "store", "this mesh keeps no responses; accepted: false, or left out", Reason.PARAMETER_UNSUPPORTED
            )
        if wanted:
            await self._ask(self._store.reach())
        return wanted is not False and bounds.ttl_s > 0

    async def conversation(self, tenant: str, response_id: str, max_bytes: int) -> StoredConversation:
        """The conversation that a response ends.

        Raises:
            MeshError: NOT_FOUND; PARAMETER_INVALID, it has more turns or bytes than one request may have; NOT_READY.
        """
        _check(response_id, "previous_response_id")
        found = await self._ask(self._store.walk(tenant, response_id, MAX_TURNS, max_bytes))
        if found.walk is Walk.MISSING:
            raise _not_kept(response_id, "previous_response_id")
        if found.walk is Walk.TOO_LONG:
            raise refuse("previous_response_id", f"its conversation has {MAX_TURNS} responses; begin another one")
        if found.walk is Walk.TOO_LARGE:
            raise refuse("previous_response_id", f"its conversation has over {max_bytes} bytes; begin another one")
        return found

    async def keep(self, tenant: str, response: StoredResponse, bounds: Bounds) -> bool:
        """Keep a response that has been made; whether that was possible."""
        if response.num_bytes > MAX_RESPONSE_BYTES:
            self._on_not_kept("large")
            return False
        try:
            kept = await self._store.put(tenant, response, bounds)
        except ResponsesDown:
            self._on_not_kept("away")
            return False
        if kept is not Kept.KEPT:
            self._on_not_kept(kept.value)
        return kept is Kept.KEPT

    async def find(self, tenant: str, response_id: str) -> tuple[bytes, bytes]:
        """Head and output of a response, as JSON.

        Raises:
            MeshError: NOT_FOUND, NOT_READY.
        """
        _check(response_id)
        found = await self._ask(self._store.find(tenant, response_id))
        if found is None:
            raise _not_kept(response_id)
        return found

    async def find_input(self, tenant: str, response_id: str) -> bytes:
        """The input items of a response, as a JSON list.

        Raises:
            MeshError: NOT_FOUND, NOT_READY.
        """
        _check(response_id)
        found = await self._ask(self._store.find_input(tenant, response_id))
        if found is None:
            raise _not_kept(response_id)
        return found

    async def delete(self, tenant: str, response_id: str) -> None:
        """Forget a response; what continues it goes on.

        Raises:
            MeshError: NOT_FOUND, NOT_READY.
        """
        _check(response_id)
        if not await self._ask(self._store.delete(tenant, response_id)):
            raise _not_kept(response_id)

    async def _ask(self, call: Awaitable[T]) -> T:
        try:
            return await call
        except ResponsesDown as error:
            raise MeshError(
                Reason.NOT_READY,
                "kept responses cannot be reached at the moment; try again shortly",
                retry_after_s="2",
            ) from error


def _check(response_id: str, parameter: str = "response_id") -> None:
    """Nobody is asked for what is no response's identifier."""
    if not conversation_of(response_id):
        raise _not_kept(response_id, parameter)


def _not_kept(response_id: str, parameter: str = "response_id") -> MeshError:
    return MeshError(
        Reason.NOT_FOUND,
        f"{parameter}: no response {response_id[:128]!r} of this project is kept",
        parameter=parameter,
    )
