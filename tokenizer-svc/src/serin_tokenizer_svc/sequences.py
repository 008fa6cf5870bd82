"""The sequences of one detokenizing stream: opened, grown and closed by their caller, each failing alone.

Knows nothing about gRPC or protobuf: frames come in as the room's own types, news go to an outbox.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from serin_tokenizer_svc.errors import InputRefused
from serin_tokenizer_svc.outbox import News, Outbox
from serin_tokenizer_svc.sequence import GrowingSequence
from serin_tokenizer_svc.stop_strings import MAX_STOP_BYTES, MAX_STOP_STRINGS, StopFinder
from serin_tokenizer_svc.tally import Tally
from serin_tokenizer_svc.vocabulary import Vocabulary

CREDIT = 4096
"""Ids that a caller may have on their way beyond the last watermark."""
MAX_SEQUENCES = 4096
"""Sequences that may be open on one stream."""
MAX_ID_BYTES = 128
MAX_SHOWN_IDS = 64
REMEMBERED = 4096
"""Ended sequences whose late frames are recognised and passed over."""
CHUNK = 1024
"""Prior ids decoded before other work gets its turn."""


@dataclass(frozen=True, slots=True)
class Opening:
    """How a sequence begins; fields as in ``OpenSequence``."""

    vocabulary_digest: str
    prior_ids: Sequence[int] = ()
    delivered_bytes: int = 0
    stop_strings: tuple[str, ...] = ()
    include_stop: bool = False
    keep_special: bool = False
    min_tokens: int = 0
    shown_ids: frozenset[int] = frozenset()
    continues_text: bool = False


@dataclass(slots=True)
class OpenSequence:
    """An open sequence; ``acknowledged`` is the last watermark that went out."""

    serial: int
    growing: GrowingSequence
    acknowledged: int


class SequenceFailed(Exception):
    """One sequence cannot go on."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Sequences:
    """All sequences of one stream.

    Args:
        vocabulary: decodes.
        digest: of the vocabulary; ids of another one are refused.
        outbox: where news go.
        tally: where is counted.
        report: told of faults that are ours.
    """

    def __init__(
        self, vocabulary: Vocabulary, digest: str, outbox: Outbox, tally: Tally, report: Callable[[Exception], None]
    ) -> None:
        self._vocabulary = vocabulary
        self._digest = digest
        self._outbox = outbox
        self._tally = tally
        self._report = report
        self._open: dict[str, OpenSequence] = {}
        self._by_serial: dict[int, OpenSequence] = {}
        self._ended: dict[str, None] = {}
        self._num_opened = 0
        self._draining = False

    def drain(self) -> None:
        """Refuse new sequences, and end the outbox once the open ones are closed."""
        self._draining = True
        if not self._open:
            self._outbox.end()

    async def open(self, sequence_id: str, opening: Opening) -> None:
        """Begin a sequence, or take it over from where another replica was."""
        if sequence_id in self._open:
            await self._fail(sequence_id, SequenceFailed("PARAMETER_INVALID", "this sequence is open already"))
            return
        self._ended.pop(sequence_id, None)
        self._num_opened += 1
        try:
            self._check(sequence_id, opening)
            growing = GrowingSequence(
                self._vocabulary.stream(opening.keep_special, opening.shown_ids, goes_on=opening.continues_text),
                StopFinder(opening.stop_strings, opening.include_stop) if opening.stop_strings else None,
                min_tokens=opening.min_tokens,
                delivered_bytes=opening.delivered_bytes,
            )
        except SequenceFailed as failure:
            await self._fail(sequence_id, failure)
            return
        opened = OpenSequence(self._num_opened, growing, len(opening.prior_ids))
        self._open[sequence_id] = self._by_serial[opened.serial] = opened
        first = opening.prior_ids[:CHUNK]
        await self._grow(sequence_id, opened, first, credit=CREDIT)
        for at in range(CHUNK, len(opening.prior_ids), CHUNK):
            await asyncio.sleep(0)
            if sequence_id not in self._open:
                return
            await self._grow(sequence_id, opened, opening.prior_ids[at : at + CHUNK])

    async def append(self, sequence_id: str, token_ids: Sequence[int]) -> None:
        """Add ids to a sequence."""
        opened = self._open.get(sequence_id)
        if opened is None:
            await self._meet_unknown(sequence_id)
        elif opened.growing.num_tokens + len(token_ids) - opened.acknowledged > CREDIT:
            sentence = f"more than {CREDIT} ids were sent beyond the last watermark"
            await self._fail(sequence_id, SequenceFailed("PARAMETER_INVALID", sentence))
        else:
            await self._grow(sequence_id, opened, token_ids)

    async def close(self, sequence_id: str) -> None:
        """End a sequence and give what it held back."""
        opened = self._open.get(sequence_id)
        if opened is None:
            await self._meet_unknown(sequence_id)
            return
        try:
            text = opened.growing.close()
        except InputRefused as refused:
            await self._fail(sequence_id, SequenceFailed("PARAMETER_INVALID", str(refused)))
            return
        self._forget(sequence_id)
        await self._tell(sequence_id, opened, text, closed=True)
        self._end_if_drained()

    def acknowledge(self, serial: int, watermark: int) -> None:
        """Note that a watermark went out, which gives the caller credit again."""
        opened = self._by_serial.get(serial)
        if opened is not None:
            opened.acknowledged = max(opened.acknowledged, watermark)

    def _check(self, sequence_id: str, opening: Opening) -> None:
        if not 1 <= len(sequence_id.encode()) <= MAX_ID_BYTES:
            raise SequenceFailed("PARAMETER_INVALID", f"sequence_id: accepted: 1 to {MAX_ID_BYTES} bytes")
        if self._draining:
            raise SequenceFailed("NOT_READY", "this replica is draining; open the sequence on another")
        if len(self._open) >= MAX_SEQUENCES:
            raise SequenceFailed("QUEUE_FULL", f"{MAX_SEQUENCES} sequences are open on this stream; use another")
        if opening.vocabulary_digest != self._digest:
            raise SequenceFailed(
                "VOCABULARY_MISMATCH",
                f"the ids are of vocabulary {opening.vocabulary_digest or '(none)'}; this is {self._digest}",
            )
        if len(opening.stop_strings) > MAX_STOP_STRINGS:
            raise SequenceFailed("PARAMETER_INVALID", f"stop_strings: accepted: at most {MAX_STOP_STRINGS}")
        if len(opening.shown_ids) > MAX_SHOWN_IDS:
            raise SequenceFailed("PARAMETER_INVALID", f"shown_token_ids: accepted: at most {MAX_SHOWN_IDS}")
        if not all(1 <= len(stop.encode()) <= MAX_STOP_BYTES for stop in opening.stop_strings):
            raise SequenceFailed("PARAMETER_INVALID", f"stop_strings: accepted: 1 to {MAX_STOP_BYTES} bytes each")

    async def _grow(self, sequence_id: str, opened: OpenSequence, token_ids: Sequence[int], credit: int = 0) -> None:
        self._tally.num_detokenized += len(token_ids)
        try:
            text = opened.growing.append(token_ids)
            if opened.growing.stop is not None:
                text += opened.growing.close()
        except InputRefused as refused:
            await self._fail(sequence_id, SequenceFailed("PARAMETER_INVALID", str(refused)))
            return
        except Exception as error:  # noqa: BLE001 - a decoder's fault costs one sequence, not all of the stream
            self._report(error)
            await self._fail(sequence_id, SequenceFailed("INTERNAL", "the ids could not be decoded"))
            return
        closed = opened.growing.stop is not None
        if closed:
            self._forget(sequence_id)
        await self._tell(sequence_id, opened, text, closed=closed, credit=credit)
        self._end_if_drained()

    async def _tell(self, sequence_id: str, opened: OpenSequence, text: str, *, closed: bool, credit: int = 0) -> None:
        growing = opened.growing
        news = News(sequence_id, text, growing.num_tokens, growing.delivered_bytes, credit, growing.stop, closed)
        await self._outbox.put(opened.serial, news)

    async def _meet_unknown(self, sequence_id: str) -> None:
        """Frames that crossed the end of their sequence are passed over; others are a caller's mistake."""
        if sequence_id not in self._ended:
            await self._fail(sequence_id, SequenceFailed("NOT_FOUND", "no such sequence is open on this stream"))

    async def _fail(self, sequence_id: str, failure: SequenceFailed) -> None:
        opened = self._open.get(sequence_id)
        self._tally.num_failures += 1
        self._num_opened += 1
        serial = opened.serial if opened is not None else self._num_opened
        news = News(sequence_id, closed=True, failure=(failure.reason, str(failure)))
        if opened is not None:
            news = News(
                sequence_id,
                watermark=opened.growing.num_tokens,
                delivered_bytes=opened.growing.delivered_bytes,
                closed=True,
                failure=(failure.reason, str(failure)),
            )
        self._forget(sequence_id)
        await self._outbox.put(serial, news)
        self._end_if_drained()

    def _end_if_drained(self) -> None:
        if self._draining and not self._open:
            self._outbox.end()

    def _forget(self, sequence_id: str) -> None:
        opened = self._open.pop(sequence_id, None)
        if opened is not None:
            del self._by_serial[opened.serial]
        self._ended[sequence_id] = None
        if len(self._ended) > REMEMBERED:
            del self._ended[next(iter(self._ended))]
