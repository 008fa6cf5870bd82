"""Everything one prompt has produced so far, over however many workers it takes.

Ids come from workers, go to the detokenizer, and come back as text that is put into the outbox; stop strings are found
on the way. All ids are kept, so that work goes on elsewhere when a worker dies. Knows nothing about placing, retrying
or how anything is called.
"""

import asyncio
from collections.abc import Callable, Sequence

from serin_mesh.errors import MeshError, Reason

from serin_gateway.choice import ChoiceOutput
from serin_gateway.conversation import Conversation
from serin_gateway.events import Event, FinishReason, Started, TextLogprob
from serin_gateway.guards.answers import AnswerGuard
from serin_gateway.outbox import Outbox
from serin_gateway.placement import PlacedWork
from serin_gateway.reading.form import AnswerForm
from serin_gateway.reading.reading import reading_of
from serin_gateway.recall import StoredChoice
from serin_gateway.spelling import spell
from serin_gateway.tokenizer import CallScope, Detokenizer, Tokenizer
from serin_gateway.worker import ChoiceMade, PriorOutput, TokenLogprob, TokensMade, Work, WorkDone, WorkStarted

MAX_UNDECODED_TOKENS = 1024
"""Ids of a choice on their way through the detokenizer beyond which no more are read from the worker."""

REPLAYED_TOKENS = 512
"""Ids of a stored answer that are taken in at once."""


class Generation:
    """The output of one prompt.

    Args:
        scope: for calls made on the way.
        tokenizer: spells tokens for log-probability reports.
        detokenizer: turns ids into text.
        outbox: where text goes.
        announcement: put into the outbox before everything else; it names the index of the first choice.
        num_choices: answers to the prompt.
        stop_strings: strings that end an answer.
        min_tokens: ids before which stop strings are not looked for.
        report_tokens: true to send ids and log-probabilities with the text.
        report_end: so is the token that ended an answer, though it is no text.
        spell_logprobs: false where log-probabilities are for us alone: nothing of them goes out.
        form: how the answers are written.
        conversation: what they answer; None: a plain prompt, all of whose answers is text.
        grow_calls: calls are told as they grow, else when they are whole.
        on_tokens: told each time a worker has made tokens.
        guard: makes what looks at a choice before anybody sees it; None: nothing does.
        keeps_alternatives: whether choices can be stored with all of their log-probabilities.
    """

    def __init__(
        self,
        scope: CallScope,
        tokenizer: Tokenizer,
        detokenizer: Detokenizer,
        outbox: Outbox,
        announcement: Started,
        *,
        num_choices: int = 1,
        stop_strings: Sequence[str] = (),
        min_tokens: int = 0,
        report_tokens: bool = False,
        report_end: bool = False,
        spell_logprobs: bool = True,
        form: AnswerForm = AnswerForm(),  # noqa: B008 - frozen
        conversation: Conversation | None = None,
        grow_calls: bool = False,
        on_tokens: Callable[[], None] = lambda: None,
        guard: Callable[[], AnswerGuard | None] = lambda: None,
        keeps_alternatives: bool = True,
    ) -> None:
        self._scope = scope
        self._tokenizer = tokenizer
        self._outbox = outbox
        self._announcement = announcement
        self._on_tokens = on_tokens
        self._spell_logprobs = spell_logprobs
        self._work: Work | None = None
        self._failure: MeshError | None = None
        self._moved = asyncio.Event()
        self._num_open = num_choices
        self.started: WorkStarted | None = None
        """From the first worker that began: what was cached then, and the class of its arithmetic."""
        self.now: WorkStarted | None = None
        """From the worker that works on it now, or did last; absent: it has not begun."""
        self.done: WorkDone | None = None
        self.has_begun = False
        first = announcement.first_choice_index
        readings = [reading_of(form, conversation, grows=grow_calls) for _ in range(num_choices)]
        self.choices = [
            ChoiceOutput(
                self, first + i, report_tokens, report_end, one, guard(), keeps_alternatives=keeps_alternatives
            )
            for i, one in enumerate(readings)
        ]
        for choice, reading in zip(self.choices, readings, strict=True):
            choice.text_sequence = detokenizer.open(
                scope,
                choice,
                stop_strings=stop_strings,
                min_tokens=min_tokens,
                shown_ids=form.marking_ids if reading is not None else (),
                goes_on=conversation is None or conversation.continues,
            )

    @property
    def has_output(self) -> bool:
        """True once a token exists: from then on the weights are fixed."""
        return any(choice.token_ids for choice in self.choices)

    @property
    def is_made(self) -> bool:
        """True when no worker is needed any more."""
        return all(choice.is_made for choice in self.choices)

    @property
    def is_guarded_text(self) -> bool:
        """True when what callers saw is not what was made: guards masked some of it, or ended it."""
        return any(choice.is_guarded_text for choice in self.choices)

    @property
    def num_tokens(self) -> int:
        """Tokens that count, of all choices."""
        return sum(choice.num_counted for choice in self.choices)

    @property
    def num_reasoning_tokens(self) -> int:
        """Those of them that are reasoning."""
        return sum(choice.num_reasoning_tokens for choice in self.choices)

    def prior_outputs(self) -> list[PriorOutput]:
        """What the next worker is told to go on from; empty at the beginning."""
        if not self.has_output:
            return []
        return [PriorOutput(i, list(choice.token_ids), choice.is_made) for i, choice in enumerate(self.choices)]

    async def follow(self, work: Work, placed: PlacedWork) -> None:
        """Take in what a worker makes until every choice has been made.

        Raises:
            MeshError: the worker or the detokenizer failed. What was produced so far stays.
        """
        self._work = work
        self.now = None
        try:
            async for event in work:
                if isinstance(event, TokensMade):
                    placed.prefilled()
                    await self._catch_up(self.choices[event.choice_index])  # before: an end goes with the last tokens
                    await self._tokens_made(event)
                elif isinstance(event, ChoiceMade):
                    self._choice_made(event)
                elif isinstance(event, WorkStarted):
                    self.now = event
                    self.started = self.started or event
                else:
                    self.done = event
                    break
        except MeshError:
            if not self.is_made:  # else only the farewell was lost
                raise
        finally:
            self._work = None
            work.abort()
        self.check()
        if not self.is_made:
            raise MeshError(Reason.UPSTREAM_UNAVAILABLE, "the worker's stream ended before all choices did")

    async def replay(self, answer: Sequence[StoredChoice]) -> None:
        """Take in a stored answer instead of a worker's."""
        for index, stored in enumerate(answer[: len(self.choices)]):
            ids, logprobs, piece = stored.token_ids, stored.logprobs, REPLAYED_TOKENS
            for at in range(0, max(1, len(ids)), piece):
                await self._tokens_made(TokensMade(index, at, ids[at : at + piece], logprobs[at : at + piece]))
                await self._catch_up(self.choices[index])
            self._choice_made(ChoiceMade(index, stored.finish_reason, stored.stop_token_id))

    def make_nothing(self) -> None:
        """End every choice before its first token: the prompt alone was asked for."""
        for index in range(len(self.choices)):
            self._choice_made(ChoiceMade(index, FinishReason.LENGTH, None))

    async def finish(self) -> None:
        """Wait until all text is in the outbox.

        Raises:
            MeshError: the detokenizer failed.
        """
        while self._num_open:
            await self._wait_for_move()

    def check(self) -> None:
        """Whether its text can go on.

        Raises:
            MeshError: it cannot: the detokenizer failed.
        """
        if self._failure is not None:
            raise self._failure

    def abandon(self) -> None:
        """Free what is held elsewhere; nothing is put into the outbox from now on."""
        for choice in self.choices:
            choice.abandon()
        if self._work is not None:
            self._work.abort()

    def _choice_made(self, event: ChoiceMade) -> None:
        self._announce()
        self.choices[event.choice_index].made(event)

    def _announce(self) -> None:
        if not self.has_begun:
            self.has_begun = True
            self._outbox.put(self._announcement)

    async def _tokens_made(self, event: TokensMade) -> None:
        self._on_tokens()
        choice = self.choices[event.choice_index]
        fresh, logprobs = choice.beyond_known(event)
        if fresh:
            spelled = await self._spell(fresh, logprobs) if logprobs and self._spell_logprobs else ()
            self._announce()
            choice.append(fresh, logprobs, spelled)

    async def _spell(self, token_ids: Sequence[int], logprobs: Sequence[TokenLogprob]) -> list[TextLogprob]:
        try:
            return await spell(self._tokenizer, self._scope, token_ids, logprobs)
        except MeshError as error:
            self._failure = error  # the tokenizer's, not the worker's: no other worker helps
            raise

    async def _catch_up(self, choice: ChoiceOutput) -> None:
        """Read no further than the detokenizer and the reader keep up with: what waits, waits at the worker."""
        while self._outbox.is_full:
            await self._outbox.room()
        while not choice.has_ended and (choice.is_behind or choice.num_undecoded > MAX_UNDECODED_TOKENS):
            await self._wait_for_move()

    async def _wait_for_move(self) -> None:
        self.check()
        self._moved.clear()
        await self._moved.wait()
        self.check()

    # What choices report, from the event loop:

    def put(self, event: Event) -> None:
        """Hand an event to the reader."""
        self._outbox.put(event)

    def moved(self) -> None:
        """Ids were decoded."""
        self._moved.set()

    def choice_ended(self) -> None:
        """One choice is over; when all are, the worker need not go on."""
        self._num_open -= 1
        self._moved.set()
        if self._num_open == 0 and self._work is not None:
            self._work.abort()

    def choice_failed(self, error: MeshError) -> None:
        """A choice's text cannot go on."""
        self._failure = error
        self._moved.set()
        if self._work is not None:
            self._work.abort()
