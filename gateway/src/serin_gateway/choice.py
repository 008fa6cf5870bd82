"""One choice as it grows: ids in; text, reasoning and calls out; and where it ended.

Knows nothing about workers or other choices; its generation hears what it has to say.
"""

import secrets
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from serin_mesh.errors import MeshError, Reason

from serin_gateway.events import (
    ChoiceEnded,
    FinishReason,
    ReasoningChunk,
    TextChunk,
    TextLogprob,
    ToolCallBegun,
    ToolCallEnded,
    ToolCallGrew,
)
from serin_gateway.guards.answers import AnswerGuard
from serin_gateway.reading.parts import CallBegun, CallGrew, CallPart, Part, Reasoned, Said
from serin_gateway.reading.reading import Reading
from serin_gateway.recall import StoredChoice
from serin_gateway.refusals import OPENING_CHARACTERS
from serin_gateway.tokenizer import Decoded, TextSequence
from serin_gateway.worker import ChoiceMade, TokenLogprob, TokensMade

if TYPE_CHECKING:
    from serin_gateway.generation import Generation


class ChoiceOutput:
    """The output of one choice; the sink of its text sequence.

    Args:
        generation: hears what it has to say.
        index: of the choice in its request.
        report_tokens: ids and log-probabilities go with the text.
        report_end: so does the token that ended it, though it is no text.
        reading: tells its reasoning and calls from its text; None: all of it is text.
        guard: looks at all of it before anybody sees it; None: nothing does.
        keeps_alternatives: of log-probabilities, for an answer that may be kept; they take more than all else of it.
    """

    def __init__(
        self,
        generation: "Generation",
        index: int,
        report_tokens: bool,
        report_end: bool,
        reading: Reading | None = None,
        guard: AnswerGuard | None = None,
        *,
        keeps_alternatives: bool = True,
    ) -> None:
        self._keeps_alternatives = keeps_alternatives
        self._reading = reading
        self._guard = guard
        self._generation = generation
        self._index = index
        self._report_tokens = report_tokens
        self._report_end = report_end
        self._num_calls = 0
        self._has_called = False
        self._spelled: list[TextLogprob] = []  # of the tokens that are not reported yet
        self._num_reported = 0
        self._reported_bytes = 0  # bytes of the tokens reported with log-probabilities
        self._text_bytes = 0
        self._made: ChoiceMade | None = None
        self.text_sequence: TextSequence | None = None
        self.token_ids: list[int] = []
        self.logprobs: list[TokenLogprob] = []
        self.num_decoded = 0
        self.opening = ""
        """How the text begins: enough of it to tell a refusal."""
        self.ended: ChoiceEnded | None = None
        self._num_counted: int | None = None

    @property
    def is_made(self) -> bool:
        """True when no worker is needed for it: it was made to its end, or a stop string ended it."""
        return self._made is not None or self.ended is not None

    @property
    def num_undecoded(self) -> int:
        """Ids that have not become text yet."""
        return len(self.token_ids) - self.num_decoded

    @property
    def is_behind(self) -> bool:
        """True while more ids would only wait."""
        return self.text_sequence is not None and self.text_sequence.is_behind

    @property
    def has_ended(self) -> bool:
        """True when its last text is in the outbox."""
        return self.ended is not None

    @property
    def is_guarded_text(self) -> bool:
        """True when what its caller saw is not what was made."""
        return self._guard is not None and (self._guard.has_masked or self._guard.refusal is not None)

    @property
    def num_counted(self) -> int:
        """Tokens up to the one that completes a stop."""
        return len(self.token_ids) if self._num_counted is None else self._num_counted

    @property
    def num_reasoning_tokens(self) -> int:
        """Those of the tokens that are reasoning, marks included."""
        return min(self._reading.num_reasoning_tokens, self.num_counted) if self._reading is not None else 0

    @property
    def reported_logprobs(self) -> Sequence[float]:
        """Log-probabilities (nats) of the tokens that are its text: all that count, but for an id that ends it."""
        ends = self.ended is not None and self.ended.stop_token_id is not None
        return [one.logprob for one in self.logprobs[: self.num_counted - ends]]

    def beyond_known(self, event: TokensMade) -> tuple[Sequence[int], Sequence[TokenLogprob]]:
        """The part of a worker's event that is new; a resumed worker may repeat, but never leave a gap.

        Raises:
            MeshError: INTERNAL, a gap.
        """
        if self.is_made:  # by a stop string: the worker goes on with it as long as other choices need it
            return (), ()
        repeated = len(self.token_ids) - event.first_position
        if repeated < 0:
            raise MeshError(
                Reason.INTERNAL,
                f"a worker went from position {len(self.token_ids)} to {event.first_position} of a choice",
            )
        return event.token_ids[repeated:], event.logprobs[repeated:]

    def append(
        self, token_ids: Sequence[int], logprobs: Sequence[TokenLogprob], spelled: Sequence[TextLogprob]
    ) -> None:
        """Take in ids."""
        self.token_ids.extend(token_ids)
        self.logprobs.extend(logprobs if self._keeps_alternatives else map(_alone, logprobs))
        self._spelled.extend(spelled)
        assert self.text_sequence is not None
        self.text_sequence.append(token_ids)

    def made(self, event: ChoiceMade) -> None:
        """The worker has ended it; its last text may still be on its way."""
        if self._made is None and self.ended is None:
            self._made = event
            assert self.text_sequence is not None
            self.text_sequence.close()

    def stored(self) -> StoredChoice:
        """The choice as an answer to keep."""
        assert self.ended is not None
        end, counted = self.ended, self.num_counted
        # Whether its text calls tools is found anew by whoever is given it.
        why = FinishReason.STOP if end.finish_reason is FinishReason.TOOL_CALLS else end.finish_reason
        return StoredChoice(self.token_ids[:counted], self.logprobs[:counted], why, end.stop_token_id, end.stop_string)

    def abandon(self) -> None:
        """Free its text sequence."""
        if self.text_sequence is not None:
            self.text_sequence.abandon()

    # TextSink:

    def decoded(self, news: Decoded) -> None:
        """Text became certain, or a stop string ended the choice, or all of it is out."""
        if self.ended is not None:
            return
        self.num_decoded = news.num_tokens
        is_last = news.closed or news.stop_string is not None
        parts: list[Part] = [Said(news.text)]
        if self._reading is not None:
            parts = self._reading.read(news, is_last, self.token_ids)
        is_complete = self._reading is not None and self._reading.is_complete
        if self._guard is not None:
            try:
                parts = self._guard.read(parts, is_last=is_last or is_complete)
            except MeshError as error:
                self.failed(error)
                return
        token_ids, logprobs = self._due(news) if self._report_tokens else ([], [])
        for part in parts:
            if isinstance(part, Said):
                self._say(part.text, token_ids, logprobs)
                token_ids, logprobs = [], []
            else:
                self._tell(part)
        if token_ids:
            self._say("", token_ids, logprobs)
        if self._guard is not None and self._guard.refusal is not None:
            self._end(ChoiceEnded(self._index, FinishReason.CONTENT_FILTER), news.num_tokens)
        elif is_complete:
            self._end(ChoiceEnded(self._index, FinishReason.TOOL_CALLS), news.num_tokens)
        elif news.stop_string is not None:
            end = ChoiceEnded(self._index, self._finish(FinishReason.STOP), stop_string=news.stop_string)
            self._end(end, news.num_tokens)
        elif news.closed:
            assert self._made is not None
            why, stop_token_id = self._finish(self._made.finish_reason), self._made.stop_token_id
            self._end(ChoiceEnded(self._index, why, stop_token_id=stop_token_id), len(self.token_ids))
        else:
            self._generation.moved()

    def sent(self) -> None:
        """Ids that waited are on their way to become text."""
        self._generation.moved()

    def failed(self, error: MeshError) -> None:
        """The text cannot go on."""
        if self.ended is None:
            self._generation.choice_failed(error)

    def _say(self, text: str, token_ids: list[int], logprobs: list[TextLogprob]) -> None:
        if len(self.opening) < OPENING_CHARACTERS:
            self.opening += text[:OPENING_CHARACTERS]
        if text or token_ids:
            self._generation.put(TextChunk(self._index, text, token_ids, logprobs))

    def _tell(self, part: Reasoned | CallPart) -> None:
        index, call = self._index, self._num_calls
        if isinstance(part, Reasoned):
            self._generation.put(ReasoningChunk(index, part.text))
        elif isinstance(part, CallBegun):
            self._generation.put(ToolCallBegun(index, call, secrets.token_hex(12), part.name))
        elif isinstance(part, CallGrew):
            self._generation.put(ToolCallGrew(index, call, part.arguments_json))
        else:
            self._generation.put(ToolCallEnded(index, call, part.is_whole))
            self._num_calls += 1
            self._has_called = self._has_called or part.is_whole

    def _finish(self, why: FinishReason) -> FinishReason:
        """An answer that calls and ends by itself ends for its calls; one that was cut, in a call too, was cut."""
        is_cut = self._reading is not None and self._reading.has_broken_off
        return FinishReason.TOOL_CALLS if self._has_called and not is_cut and why is FinishReason.STOP else why

    def _end(self, end: ChoiceEnded, num_counted: int) -> None:
        self.ended = end
        self._num_counted = num_counted
        self._generation.put(end)
        self._generation.choice_ended()

    def _due(self, news: Decoded) -> tuple[list[int], list[TextLogprob]]:
        """Ids, and their log-probabilities if wanted, whose text this news brings to an end.

        With log-probabilities, tokens whose text is held back (it may begin a stop string) wait for it, so that the
        reported tokens spell the text; an end id that is no text is left out, unless it is to be reported.
        """
        start, end = self._num_reported, news.num_tokens
        spelled = self._spelled
        if spelled:
            if news.text and not self._text_bytes and spelled[0].raw[:1] == b" " != news.text[:1].encode():
                self._reported_bytes -= 1  # the tokenizer takes a space off an answer's beginning
            self._text_bytes += len(news.text.encode())
            if news.stop_string is not None:
                end = self._first_beyond(end, lambda begins, _: begins >= self._text_bytes)
            elif not news.closed:
                end = self._first_beyond(end, lambda _, ends: ends > self._text_bytes)
            elif self._made is not None and self._made.stop_token_id is not None and not self._report_end:
                end -= 1
            self._spelled = spelled[max(0, end - start) :]
            self._reported_bytes += sum(len(one.raw) for one in spelled[: max(0, end - start)])
        self._num_reported = max(start, end)
        return self.token_ids[start:end], spelled[: max(0, end - start)]

    def _first_beyond(self, limit: int, is_beyond: Callable[[int, int], bool]) -> int:
        """The first token not reported yet whose (first byte, end byte) in the text is beyond, or ``limit``."""
        begins = self._reported_bytes
        for position in range(self._num_reported, limit):
            ends = begins + len(self._spelled[position - self._num_reported].raw)
            if is_beyond(begins, ends):
                return position
            begins = ends
        return limit


def _alone(one: TokenLogprob) -> TokenLogprob:
    return TokenLogprob(one.logprob, ()) if one.alternatives else one
