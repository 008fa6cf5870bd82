"""One growing sequence as its caller holds it: what was made, what the detokenizer has seen, what came back.

All ids are kept, so that any replica can take it over. Knows nothing about streams or channels.
"""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from serin.tokenizer.v1 import tokenizer_pb2
from serin_mesh.errors import MeshError, Reason

from serin_gateway.tokenizer import Decoded, TextSink

if TYPE_CHECKING:
    from serin_gateway.upstream.detokenize_stream import DetokenizeStream

FIRST_CREDIT = 1024
"""Ids that may be on their way before the service has said how many."""

_MOVES_ON = frozenset({"NOT_READY", "QUEUE_FULL", "NOT_FOUND"})
"""Failures of one sequence that another replica may not have."""


class GrowingText:
    """One sequence; its `stream` is whoever works on it now.

    Args:
        sequence_id: unique in this gateway.
        vocabulary_digest: vocabulary of its ids.
        sink: who is told.
        relocate: called when it needs another stream.
        went_on: told for how many seconds nothing was heard of it, each time it was lost and is heard of again.
        stop_strings, min_tokens, shown_ids, goes_on: as in :meth:`serin_gateway.tokenizer.Detokenizer.open`.
    """

    def __init__(
        self,
        sequence_id: str,
        vocabulary_digest: str,
        sink: TextSink,
        relocate: Callable[["GrowingText", MeshError], None],
        *,
        stop_strings: Sequence[str],
        min_tokens: int,
        shown_ids: Sequence[int] = (),
        goes_on: bool = False,
        went_on: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._went_on = went_on
        self.sequence_id = sequence_id
        self.stream: DetokenizeStream | None = None
        self.num_relocations = 0
        self.num_tries = 0
        """Times it was lost since it was last heard of."""
        self.lost_at: float | None = None
        """When it was lost; absent while it is heard of."""
        self.is_over = False
        self._vocabulary_digest = vocabulary_digest
        self._sink = sink
        self._relocate = relocate
        self._stop_strings = stop_strings
        self._min_tokens = min_tokens
        self._shown_ids = shown_ids
        self._goes_on = goes_on
        self._token_ids: list[int] = []
        self._is_complete = False
        self._delivered_bytes = 0
        self._num_seen = 0
        self._is_open = False
        self._is_close_sent = False
        self._num_sent = 0
        self._credit = FIRST_CREDIT

    @property
    def is_waiting(self) -> bool:
        """True while the service owes an answer."""
        return not self.is_over and self._is_open and (self._num_sent > self._num_seen or self._is_close_sent)

    # TextSequence:

    @property
    def is_behind(self) -> bool:
        """True while ids wait to be sent."""
        return not self.is_over and self._num_sent < len(self._token_ids)

    def append(self, token_ids: Sequence[int]) -> None:
        """Add ids."""
        if not self.is_over:
            self._token_ids.extend(token_ids)
            self._wake()

    def close(self) -> None:
        """No more ids follow."""
        self._is_complete = True
        self._wake()

    def abandon(self) -> None:
        """Nobody listens any more."""
        if not self.is_over:
            self.is_over = True
            self._is_complete = True
            if self.stream is not None:
                if self._is_open:
                    self._wake()  # the service is told by `close`
                else:
                    self.stream.forget(self)

    # The stream's side:

    def sent(self) -> None:
        """The frame that was taken is on its way."""
        if not self.is_over:
            self._sink.sent()

    def take_frame(self) -> tokenizer_pb2.SequenceFrame | None:
        """The next frame to send; None: nothing until something happens."""
        if not self._is_open:
            if self.is_over or not (self._token_ids or self._is_complete):
                return None
            self._is_open = True
            first = self._token_ids[: max(FIRST_CREDIT, self._num_seen)]
            self._num_sent = len(first)
            opening = tokenizer_pb2.OpenSequence(
                vocabulary_digest=self._vocabulary_digest,
                prior_token_ids=first,
                delivered_byte_count=self._delivered_bytes,
                stop_strings=self._stop_strings,
                min_token_count=self._min_tokens,
                shown_token_ids=self._shown_ids,
                continues_text=self._goes_on,
            )
            return tokenizer_pb2.SequenceFrame(sequence_id=self.sequence_id, open=opening)
        if self._num_sent > self._num_seen and not self._is_complete:
            return None  # what comes meanwhile goes with the next frame: a frame costs more than its ids
        room = self._num_seen + self._credit - self._num_sent
        if self._num_sent < len(self._token_ids) and room > 0 and not self.is_over:
            part = self._token_ids[self._num_sent : self._num_sent + room]
            self._num_sent += len(part)
            append = tokenizer_pb2.AppendTokens(token_ids=part)
            return tokenizer_pb2.SequenceFrame(sequence_id=self.sequence_id, append=append)
        if self._is_complete and not self._is_close_sent and (self.is_over or self._num_sent == len(self._token_ids)):
            self._is_close_sent = True
            return tokenizer_pb2.SequenceFrame(sequence_id=self.sequence_id, close=tokenizer_pb2.CloseSequence())
        return None

    def received(self, news: tokenizer_pb2.SequenceNews) -> None:
        """What the service says about it."""
        if self.is_over:
            return
        if news.HasField("failure"):
            self._failed(news.failure.reason, news.failure.message)
            return
        if self.lost_at is not None:
            self._went_on(time.monotonic() - self.lost_at)
            self.lost_at, self.num_tries = None, 0
        if news.credit:
            self._credit = news.credit
        self._delivered_bytes = news.delivered_byte_count
        self._num_seen = max(self._num_seen, news.watermark)
        stop_string = news.stop.stop_string if news.HasField("stop") else None
        self.is_over = news.closed or stop_string is not None
        counted = news.stop.token_count if stop_string is not None else self._num_seen
        self._sink.decoded(Decoded(news.text, counted, stop_string, self.is_over))
        if not self.is_over and (self._num_sent < len(self._token_ids) or self._is_complete):
            self._wake()

    def lost(self, error: MeshError) -> None:
        """Its stream is gone: another one begins where this one was."""
        self.stream = None
        if not self.is_over:
            self._restart()
            self.num_relocations += 1
            self.num_tries += 1
            if self.lost_at is None:
                self.lost_at = time.monotonic()
            self._relocate(self, error)

    def fail(self, error: MeshError) -> None:
        """It cannot go on."""
        if not self.is_over:
            self.is_over = True
            self._sink.failed(error)

    def _failed(self, reason: str, message: str) -> None:
        error = MeshError(Reason.__members__.get(reason, Reason.INTERNAL), message)
        if self.stream is not None:
            self.stream.forget(self)
        if reason in _MOVES_ON:
            self.lost(error)
        else:
            self.fail(error)

    def _restart(self) -> None:
        self._is_open = False
        self._is_close_sent = False
        self._num_sent = 0
        self._credit = FIRST_CREDIT

    def _wake(self) -> None:
        if self.stream is not None:
            self.stream.wake(self)
