"""The engine: requests in, tokens out, one step at a time.

A step is three verbs: schedule what is computed, run it through the model, commit what came out. Where a device works
by itself, the next step of decodes is scheduled and launched before the tokens of this one have come: what it reads of
them is on the device, and what it computes for those that turn out to have ended is thrown away. It belongs to one
thread. Knows ids, never text; knows nothing about queues between threads, networks or settings.
"""

import time
from collections.abc import Callable
from collections.abc import Sequence as Rows
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import torch

from serin_worker.batch import StepPlan, Work
from serin_worker.blocks import BlockPool
from serin_worker.bounds import Bounds
from serin_worker.errors import GrammarOverrun, NotFinite, OutOfMemory, QueueFull, RequestRefused, WorkerError
from serin_worker.flight import Flight, TokensAhead
from serin_worker.grammars.masks import MaskMaker
from serin_worker.grammars.step_masks import StepMasks
from serin_worker.limits import Limits
from serin_worker.model.memory import if_it_fits
from serin_worker.ongoing import Ongoing
from serin_worker.outputs import (
    ChoiceFinished,
    Delta,
    Failed,
    FinishReason,
    Output,
    Scored,
    Started,
    TokenLogprobs,
)
from serin_worker.pacing import Pacing
from serin_worker.rate import RequestRate
from serin_worker.request import GenerationRequest, ScoreRequest
from serin_worker.runner import StepLogits, joined
from serin_worker.sampling.logprobs import token_logprobs
from serin_worker.sampling.sampler import Drawn, begin_draw, draw
from serin_worker.scheduler import Scheduler
from serin_worker.sequence import Group, Sequence


class Runner(Protocol):
    """Computes a plan."""

    @property
    def num_moves(self) -> int:
        """Grows with every layer that is computed, so that a long step can be told from a stuck one."""
        ...

    def run(self, plan: StepPlan, ahead: TokensAhead | None = None) -> StepLogits:
        """Logits of the rows that the plan draws from or scores; they hold until the next run.

        ``ahead``: tokens that a plan of decodes reads where they were drawn, since nobody else knows them yet.
        """
        ...


@dataclass(slots=True)
class Counts:
    """Totals since the engine was made."""

    num_steps: int = 0
    num_prompt_tokens: int = 0
    num_output_tokens: int = 0
    num_preemptions: int = 0
    num_not_finite: int = 0
    num_out_of_memory: int = 0
    num_grammar_overruns: int = 0


class Engine:
    """Continuous batching over one model.

    Args:
        runner: computes steps.
        pool: blocks of the KV cache.
        limits: of a step.
        bounds: of a request.
        clock: seconds.
        runs_ahead: launch a step before the tokens of the one before have come, for devices that work by themselves.
    """

    def __init__(
        self,
        runner: Runner,
        pool: BlockPool,
        limits: Limits,
        bounds: Bounds,
        clock: Callable[[], float] = time.monotonic,
        *,
        runs_ahead: bool = False,
    ) -> None:
        self.pool = pool
        self.scheduler = Scheduler(pool, limits)
        self.bounds = bounds.within(pool.num_blocks * limits.block_size)
        self.counts = Counts()
        self.rate = RequestRate(clock)
        self._pacing = Pacing(limits.max_num_tokens)
        self._runner = runner
        self._clock = clock
        self._runs_ahead = runs_ahead
        self._flight: Flight | None = None
        self._landed_at = 0.0
        self._states: dict[str, Ongoing] = {}
        self._masks = MaskMaker()
        self._constrained: set[str] = set()
        self._outputs: list[tuple[str, Output]] = []

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._states) or bool(self._outputs) or self._flight is not None

    @property
    def has_step_on_its_way(self) -> bool:
        """Whether a step was launched whose tokens are not known yet."""
        return self._flight is not None

    @property
    def num_moves(self) -> int:
        """Grows as long as steps are taken, and during each of them."""
        return self.counts.num_steps + self._runner.num_moves

    @property
    def num_requests(self) -> int:
        """Requests that have not ended."""
        return len(self._states)

    def add(self, request: GenerationRequest | ScoreRequest) -> None:
        """Queue a request; its outputs come from the steps that follow.

        Raises:
            RequestRefused: it cannot run here, or the queue is full.
        """
        if request.request_id in self._states:
            raise RequestRefused("request_id", f"request {request.request_id!r} is already running")
        if self.scheduler.num_waiting >= self.bounds.max_num_waiting:
            raise QueueFull(self.scheduler.num_waiting)
        self.bounds.check(request)
        group = Group(request)
        group.request = _without_constraints(request)  # the choices have them now, and let go of them when they end
        state = Ongoing(group, self._clock(), self.bounds.end_ids_of(request))
        ends = {} if group.is_score else {s: end for s in group.sequences if (end := self._end_of_prior(state, s))}
        group.sequences = [s for s in group.sequences if s not in ends]
        group.unforked = group.sequences[1:]
        self._states[request.request_id] = state
        if isinstance(request, GenerationRequest) and request.constraints:
            self._constrained.add(request.request_id)
        if group.sequences:
            self.scheduler.add(group)
        if ends or not group.sequences:
            self._start(state)
        for end in ends.values():
            self._outputs.append((request.request_id, end))
        if not group.sequences:
            self._summarize(state)

    def abort(self, request_id: str) -> None:
        """End a request without further outputs; its blocks are free at once. Unknown ids are ignored."""
        state = self._forget(request_id)
        if state is not None:
            self.scheduler.remove(state.group)
        self._outputs = [(owner, output) for owner, output in self._outputs if owner != request_id]

    def step(self) -> list[tuple[str, Output]]:
        """Compute one step; returns (request id, output) in order. Of a step that is left on its way: those before."""
        if self._flight is not None:
            self._fly_on(self._flight)
        else:
            self.scheduler.prefill_allowance = self._pacing.allowance(*self.scheduler.num_decoding_and_behind())
            plan = self.scheduler.schedule()
            if plan.work:
                self._take(plan)
        self.counts.num_steps += 1
        outputs, self._outputs = self._outputs, []
        return outputs

    def fail_all(self, error: WorkerError) -> list[tuple[str, Output]]:
        """End every request with an error; used when no step can be computed any more."""
        outputs: list[tuple[str, Output]] = [(request_id, Failed(error)) for request_id in self._states]
        for request_id in list(self._states):
            self.abort(request_id)
        return outputs

    def _take(self, plan: StepPlan) -> None:
        """Compute a step, or launch it and leave it on its way."""
        began = self._clock()
        self._start_new(plan)
        masks = StepMasks(self._masks, plan, self._states, self.bounds.end_ids) if self._constrained else None
        result = self._run(plan)
        self._flight = self._departed(plan, result, began) if self._runs_ahead and plan.is_drawn else None
        if self._flight is None:
            self._commit(plan, result, masks)
            self._observe(plan, began)

    def _departed(self, plan: StepPlan, result: StepLogits, began: float) -> Flight | None:
        """A launched step whose tokens are being drawn; None: the host has to, or memory does not suffice."""
        if self._constrained:
            return None
        sequences, logits = _to_draw(result)
        ends = [self._states[sequence.group.request_id].end_ids for sequence in sequences]
        drawing = if_it_fits(lambda: begin_draw(logits, sequences, ends))
        return None if drawing is None else Flight(plan, sequences, drawing, began)

    def _fly_on(self, flight: Flight) -> None:
        """Launch the step that follows, if it can be planned; then wait for the tokens of this one."""
        plan = flight.plan
        plan.work = [work for work in plan.work if self._is_ongoing(work.sequence)]
        self._count(plan)
        following = self._following(flight)
        self._flight = None
        if following is not None:
            began = self._clock()
            result = if_it_fits(lambda: self._runner.run(following, flight.tokens))
            self._flight = None if result is None else self._departed(following, result, began)
        self._land(flight)
        self._observe(plan, max(flight.began, self._landed_at))
        self._landed_at = self._clock()
        if following is not None and self._flight is None:  # memory did not suffice: as any other step
            following.work = [work for work in following.work if self._is_ongoing(work.sequence)]
            self._commit(following, self._run(following), None)

    def _following(self, flight: Flight) -> StepPlan | None:
        """The next step, planned without knowing what this one drew; None: it has to be known.

        That is where a sequence's tokens decide about its next one beyond being read, and where somebody waits: who
        comes in, and who makes room, is decided when it is known who has ended.
        """
        ongoing = [sequence for sequence in flight.sequences if self._is_ongoing(sequence)]
        going_on = [s for s in ongoing if s.num_output + 1 < self._most_output(s)]
        is_calm = not self.scheduler.num_waiting and self.scheduler.num_running == len(ongoing)
        if not (is_calm and going_on) or not self.pool.can_allocate(len(going_on)):
            return None
        if self._constrained or any(sequence.sampling.has_penalties for sequence in going_on):
            return None
        for sequence in going_on:
            sequence.promise()
        plan = self.scheduler.schedule()
        return plan if plan.work else None

    def _land(self, flight: Flight) -> None:
        """Wait for a step's tokens, and take them in."""
        drawn = flight.drawing.result()
        rows = [i for i, sequence in enumerate(flight.sequences) if self._is_ongoing(sequence)]
        self._take_in(
            [flight.sequences[i] for i in rows],
            Drawn([drawn.token_ids[i] for i in rows], [drawn.logprobs[i] for i in rows]),
        )

    def _observe(self, plan: StepPlan, began: float) -> None:
        num_decodes = plan.num_tokens - plan.num_prefill_tokens
        self._pacing.observe(num_decodes, plan.num_prefill_tokens, self._clock() - began)

    def _start_new(self, plan: StepPlan) -> None:
        for work in plan.work:
            if not work.sequence.group.is_started:
                self._start(self._states[work.sequence.group.request_id])

    def _run(self, plan: StepPlan) -> StepLogits:
        """Logits of a plan. Where memory does not suffice for all of it, its pieces run one by one.

        Requests whose piece alone is too much fail, and leave the plan.
        """
        result = if_it_fits(lambda: self._runner.run(plan))
        if result is not None:
            return result
        pieces: list[tuple[Work, StepLogits]] = []
        copies = plan.copies
        for work in plan.work:
            if not self._is_ongoing(work.sequence):
                continue  # another choice of this request has just failed
            alone = StepPlan([work], copies)
            piece = if_it_fits(partial(self._runner.run, alone))
            if piece is None:
                self._fail_out_of_memory(work.sequence, work.num_tokens)
            else:
                pieces.append((work, joined([piece])))  # a copy: a runner's logits hold until it runs again
                copies = []
        pieces = [(work, piece) for work, piece in pieces if self._is_ongoing(work.sequence)]
        plan.work = [work for work, _ in pieces]
        return joined([piece for _, piece in pieces])

    def _count(self, plan: StepPlan) -> None:
        """What a step computes counts from now on."""
        self.scheduler.commit(plan)
        self.counts.num_preemptions += plan.num_preempted

    def _commit(self, plan: StepPlan, result: StepLogits, masks: StepMasks | None) -> None:
        self._count(plan)
        for work, rows in result.rows:
            if work.num_scored:
                self._score(work, result.logits[rows])
        drawing, logits = _to_draw(result)
        if drawing:
            if masks is None:
                self._draw(drawing, logits, ())
            else:
                self._draw_masked(drawing, logits, masks)

    def _draw_masked(self, drawing: list[Sequence], logits: torch.Tensor, masks: StepMasks) -> None:
        forbidden = self._collect(masks)
        rows = [i for i, sequence in enumerate(drawing) if self._is_ongoing(sequence)]
        if len(rows) < len(drawing):
            drawing, logits = [drawing[i] for i in rows], logits[rows]
        if drawing:
            self._draw(drawing, logits, [forbidden.get(sequence) for sequence in drawing])

    def _collect(self, masks: StepMasks) -> dict[Sequence, torch.Tensor]:
        """What may not be drawn; choices with nothing left to say end, those whose grammar overran fail."""
        forbidden: dict[Sequence, torch.Tensor] = {}
        for sequence, outcome in masks.collect():
            if not self._is_ongoing(sequence):
                continue  # another choice of this request has just failed
            if isinstance(outcome, GrammarOverrun):
                self._fail_overrun(sequence, outcome)
            elif outcome is None:
                self._finish(self._states[sequence.group.request_id], sequence, "stop")
            else:
                forbidden[sequence] = outcome
        return forbidden

    def _is_ongoing(self, sequence: Sequence) -> bool:
        return sequence.group.request_id in self._states and not sequence.is_finished

    def _draw(self, sequences: list[Sequence], logits: torch.Tensor, forbidden: Rows[torch.Tensor | None]) -> None:
        ends = [self._states[sequence.group.request_id].end_ids for sequence in sequences]
        drawn = if_it_fits(lambda: draw(logits, sequences, ends, forbidden))
        if drawn is None:
            self._draw_one_by_one(sequences, logits, forbidden)
        else:
            self._take_in(sequences, drawn)

    def _take_in(self, sequences: list[Sequence], drawn: Drawn) -> None:
        states = [self._states[sequence.group.request_id] for sequence in sequences]
        now = self._clock()
        for state, sequence, token_id, logprobs in zip(states, sequences, drawn.token_ids, drawn.logprobs, strict=True):
            if sequence.group.request_id not in self._states:
                continue  # another choice of this request has just failed
            if token_id is None:
                self._fail_not_finite(state)
            else:
                self._append(state, sequence, token_id, logprobs, now)

    def _draw_one_by_one(
        self, sequences: list[Sequence], logits: torch.Tensor, forbidden: Rows[torch.Tensor | None]
    ) -> None:
        """Memory does not suffice to draw for all: so that a choice that is too much alone fails its request alone."""
        if len(sequences) == 1:
            self._fail_out_of_memory(sequences[0], 1)
            return
        for index, sequence in enumerate(sequences):
            if self._is_ongoing(sequence):
                self._draw([sequence], logits[index : index + 1], forbidden[index : index + 1])

    def _append(
        self, state: Ongoing, sequence: Sequence, token_id: int, logprobs: TokenLogprobs | None, now: float
    ) -> None:
        position = sequence.take(token_id)
        self.counts.num_output_tokens += 1
        state.note_token(now)
        delta = Delta(sequence.choice_index, position, [token_id], [logprobs] if logprobs else [])
        self._outputs.append((sequence.group.request_id, delta))
        if token_id in state.end_ids and sequence.num_output > sequence.min_tokens:
            self._finish(state, sequence, "stop", token_id)
        elif sequence.constraint is not None and not self._follow(sequence, token_id):
            return
        elif sequence.constraint is not None and sequence.constraint.is_complete:
            self._finish(state, sequence, "stop")
        elif sequence.num_output >= self._most_output(sequence):
            self._finish(state, sequence, "length")

    def _follow(self, sequence: Sequence, token_id: int) -> bool:
        """Tell a choice's grammar what was drawn; False: its request failed of that."""
        assert sequence.constraint is not None
        try:
            sequence.constraint.take([token_id])
        except GrammarOverrun as error:
            self._fail_overrun(sequence, error)
            return False
        return True

    def _finish(self, state: Ongoing, sequence: Sequence, reason: FinishReason, stop_id: int | None = None) -> None:
        self.scheduler.finish(sequence)
        sequence.constraint = None
        self._outputs.append((sequence.group.request_id, ChoiceFinished(sequence.choice_index, reason, stop_id)))
        if sequence.group.is_finished:
            self.scheduler.remove(sequence.group)
            self._summarize(state)

    def _score(self, work: Work, logits: torch.Tensor) -> None:
        sequence = work.sequence
        group = sequence.group
        request = group.request
        assert isinstance(request, ScoreRequest)
        state = self._states[group.request_id]
        first = work.start + work.num_tokens - work.num_scored + 1
        targets = sequence.token_ids[first : first + work.num_scored]
        if not bool(torch.isfinite(logits.amax(-1)).all()):
            self._fail_not_finite(state)
            return
        scored = if_it_fits(lambda: token_logprobs(logits, targets, [request.num_alternatives] * len(targets)))
        if scored is None:
            self._fail_out_of_memory(sequence, work.num_tokens)
            return
        state.scored += scored
        if len(state.scored) == len(request.target_ids):
            self.scheduler.remove(group)
            self._forget(group.request_id)
            self._outputs.append((group.request_id, Scored(tuple(state.scored), state.num_cached_tokens)))

    def _start(self, state: Ongoing) -> None:
        state.note_start(self._clock())
        group = state.group
        self.counts.num_prompt_tokens += group.num_prompt_tokens
        if not group.is_score:
            self._outputs.append((group.request_id, Started(group.num_prompt_tokens, state.num_cached_tokens)))

    def _summarize(self, state: Ongoing) -> None:
        group = state.group
        self._forget(group.request_id)
        self.rate.note()
        self._outputs.append((group.request_id, state.summary()))

    def _forget(self, request_id: str) -> Ongoing | None:
        state = self._states.pop(request_id, None)
        if request_id in self._constrained:
            self._constrained.discard(request_id)
            for sequence in state.group.sequences if state is not None else ():
                sequence.constraint = None
        return state

    def _fail_overrun(self, sequence: Sequence, error: GrammarOverrun) -> None:
        self.counts.num_grammar_overruns += 1
        self.abort(sequence.group.request_id)
        self._outputs.append((sequence.group.request_id, Failed(error)))

    def _fail_out_of_memory(self, sequence: Sequence, num_tokens: int) -> None:
        self.counts.num_out_of_memory += 1
        self.abort(sequence.group.request_id)
        self._outputs.append((sequence.group.request_id, Failed(OutOfMemory(num_tokens))))

    def _fail_not_finite(self, state: Ongoing) -> None:
        self.counts.num_not_finite += 1
        self.scheduler.distrust(state.group)
        self.abort(state.group.request_id)
        self._outputs.append((state.group.request_id, Failed(NotFinite())))

    def _end_of_prior(self, state: Ongoing, sequence: Sequence) -> ChoiceFinished | None:
        """How a choice ended whose prior output is complete: the worker before was lost before it could say so."""
        last = sequence.token_ids[-1]
        if sequence.num_output > sequence.min_tokens and last in state.end_ids:
            return ChoiceFinished(sequence.choice_index, "stop", last)
        if sequence.constraint is not None and sequence.constraint.is_complete:
            return ChoiceFinished(sequence.choice_index, "stop")
        if sequence.num_output >= self._most_output(sequence):
            return ChoiceFinished(sequence.choice_index, "length")
        return None

    def _most_output(self, sequence: Sequence) -> int:
        request = sequence.group.request
        assert isinstance(request, GenerationRequest)
        room = self.bounds.context_length - sequence.num_prompt
        wanted = request.stopping.max_tokens
        return room if wanted is None else min(wanted, room)


def _to_draw(result: StepLogits) -> tuple[list[Sequence], torch.Tensor]:
    """Who draws in a step, and the logits [drawing, vocabulary] of each."""
    drawing: list[Sequence] = []
    index: list[int] = []
    for work, rows in result.rows:
        drawing += work.drawn
        index += [rows.start] * len(work.drawn)
    is_identity = index == list(range(result.logits.shape[0]))
    return drawing, result.logits if is_identity else result.logits[index]


def _without_constraints(request: GenerationRequest | ScoreRequest) -> GenerationRequest | ScoreRequest:
    if isinstance(request, GenerationRequest) and request.constraints:
        return replace(request, constraints={})
    return request
