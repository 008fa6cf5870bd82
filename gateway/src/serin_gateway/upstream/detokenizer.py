"""The tokenizer service's `Detokenize` over gRPC: a few streams for each lane, many sequences on each.

When a stream breaks, stalls or its replica drains, its sequences go on on another one, from where they were; while
their lane is gone, on any of their vocabulary. Knows nothing about what sequences are for.
"""

import asyncio
import contextvars
import itertools
import time
from collections.abc import Callable, Sequence

from serin.tokenizer.v1 import tokenizer_pb2_grpc
from serin_mesh.errors import MeshError

from serin_gateway.tokenizer import CallScope, TextSink
from serin_gateway.upstream.begun_route import BegunRoute
from serin_gateway.upstream.detokenize_stream import DetokenizeStream
from serin_gateway.upstream.targets import Channels
from serin_gateway.upstream.text_sequence import GrowingText
from serin_gateway.upstream.tokenizer import RESTART_PATIENCE_S, tokenizer_lost

MAX_STREAMS = 4
"""Streams of one lane."""
BUSY_SEQUENCES = 32
"""Sequences on a stream before another one is opened."""
STREAM_AGE_S = 600.0
"""After this a stream takes no new sequences, so that load finds new replicas."""
MAX_RELOCATIONS = 64
"""Of one sequence, in all."""
CHECK_EVERY_S = 1.0


class GrpcDetokenizer:
    """Opens sequences on the tokenizers of any lane; `watch` is a task of whoever owns it.

    Args:
        channels: how tokenizers are reached.
        on_pause: told the model and the seconds for which a sequence had lost its tokenizer, once it goes on.
    """

    def __init__(self, channels: Channels, on_pause: Callable[[str, float], None] = lambda _, __: None) -> None:
        self._channels = channels
        self._on_pause = on_pause
        self._lanes: dict[tuple[str, str], _LaneStreams] = {}
        self._numbers = itertools.count()

    def open(
        self,
        scope: CallScope,
        sink: TextSink,
        *,
        stop_strings: Sequence[str] = (),
        min_tokens: int = 0,
        shown_ids: Sequence[int] = (),
        goes_on: bool = False,
    ) -> GrowingText:
        """Begin a sequence."""
        key = (scope.model, scope.lane.lane)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _LaneStreams(self._channels, scope)
        sequence = GrowingText(
            f"s{next(self._numbers)}",
            scope.lane.vocabulary_digest,
            sink,
            lane.relocate,
            stop_strings=stop_strings,
            min_tokens=min_tokens,
            shown_ids=shown_ids,
            goes_on=goes_on,
            went_on=lambda pause_s: self._on_pause(scope.model, pause_s),
        )
        lane.place(sequence)
        return sequence

    async def watch(self) -> None:
        """Give up stalled streams and close those that nobody needs, for as long as this task lives."""
        while True:
            await asyncio.sleep(CHECK_EVERY_S)
            await self.check(time.monotonic())

    async def check(self, now: float) -> None:
        """Look after all streams, once."""
        for key, lane in list(self._lanes.items()):
            await lane.check(now)
            if not lane.streams:
                del self._lanes[key]

    async def close(self) -> None:
        """Close all streams; what is open fails."""
        for lane in self._lanes.values():
            await lane.close()
        self._lanes.clear()


class _LaneStreams:
    """The streams of one lane."""

    def __init__(self, channels: Channels, scope: CallScope) -> None:
        self.streams: list[DetokenizeStream] = []
        self._channels = channels
        self._scope = scope
        self._route = BegunRoute(scope.lane)
        self._is_closing = False
        self._waiting: dict[str, asyncio.TimerHandle] = {}

    def place(self, sequence: GrowingText) -> None:
        """Put a sequence on the stream with the fewest."""
        now = time.monotonic()
        young = [stream for stream in self.streams if now - stream.began_at < STREAM_AGE_S]
        best = min(young, key=lambda stream: len(stream.sequences), default=None)
        if best is None or (len(best.sequences) >= BUSY_SEQUENCES and len(young) < MAX_STREAMS):
            best = self._open()
        best.add(sequence)

    def relocate(self, sequence: GrowingText, error: MeshError) -> None:
        """A sequence has lost its stream: another one takes it, at once the first time, later after a pause."""
        if self._is_closing:
            sequence.fail(error)
            return
        away_s = time.monotonic() - (sequence.lost_at or time.monotonic())
        if away_s > RESTART_PATIENCE_S or sequence.num_relocations > MAX_RELOCATIONS:
            sequence.fail(tokenizer_lost(self._scope))
            return
        self._route.failed(error)
        pause_s = 0.0 if sequence.num_tries == 1 else min(1.0, 0.05 * 2 ** min(sequence.num_tries, 8))
        loop = asyncio.get_running_loop()
        self._waiting[sequence.sequence_id] = loop.call_later(pause_s, self._place_again, sequence)

    async def check(self, now: float) -> None:
        """Give up stalled streams, close old ones that are idle."""
        for stream in list(self.streams):
            stream.check(now)
            if not stream.sequences and now - stream.began_at >= STREAM_AGE_S:
                self.streams.remove(stream)
                await stream.close()

    async def close(self) -> None:
        """Close all streams."""
        self._is_closing = True
        for handle in self._waiting.values():
            handle.cancel()
        for stream in list(self.streams):
            await stream.close()

    def _place_again(self, sequence: GrowingText) -> None:
        self._waiting.pop(sequence.sequence_id, None)
        if not sequence.is_over:
            self.place(sequence)

    def _open(self) -> DetokenizeStream:
        stub = self._channels.stub(tokenizer_pb2_grpc.TokenizerServiceStub, "tokenizer", self._scope.model)
        route = self._route
        # The stream outlives the request that needs it first: it is no part of that one's trace or deadline.
        stream = contextvars.Context().run(
            lambda: DetokenizeStream(stub.Detokenize(metadata=route.metadata), self._ended, is_of_lane=route.names_lane)
        )
        self.streams.append(stream)
        return stream

    def _ended(self, stream: DetokenizeStream, error: MeshError) -> None:
        if stream in self.streams:
            self.streams.remove(stream)
        for sequence in list(stream.sequences.values()):
            sequence.lost(error)
        stream.sequences.clear()
