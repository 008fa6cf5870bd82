"""One request's outputs on their way from the engine's thread to whoever awaits them, coalesced.

Tokens made since the last read arrive as one delta a choice. Lives on one asyncio loop; knows nothing about the engine.
"""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from serin_worker.errors import ReaderTooSlow
from serin_worker.outputs import Delta, Failed, Output, Scored, Summary


class Cancel(Protocol):
    """What a stream calls once when its reader is gone before its last output."""

    def __call__(self, request_id: str) -> None:
        """Abort the request."""
        ...


class OutputStream:
    """Outputs of one request. Close it, or use it as a context manager: an unfinished request is then aborted."""

    def __init__(self, request_id: str, cancel: Cancel, max_pending_tokens: int = 65_536) -> None:
        self.request_id = request_id
        self._cancel = cancel
        self._max_pending_tokens = max_pending_tokens
        self._num_pending_tokens = 0
        self._pending: list[Output] = []
        self._deltas: dict[int, Delta] = {}
        self._arrived = asyncio.Event()
        self._on_arrival: Callable[[], None] = self._arrived.set
        self._is_over = False

    @property
    def is_over(self) -> bool:
        """Whether the last output was pushed, or the reader is gone."""
        return self._is_over

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def read(self) -> list[Output]:
        """Everything since the last read, at least one output; empty once the last one was read."""
        if not self._pending and not self._is_over:
            await self._arrived.wait()
        self._arrived.clear()
        return self.take()

    def listen(self, on_arrival: Callable[[], None]) -> None:
        """Have this called whenever there is something to take, instead of anybody waiting in :meth:`read`."""
        self._on_arrival = on_arrival
        if self._pending:
            on_arrival()

    def take(self) -> list[Output]:
        """Everything since the last time, at once; empty if there is nothing."""
        pending, self._pending = self._pending, []
        self._deltas.clear()
        self._num_pending_tokens = 0
        return pending

    def push(self, output: Output) -> None:
        """Add an output; a delta grows the unread delta of its choice."""
        if self._is_over:
            return
        if isinstance(output, Delta):
            self._push_delta(output)
        else:
            self._pending.append(output)
            self._is_over = isinstance(output, (Summary, Scored, Failed))
        self._on_arrival()

    def close(self) -> None:
        """The reader is gone."""
        if not self._is_over:
            self._is_over = True
            self._cancel(self.request_id)
        self._pending.clear()
        self._on_arrival()

    def _push_delta(self, delta: Delta) -> None:
        known = self._deltas.get(delta.choice_index)
        if known is None:
            self._deltas[delta.choice_index] = delta
            self._pending.append(delta)
        else:
            known.token_ids += delta.token_ids
            known.logprobs += delta.logprobs
        self._num_pending_tokens += len(delta.token_ids)
        if self._num_pending_tokens > self._max_pending_tokens:
            self._is_over = True
            self._pending = [Failed(ReaderTooSlow(self._num_pending_tokens))]
            self._cancel(self.request_id)
