"""One `Detokenize` call and the sequences on it.

Frames of many sequences share it; ids of one sequence that wait for their turn travel together. Knows nothing about
lanes, other streams, or what becomes of a sequence when the call breaks.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import grpc
from serin.tokenizer.v1 import tokenizer_pb2
from serin_mesh.errors import MeshError, Reason

from serin_gateway.upstream.stream_writer import write_on
from serin_gateway.upstream.text_sequence import GrowingText

MAX_FRAMES = 256
"""Frames in one message."""
STALL_S = 3.0
"""A service that owes answers and says nothing for this long is given up."""


class DetokenizeStream:
    """A running call.

    Args:
        call: the call, request and response side not begun.
        on_end: told once when the call is over, with the reason.
        is_of_lane: whether it can only meet the tokenizers that its sequences belong to. Else it is over as soon as
            one is refused for its vocabulary: they all have the same.
    """

    def __init__(
        self, call: Any, on_end: Callable[["DetokenizeStream", MeshError], None], *, is_of_lane: bool = True
    ) -> None:
        self.sequences: dict[str, GrowingText] = {}
        self.began_at = time.monotonic()
        self._call = call
        self._on_end = on_end
        self._is_of_lane = is_of_lane
        self._ready: deque[GrowingText] = deque()
        self._queued: set[str] = set()
        self._taken: list[GrowingText] = []
        """Those whose frames are in the message that is being written."""
        self._woken = asyncio.Event()
        self._heard_at = self.began_at
        self._waiting_since: float | None = None
        self._task = asyncio.create_task(self._run(), name="detokenize")

    def add(self, sequence: GrowingText) -> None:
        """Work on a sequence from now on."""
        self.sequences[sequence.sequence_id] = sequence
        sequence.stream = self
        self.wake(sequence)

    def wake(self, sequence: GrowingText) -> None:
        """A sequence may have a frame to send."""
        if sequence.sequence_id not in self._queued:
            self._queued.add(sequence.sequence_id)
            self._ready.append(sequence)
            self._woken.set()

    def forget(self, sequence: GrowingText) -> None:
        """A sequence is over, here at least."""
        self.sequences.pop(sequence.sequence_id, None)

    def check(self, now: float) -> None:
        """Give the call up if the service owes answers and is silent."""
        if not any(one.is_waiting for one in self.sequences.values()):
            self._waiting_since = None
        elif self._waiting_since is None:
            self._waiting_since = now
        elif now - max(self._waiting_since, self._heard_at) > STALL_S:
            self._call.cancel()

    async def close(self) -> None:
        """End the call; its sequences fail."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        error = MeshError(Reason.UPSTREAM_UNAVAILABLE, "the tokenizer ended its stream")
        writing = write_on(self._call, self._woken, self._take, self._written)
        writer = asyncio.create_task(writing, name="detokenize writer")
        try:
            await self._read()
        except MeshError as broken:
            error = broken
        except asyncio.CancelledError:
            task = asyncio.current_task()
            error = MeshError(Reason.UPSTREAM_UNAVAILABLE, "the tokenizer did not answer")
            if task is not None and task.cancelling():
                error = MeshError(Reason.NOT_READY, "the gateway is closing")
                raise
        finally:
            writer.cancel()
            self._call.cancel()
            await asyncio.gather(writer, return_exceptions=True)
            self._on_end(self, error)

    async def _read(self) -> None:
        while True:
            response = await self._call.read()
            if response is grpc.aio.EOF:
                return
            self._heard_at = time.monotonic()
            for news in response.news:
                if news.failure.reason == Reason.VOCABULARY_MISMATCH and not self._is_of_lane:
                    raise MeshError(Reason.VOCABULARY_MISMATCH, news.failure.message)
                sequence = self.sequences.get(news.sequence_id)
                if sequence is not None:
                    if news.closed or news.HasField("stop"):
                        self.forget(sequence)
                    sequence.received(news)

    def _take(self) -> tokenizer_pb2.DetokenizeRequest | None:
        """What sequences have to say, as much as a message takes: a message costs more than its frames."""
        frames: list[tokenizer_pb2.SequenceFrame] = []
        while self._ready and len(frames) < MAX_FRAMES:
            sequence = self._ready.popleft()
            self._queued.discard(sequence.sequence_id)
            taken = list(iter(sequence.take_frame, None))
            if taken:
                frames += taken
                self._taken.append(sequence)
        return tokenizer_pb2.DetokenizeRequest(frames=frames) if frames else None

    def _written(self) -> None:
        taken, self._taken = self._taken, []
        for sequence in taken:
            sequence.sent()
            self.wake(sequence)  # it may have more
