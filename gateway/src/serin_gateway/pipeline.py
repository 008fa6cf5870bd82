"""The life of a request: nine verbs, read from top to bottom.

A `Request` owns authenticate, admit, guard and settle. For each prompt it makes one or more `Attempt`s, each of which
routes, tokenizes, recalls, places and generates on one lane. REST and gRPC share this page; it knows nothing about
either, nor about how anything is called: what it works with comes as `Collaborators`.
"""

import asyncio
import itertools
import math
import secrets
import time
from collections.abc import AsyncIterator, Callable, Collection, Hashable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from hashlib import blake2b
from typing import TypeVar

from serin_mesh.errors import MeshError, Reason

from serin_gateway import bounds
from serin_gateway.ask import Ask, Input, TokenPrompt, Turns, blaming, named_as_in, place_of, refuse
from serin_gateway.attempt_receipt import AttemptReceipt
from serin_gateway.cascades.held import HeldOutbox
from serin_gateway.catalog import NO_LANE, Lane, Policy, ServedModel, Worker
from serin_gateway.collaborators import Arrival, Collaborators
from serin_gateway.conversation import Conversation
from serin_gateway.events import Completed, Started, Usage
from serin_gateway.failures import Failures, cause_of, lane_lost, may_try_another_lane
from serin_gateway.generation import Generation
from serin_gateway.guards.desk import Watch
from serin_gateway.keys.authenticator import ANONYMOUS, Caller
from serin_gateway.keys.records import Ability, Role
from serin_gateway.ledger.line import Line, Payer, total
from serin_gateway.limits.limiter import NOTHING, Amount, Standing, tightest
from serin_gateway.limits.reservation import Reservation
from serin_gateway.observing.shadow import Answered
from serin_gateway.outbox import Outbox
from serin_gateway.reading.form import AnswerForm
from serin_gateway.recall import AnswerKey, Recalled
from serin_gateway.receipt import MAX_MESSAGE, LostWorker, Receipt
from serin_gateway.routing.cascade_journey import journey_of
from serin_gateway.routing.journey import Journey
from serin_gateway.routing.names import find_route
from serin_gateway.routing.stop import Hold
from serin_gateway.spelling import pieces_of, spell
from serin_gateway.tokenizer import CallScope
from serin_gateway.worker import TokenLogprob, WorkOrder

A = TypeVar("A", bound="Attempt")

MAX_LANES_TRIED = 3
RESUME_PATIENCE_S = 5.0
"""How long a stream that has begun waits for a worker that can go on with it when none is left."""
LOOK_AGAIN_S = 0.5
"""Meanwhile workers are looked at this often: one that said nothing may have been heard again."""


class Request:
    """One request, from its arrival to its account. Whoever makes one awaits :meth:`settle` in the end, always."""

    def __init__(self, house: Collaborators, arrival: Arrival) -> None:
        self.house = house
        self.arrival = arrival
        self.receipt = Receipt(arrival.request_id, arrival.door)
        self.deadline = time.monotonic() + arrival.timeout_s
        self.caller: Caller = ANONYMOUS
        self.outbox = Outbox()
        self.outlives_caller = False
        """Whoever makes the answer settles it, not who asked: see `on_its_own`."""
        self._account = ""
        self._attempts: list[Attempt] = []
        self._numbers = itertools.count()
        self._tasks: list[asyncio.Task[None]] = []
        self._reservation: Reservation | None = None
        self._journey: Journey | None = None
        self._stood: Standing | None = None
        self._settling: asyncio.Task[None] | None = None
        self.watch: Watch | None = None
        """Looks at it and its answers; None: no policy asks for that."""
        house.journal.opened(self.receipt)

    @property
    def max_body_bytes(self) -> int:
        """Most bytes that what is asked may have, by the policy in force now."""
        return self._policy().max_body_bytes

    @property
    def payer(self) -> Payer:
        """Whose it is."""
        caller, journey = self.caller, self._journey
        models = tuple(journey.names) if journey is not None and journey.counts_models_apart else ()
        return Payer(
            self.arrival.request_id, caller.organization, caller.tenant, caller.key_id, self.receipt.model, models
        )

    @property
    def lease_id(self) -> str:
        """What it is billed as; empty until it is admitted."""
        return self._reservation.lease_id if self._reservation else ""

    @property
    def seconds_left(self) -> float:
        """Until its deadline; below 0: it is over."""
        return self.deadline - time.monotonic()

    @property
    def standing(self) -> Standing | None:
        """Where its caller stands, by the tightest limits; None: nothing limits it."""
        reservation, journey = self._reservation, self._journey
        standings = (self._stood, reservation and reservation.standing, journey and journey.standing)
        return tightest([one for one in standings if one])

    async def authenticate(self, needed: Role = Role.APP, ability: Ability | None = Ability.INFERENCE) -> Caller:
        """Verb 1: from a key to a project, a role and limits.

        Raises:
            MeshError: KEY_MISSING, KEY_INVALID, ROLE_INSUFFICIENT or AUTH_UNAVAILABLE.
        """
        with self.receipt.timed("authenticate"):
            authenticator = self.house.authenticator
            is_anonymous = self.arrival.key is None and self._policy().allow_anonymous
            self.caller = authenticator.anonymous if is_anonymous else await authenticator.identify(self.arrival.key)
        self.receipt.tenant, self.receipt.key_id = self.caller.tenant, self.caller.key_id
        if not self.caller.role.covers(needed):
            raise _role_insufficient(self.caller, needed, "this")
        if ability is not None and not self.caller.may(ability):
            made_for = ", ".join(sorted(self.caller.abilities))
            raise MeshError(
                Reason.ROLE_INSUFFICIENT, f"this needs a key made for {ability.value!r}; this key is for {made_for}"
            )
        return self.caller

    async def begin(self, ask: Ask, changed: Callable[[Ask], None] = lambda ask: None) -> Outbox:
        """Answer an ask of the authenticated caller; what comes of it appears in the outbox.

        Args:
            ask: what is asked.
            changed: told, before any work is done, the ask that goes on, where guards may have changed it.

        Raises:
            MeshError: it is refused before any work is done.
        """
        await self.admit(ask)
        ask = await self.guard(ask)
        if self.watch is not None and self.watch.may_change_input:
            changed(ask)
        self._tasks = [asyncio.create_task(self._answer(ask))]
        return self.outbox

    async def count(self, ask: Ask) -> int:
        """Tokens of an ask's only prompt, without answering it.

        Raises:
            MeshError: it is refused.
        """
        await self.admit(ask, with_answer=False)
        attempt = Attempt(self, replace(await self.guard(ask), model=self.receipt.model), 0)
        await attempt.tokenize(attempt.route(()))
        return len(attempt.prompt)

    async def admit(self, ask: Ask, *, with_answer: bool = True) -> None:
        """Verb 2: reserve the most that the request can use, and wait for a place; later verbs only release.

        The bytes of its prompts bound their tokens, loosely. Where such bounds would hold too much of what a limit has
        left, nothing is reserved yet but the request itself: each prompt is covered as soon as its tokens are counted.

        Raises:
            MeshError: MODEL_NOT_FOUND, ROLE_INSUFFICIENT (to choose a lane) or RATE_LIMITED; QUEUE_FULL or
                DEADLINE_EXCEEDED, when more is asked than the workers can bear.
        """
        with self.receipt.timed("admit"):
            catalog = self.house.catalog.current()
            route = find_route(catalog, self.caller, ask.model)
            model = route.begins_with
            self.receipt.asked, self.receipt.model = ask.model, model.name
            if self.arrival.pinned_lane and not self.caller.role.covers(Role.OPERATOR):
                raise _role_insufficient(self.caller, Role.OPERATOR, "choosing a lane (serin-lane)")
            journey = self._journey = journey_of(self, route, ask)

            if with_answer:
                journey.look_ahead()
            scopes = self.caller.scopes(model.name, model.limits, catalog.policy.default_limits)
            if journey.counts_models_apart:
                scopes = [scope for scope in scopes if scope.kind != "model"]
            self._reservation = Reservation(
                self.house.leases, scopes, lambda: total(self._bill()), self.payer.to_json(), self._account
            )
            if with_answer:
                await self._reservation.open(journey.most, journey.least)
                await journey.begin()
            else:
                await self._reservation.open(NOTHING)

    async def next_turn(self, turns: Turns) -> None:
        """Give back the place that was had, for what is done, and wait for one for what is left.

        Raises:
            MeshError: QUEUE_FULL or DEADLINE_EXCEEDED, as when it was admitted.
        """
        assert self._journey is not None
        with self.receipt.timed("admit"):
            await self._journey.next_turn(turns)

    async def cover(self, model: str, part: Hashable, most: Amount, bound: Amount) -> None:
        """Wait until the lease is written down, and have it hold what a part, which is counted now, can use.

        Its bytes were too loose a bound, or none: some tokenizers write characters out before they cut them.

        Raises:
            MeshError: RATE_LIMITED.
        """
        if self._reservation is not None and self._journey is not None:
            await self._reservation.cover(part, most, bound)
            await self._journey.cover(model, part, most, bound)

    async def guard(self, ask: Ask) -> Ask:
        """Verb 3: what the caller's policy looks for in the input; the ask passes, is changed or refused.

        Raises:
            MeshError: CONTENT_REFUSED, GUARD_UNAVAILABLE or PARAMETER_UNSUPPORTED.
        """
        with self.receipt.timed("guard"):
            policy = self._policy().guards.of(self.caller)
            self.watch = self.house.guards.watch(policy, self.deadline, shows_ids=self.arrival.door == "grpc")
            if self.watch is None:
                return ask
            self.receipt.guarded = self.watch.decisions
            with named_as_in(ask):
                return await self.watch.inspect(ask)

    @asynccontextmanager
    async def on_its_own(self, account: str) -> AsyncIterator[None]:
        """A block that makes the answer whoever leaves meanwhile, and settles the request in the end.

        Args:
            account: what it is billed as. Whoever makes the answer anew goes by it, so that one of both costs nothing.
        """
        self.outlives_caller, self._account = True, account
        ended_by: BaseException | None = None
        try:
            yield
        except BaseException as error:
            ended_by = error
            raise
        finally:
            await self.settle(ended_by)
            ended_by = None  # its traceback holds this frame

    async def settle(self, error: BaseException | None = None) -> None:
        """Verb 9: end everything, account for what was used, keep the answer, tell the journal.

        Runs once and to its end, whoever is cancelled meanwhile; later calls wait for it.
        """
        if self._settling is None:
            self._settling = asyncio.create_task(self._settle(error))
        await asyncio.shield(self._settling)

    async def _settle(self, error: BaseException | None) -> None:
        with self.receipt.timed("settle"):
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)
            self.receipt.ended_by(error)
            self.account()
            if self._journey is not None:
                await self._journey.end(is_answered=error is None)
            if self._reservation is not None:
                lines = [line.billed(is_repeatable=bool(self._account)) for line in self._bill()]
                await self._reservation.give_back(lines)
            for attempt in self._attempts:
                self.receipt.attempts.append(attempt.sum_up())
                attempt.offer_to_score()
            if error is None:
                for attempt in self._attempts:
                    await attempt.keep_answer()
        # What holds its request is let go now, not when somebody collects garbage.
        self._stood = self.standing
        self._attempts, self._tasks, self._journey, self._reservation = [], [], None, None
        self.receipt.duration_s = time.monotonic() - self.receipt.arrived_at
        self.house.journal.closed(self.receipt)

    async def _answer(self, ask: Ask) -> None:
        """Have all prompts answered, by whichever model the journey comes to."""
        assert self._journey is not None
        try:
            await self._journey.answer(ask)
        except Exception as error:  # noqa: BLE001 - whatever it is, the door tells the caller
            self._journey.vacate(is_answered=False)
            self.outbox.fail(error)
        else:
            self._journey.vacate(is_answered=True)
            self.account()
            self.outbox.put(Completed(self.receipt.usage))

    async def answer_by(self, ask: Ask, hold: Hold | None = None) -> "Sequence[Attempt]":
        """Answer all prompts, by the model that the ask names; where it is to be held, the caller sees nothing of it.

        Raises:
            MeshError: one of them cannot be answered.
        """
        answers = [self._answer_one(ask, index, hold) for index in range(len(ask.inputs))]
        if len(answers) == 1:
            return [await answers[0]]
        tasks = [asyncio.create_task(answer) for answer in answers]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _answer_one(self, ask: Ask, index: int, hold: Hold | None) -> "Attempt":
        return await self.attempt(lambda failures: Attempt(self, ask, index, failures, hold))

    async def attempt(self, make: Callable[[Failures], A]) -> A:
        """Attempts, until one succeeds or may not be repeated: the one that did.

        Raises:
            MeshError: none did.
        """
        lanes_tried: set[str] = set()
        refusal: MeshError | None = None
        failures = Failures(is_silent=self.house.placement.is_silent)
        try:
            async with asyncio.timeout(self.seconds_left):
                while True:
                    attempt = make(failures)
                    self._attempts.append(attempt)
                    try:
                        with attempt.account.ending():
                            await attempt.run(lanes_tried)
                        return attempt
                    except MeshError as error:
                        if refusal is not None and not attempt.lane_id:
                            raise refusal from error  # no lane is left: why the last one let go is what helps
                        refusal = error
                        is_stuck = attempt.lane_id in {"", *lanes_tried}
                        lanes_tried.add(attempt.lane_id)
                        is_last = is_stuck or len(lanes_tried) >= MAX_LANES_TRIED
                        if attempt.has_begun or is_last or not may_try_another_lane(error):
                            raise
        except TimeoutError:
            raise self.late() from None
        finally:
            refusal = None  # its traceback holds this frame

    def late(self) -> MeshError:
        """Its deadline is over."""
        return MeshError(Reason.DEADLINE_EXCEEDED, f"no complete answer within {self.arrival.timeout_s:g} s")

    def give(self, attempts: "Sequence[Attempt]", held: HeldOutbox) -> None:
        """Let the caller have an answer that was held back: it is the request's."""
        for attempt in attempts:
            attempt.is_thrown_away = False
            attempt.stands_for_request()
        self.receipt.token_arrived()
        held.release(self.outbox)

    def throw_away(self, model: str) -> None:
        """A model's answer was held back and is not good enough: it is billed, and nobody gets it."""
        for attempt in self._attempts:
            attempt.is_thrown_away |= attempt.model == model

    def used_by(self, model: str) -> Amount:
        """What has been used of a model so far."""
        return total([line for line in self._bill() if line.payer.model == model])

    def next_attempt(self) -> int:
        """A number for an attempt of its own."""
        return next(self._numbers)

    def account(self) -> None:
        """Note what was used: what callers are told, and what counts."""
        begun = [attempt for attempt in self._attempts if attempt.has_begun]
        self.receipt.usage = _usage([attempt for attempt in begun if not attempt.is_thrown_away])
        self.receipt.billed = {
            model: _usage([attempt for attempt in begun if attempt.model == model])
            for model in dict.fromkeys(attempt.model for attempt in begun)
        }
        self.receipt.num_attempts = len(self._attempts)

    def _bill(self) -> list[Line]:
        """A line for each attempt that a worker was asked for, or that was answered without one."""
        return [attempt.line() for attempt in self._attempts if attempt.has_begun or attempt.account.num_placements]

    def _policy(self) -> Policy:
        try:
            return self.house.catalog.current().policy
        except MeshError:  # nothing is published yet
            return Policy()


class Attempt:
    """One prompt on one lane; where no worker of that can go on with an answer, one of a lane that computes the same.

    Args:
        request: whose it is.
        ask: what was asked.
        index: which of its prompts.
        failures: the workers that let go of this prompt so far; default: none.
        hold: holds its output back, so that its caller sees nothing of it; None: it goes out as it is made.
    """

    def __init__(
        self, request: Request, ask: Ask, index: int, failures: Failures | None = None, hold: Hold | None = None
    ) -> None:
        self.request = request
        self.house = request.house
        self.receipt = request.receipt
        self.ask = ask
        self.prompt: Sequence[int] = ()
        self.account = AttemptReceipt()
        self.is_thrown_away = False
        """It was held back and not good enough."""
        self._hold = hold
        self._number = request.next_attempt()
        self._index = index
        self._input: Input = ask.inputs[index]
        self._first_choice_index = index * ask.sampling.choice_count
        self._sampling = ask.sampling
        self._grammar = ""
        self._model = ServedModel("")
        self._form = AnswerForm()
        self._scope: CallScope | None = None
        self._recalled = Recalled()
        self._generation: Generation | None = None
        self._failures = failures or Failures()
        self._interruption: LostWorker | None = None
        self._last_token_at = 0.0

    async def run(self, avoid: Collection[str]) -> None:
        """From a lane to the last text in the outbox.

        Raises:
            MeshError: whatever ended it.
        """
        scope = self.route(avoid)
        if scope.lane.num_dimensions:
            why = f"{scope.model!r} computes embeddings and generates no text"
            raise refuse("model", why, Reason.PARAMETER_UNSUPPORTED)
        await self.tokenize(scope)
        await self.request.cover(self.model, (self._hold is not None, self._index), self.most, self.bound)
        if not self.ask.is_prompt_only:
            await self.recall(scope)
        generation = self._generation = self._begin_output(scope, await self._started(scope))
        try:
            if self.ask.is_prompt_only:
                generation.make_nothing()
            elif self._recalled.answer is not None:
                await generation.replay(self._recalled.answer)
            while not generation.is_made:
                await self.generate(scope, generation, *await self.place(scope))
            await generation.finish()
        finally:
            generation.abandon()

    def route(self, avoid: Collection[str]) -> CallScope:
        """Verb 4: from an alias to a model, and to the lane of the caller's session."""
        with self.receipt.timed("route"):
            arrival, caller = self.request.arrival, self.request.caller
            self._model = self.house.catalog.current().find(self.ask.model)
            if arrival.pinned_lane:
                lane = self._model.pinned_lane(arrival.pinned_lane)
            else:
                session = next(filter(None, (arrival.session_id, *self.ask.session_keys)), arrival.request_id)
                self.receipt.session_key = f"{caller.tenant}\0{session}"
                lane = self._model.choose_lane(self.receipt.session_key, avoid)
            self.receipt.lane = lane.lane
            left_s = self.request.seconds_left
            self._scope = CallScope(arrival.request_id, self._model.name, lane, _opaque(caller.tenant), left_s)
            return self._scope

    async def tokenize(self, scope: CallScope) -> None:
        """Verb 5: from messages or text to ids, and what the context leaves for the answer; the grammar is prepared.

        Raises:
            MeshError: PROMPT_TOO_LONG with both numbers, TEMPLATE_REJECTED, GRAMMAR_INVALID, …
        """
        with named_as_in(self.ask):
            room = await self._encode(scope)
        longest = min(room, bounds.max_tokens(self.ask.sampling, self._model))
        seed = self.ask.sampling.seed if self.ask.sampling.seed is not None else secrets.randbits(63)
        top_logprobs = self.ask.sampling.top_logprobs
        if self._hold is not None and self._hold.want_logprobs:
            top_logprobs = top_logprobs or 0
        self._sampling = replace(self.ask.sampling, max_tokens=longest, seed=seed, top_logprobs=top_logprobs)

    async def recall(self, scope: CallScope) -> None:
        """Verb 6: a stored answer, if one will do; else who holds the longest prefix."""
        began_at = time.monotonic()
        with self.receipt.timed("recall"):
            if self._may_share_answer() or len(scope.lane.workers) > 1 or self._model.trial is not None:
                self._recalled = await self.house.memory.recall(
                    scope, self._answer_key(), allow_answer=self._may_share_answer()
                )
            else:
                self._recalled = Recalled(skipped=True)  # an only worker gets the prompt, whatever it holds of it
            self.receipt.cached_answer = self._recalled.answer is not None
        self.account.recalled(self._recalled.outcome, time.monotonic() - began_at)

    async def place(self, scope: CallScope) -> tuple[Lane, Worker]:
        """Verb 7: the worker with the least to do for this prompt, at random among the nearly best, and its lane.

        Raises:
            MeshError: no worker can take it: NOT_READY, or LANE_LOST once there is output.
        """
        with self.receipt.timed("place"):
            give_up_at = time.monotonic() + (RESUME_PATIENCE_S if self.has_begun else 0.0)
            while True:
                try:
                    return self._choose(scope)
                except MeshError as error:
                    left_s = give_up_at - time.monotonic()
                    if left_s <= 0:
                        raise self._nobody_left(error) from error
                    await self.house.catalog.changed(min(left_s, LOOK_AGAIN_S))

    async def generate(self, scope: CallScope, generation: Generation, lane: Lane, worker: Worker) -> None:
        """Verb 8: stream ids from a worker, text to the outbox; a lost worker is noted, and what it made is kept.

        Raises:
            MeshError: the request may not go on elsewhere.
        """
        order = WorkOrder(
            self.prompt,
            self._sampling,
            cache_group=self.request.caller.tenant,
            cache_salt=self.ask.cache_salt,
            priority=self.ask.priority,
            prior_outputs=generation.prior_outputs(),
            grammar=self._grammar,
            account=self.billed_as,
        )
        uncached = len(self.prompt) - self._recalled.cached_tokens.get(worker.endpoint, 0)
        self.given_to(worker)
        with (
            self.receipt.timed("generate"),
            self.house.placement.running(worker, uncached, len(generation.choices)) as placed,
        ):
            try:
                there = replace(scope, lane=lane)
                work = self.house.workers.generate(there, worker, order, lambda: self._may_move(scope))
                await generation.follow(work, placed)
                self._went_on()
            except MeshError as error:
                generation.check()  # where its text cannot go on, no other worker helps
                self._lost(self._actual(worker, generation, lane), self._blaming_grammar(error))
            finally:
                self._learn_from(generation, lane, self._actual(worker, generation, lane))

    def given_to(self, worker: Worker) -> None:
        """Note which worker has it now; who asked has met its lane from the first one on."""
        self.receipt.worker = worker.instance
        self.account.placed(worker.instance, worker.cluster, self.house.placement.num_running(worker))
        if self.account.num_placements == 1:
            self.account.model, self.account.lane = self.model, self.lane_id
            self.house.journal.placed(self.receipt, self.account)

    def stands_for_request(self) -> None:
        """Note in the request's receipt that this is the attempt whose answer its caller gets."""
        self.receipt.model, self.receipt.lane, self.receipt.worker = self.model, self.lane_id, self.account.worker
        self.receipt.cached_answer = self._recalled.answer is not None

    async def keep_answer(self) -> None:
        """Offer a complete answer to the memory, when it may be shared."""
        generation = self._generation
        if (
            generation is None
            or self._scope is None
            or self._recalled.answer is not None
            or self.ask.is_prompt_only
            or not self._may_share_answer()
            or generation.is_guarded_text
        ):
            return
        if all(choice.has_ended for choice in generation.choices):
            answer = [choice.stored() for choice in generation.choices]
            await self.house.memory.keep(self._scope, self._answer_key(), answer)

    def sum_up(self) -> AttemptReceipt:
        """The account of an attempt that is over."""
        self.account.model, self.account.lane, self.account.thrown_away = self.model, self.lane_id, self.is_thrown_away
        self.account.num_prompt_tokens, self.account.num_cached_tokens = len(self.prompt), self.num_cached_tokens
        self.account.complete(self.receipt.reason, self._generation.choices if self._generation else ())
        return self.account

    def offer_to_score(self) -> None:
        """Offer the first choice to shadow scoring, while lanes are compared and the caller allows it."""
        trial, generation = self._model.trial, self._generation
        if trial is None or generation is None or self.account.reason != "ok" or self._recalled.answer is not None:
            return
        if self.receipt.session_key and self.request.caller.shadow and not self.account.taken_over_by:
            first = generation.choices[0]
            answer = first.token_ids[: first.num_counted]
            self.house.shadow.offer(
                trial, Answered(self._model.name, self.lane_id, self.receipt.session_key, self.prompt, answer)
            )

    @property
    def lane_id(self) -> str:
        """The lane it began on; empty while it has none."""
        return self._scope.lane.lane if self._scope else ""

    @property
    def model(self) -> str:
        """The model it asks, by its own name; empty until it is routed."""
        return self._model.name

    @property
    def logprobs(self) -> Sequence[Sequence[float]]:
        """Log-probabilities in nats of each choice's tokens, as they would be reported; none: nobody asked."""
        return [choice.reported_logprobs for choice in self._generation.choices] if self._generation else []

    @property
    def has_begun(self) -> bool:
        """True once there is something of it that its caller may have seen or waits for: its weights are fixed then."""
        return self._generation is not None and self._generation.has_begun

    @property
    def most(self) -> Amount:
        """What the prompt and its answers can use at most; known once the prompt is tokenized."""
        count = self._sampling.choice_count * (self._sampling.max_tokens or 0)
        return bounds.amount(self._model, len(self.prompt), count)

    @property
    def bound(self) -> Amount:
        """What it was taken for before that."""
        return bounds.most(self._model, [self._input], self.ask.sampling)

    @property
    def billed_as(self) -> str:
        """Its name in the ledger."""
        return f"{self.request.lease_id}.{self._number}"

    def line(self) -> Line:
        """Its line in the ledger, as it is now; what its caller has seen nothing of costs nothing."""
        payer = replace(self.request.payer, model=self._model.name)
        lane = self._scope.lane if self._scope else NO_LANE
        line = Line(self.billed_as, payer, lane.version, lane.lane, price=lane.price)
        if not self.has_begun:
            return line
        return replace(
            line,
            prompt_tokens=len(self.prompt),
            cached_tokens=self.num_cached_tokens,
            completion_tokens=self.num_tokens,
        )

    @property
    def num_tokens(self) -> int:
        """Tokens of the answer that count."""
        return self._generation.num_tokens if self._generation else 0

    @property
    def num_reasoning_tokens(self) -> int:
        """Those of them that are reasoning."""
        return self._generation.num_reasoning_tokens if self._generation else 0

    @property
    def num_cached_tokens(self) -> int:
        """Positions of the prompt that were reused; all of them for a stored answer."""
        if self._recalled.answer is not None:
            return len(self.prompt)
        started = self._generation.started if self._generation else None
        return started.cached_tokens if started else 0

    @property
    def _numerics_class(self) -> str:
        started = self._generation.started if self._generation else None
        return started.numerics_class if started else ""

    def _choose(self, scope: CallScope) -> tuple[Lane, Worker]:
        placement, avoided = self.house.placement, self._failures.avoided
        lanes = self._lanes(scope)
        lane = next((lane for lane in lanes if placement.can_choose(lane, avoided)), lanes[0])
        cached_tokens = self._recalled.cached_tokens
        return lane, placement.choose(
            lane, len(self.prompt), cached_tokens, avoided, numerics_class=self._numerics_class
        )

    def _lanes(self, scope: CallScope) -> Sequence[Lane]:
        """Who may work on the prompt: its lane; behind it, once it has begun, those that would say the same.

        Who has chosen a lane, to see what that one says, gets nothing of another.

        Raises:
            MeshError: LANE_GONE, or LANE_LOST once it has begun: there is none.
        """
        model, own = self.house.catalog.current().find(self._model.name), scope.lane
        if not self.has_begun:
            return [model.pinned_lane(own.lane)]
        lanes = model.lanes_to_go_on(own, len(self.prompt) + (self._sampling.max_tokens or 0))
        if self.request.arrival.pinned_lane:
            lanes = [lane for lane in lanes if lane.lane == own.lane]
        if not lanes:
            raise lane_lost()
        return lanes

    def _may_move(self, scope: CallScope) -> bool:
        """Whether another worker could go on with the prompt now: one of `_lanes` or, with nothing said, of any."""
        with suppress(MeshError):
            self._choose(scope)
            return True
        if self.has_begun or self.request.arrival.pinned_lane:
            return False
        with suppress(MeshError):
            self.house.catalog.current().find(self._model.name).choose_lane(self.receipt.session_key, {scope.lane.lane})
            return True
        return False

    def _actual(self, chosen: Worker, generation: Generation, lane: Lane) -> Worker:
        """Who worked: a call whose worker was gone before it began may have been taken by another of the lane."""
        name = generation.now.worker if generation.now else chosen.instance
        return next((worker for worker in lane.workers if worker.instance == name), chosen)

    def _learn_from(self, generation: Generation, lane: Lane, worker: Worker) -> None:
        self.receipt.worker = worker.instance
        self.account.worker, self.account.cluster = worker.instance, worker.cluster
        if generation.now is not None:
            self.house.placement.learn(worker, generation.now.numerics_class)
            if lane.lane != self.lane_id:
                self.account.taken_over_by = lane.lane

    def _lost(self, worker: Worker, error: MeshError) -> None:
        """A worker let go of the prompt: note it.

        Raises:
            MeshError: the prompt may not go on.
        """
        cause = cause_of(error)
        if cause is not None:
            self._interruption = LostWorker(worker.instance, cause.value, error.message[:MAX_MESSAGE], self.has_begun)
            self.receipt.lost_workers.append(self._interruption)
            if error.reason is not Reason.QUEUE_FULL:
                self.house.placement.lost(worker)
        self._failures.add(worker, error, has_begun=self.has_begun)

    def _tokens_made(self) -> None:
        if self._hold is None:
            self.receipt.token_arrived()
        self.account.token_arrived()
        self._went_on()
        self._last_token_at = time.monotonic()

    def _went_on(self) -> None:
        """What was interrupted goes on: the pause is what the caller may have noticed."""
        lost, self._interruption = self._interruption, None
        if lost is not None and lost.mid_stream:
            lost.pause_s = time.monotonic() - self._last_token_at

    async def _encode(self, scope: CallScope) -> int:
        """Have the prompt as ids, and say how many more of them the context holds."""
        where = place_of(self._input, self._index)
        with self.receipt.timed("tokenize"):
            try:
                self.prompt, self._grammar = await self._ids_and_grammar(scope)
            except MeshError as error:
                if error.reason is not Reason.PROMPT_TOO_LONG:
                    raise
                raise too_long(where, scope.lane, error) from error
        if not self.prompt:
            raise refuse(where, "no tokens; accepted: at least one")
        room = scope.lane.context_length - len(self.prompt)
        if room < (0 if self.ask.is_prompt_only else 1):
            raise too_long(where, scope.lane, len(self.prompt))
        return room

    async def _ids_and_grammar(self, scope: CallScope) -> tuple[Sequence[int], str]:
        """Both at once."""
        if self.ask.grammar is None:
            return await self._ids(scope), self._grammar
        preparing = asyncio.create_task(self.house.tokenizer.prepare_grammar(scope, self.ask.grammar))
        try:
            return await self._ids(scope), await preparing
        except MeshError as error:
            if error.metadata.get("parameter") != "grammar":
                raise
            raise self._blaming_grammar(error) from error
        finally:
            preparing.cancel()
            await asyncio.gather(preparing, return_exceptions=True)
            del preparing  # the traceback of its error holds this frame

    def _blaming_grammar(self, error: MeshError) -> MeshError:
        """An error of the grammar, under the name by which the client gave it."""
        if error.metadata.get("parameter") != "grammar":
            return error
        name = "tools" if self.ask.grammar is None else self.ask.grammar.parameter
        return blaming(name, error)

    async def _ids(self, scope: CallScope) -> Sequence[int]:
        if isinstance(self._input, TokenPrompt):
            self.house.tokenizer.expect(scope)  # it is needed for the answer, if not for the prompt
            return self._input.token_ids
        if isinstance(self._input, Conversation):
            return await self._rendered(scope, self._input)
        return await self.house.tokenizer.encode(scope, self._input)

    async def _rendered(self, scope: CallScope, conversation: Conversation) -> Sequence[int]:
        """Its ids; a constraint on all of the answer leaves no room for calls."""
        constrain_calls = self.ask.grammar is None and conversation.constrains_calls
        try:
            rendered = await self.house.tokenizer.render(scope, conversation, constrain_calls=constrain_calls)
        except MeshError as error:
            raise _blaming_tool(error, conversation) from error
        self._form, self._grammar = rendered.form, rendered.grammar
        self.receipt.unshown = [self.ask.named(place) for place in rendered.unshown]
        return rendered.token_ids

    def _begin_output(self, scope: CallScope, started: Started) -> Generation:
        return Generation(
            scope,
            self.house.tokenizer,
            self.house.detokenizer,
            self._hold.outbox if self._hold else self.request.outbox,
            started,
            num_choices=self.ask.sampling.choice_count,
            stop_strings=self.ask.stop_strings,
            min_tokens=self.ask.sampling.min_tokens,
            report_tokens=self.ask.want_token_ids or self.ask.sampling.top_logprobs is not None,
            report_end=self.ask.echo,
            spell_logprobs=self.ask.sampling.top_logprobs is not None,
            form=self._form,
            conversation=self._input if isinstance(self._input, Conversation) else None,
            grow_calls=self.ask.is_streamed and self._hold is None,
            on_tokens=self._tokens_made,
            guard=self.request.watch.answer if self.request.watch else lambda: None,
            keeps_alternatives=self._may_share_answer(),
        )

    async def _started(self, scope: CallScope) -> Started:
        """What the reader hears first: with the prompt and its scores, if they are to come before the answers."""
        started = Started(self._first_choice_index, self.prompt)
        if not self.ask.echo:
            return started
        text = self._input if isinstance(self._input, str) else await self.house.tokenizer.decode(scope, self.prompt)
        if self.request.watch is not None:
            text = await self.request.watch.echo(text)
        if self.ask.sampling.top_logprobs is None:
            return replace(started, echo_text=text)
        scores = [TokenLogprob(math.nan, ()), *await self._score_prompt(scope, self.ask.sampling.top_logprobs)]
        first, *others = await spell(self.house.tokenizer, scope, self.prompt, scores)
        pieces = await pieces_of(self.house.tokenizer, scope, self.prompt, text)
        logprobs = [replace(first, logprob=None), *others]
        return replace(started, echo_text=text, echo_logprobs=logprobs, echo_pieces=pieces)

    async def _score_prompt(self, scope: CallScope, num_alternatives: int) -> Sequence[TokenLogprob]:
        """How likely each token of the prompt is after those before it; of the first nobody can say."""
        first, others = self.prompt[:1], self.prompt[1:]
        while others:
            _, worker = await self.place(scope)
            self.receipt.worker = self.account.worker = worker.instance
            self.account.cluster = worker.cluster
            try:
                return await self.house.scorers.score(
                    scope, worker, first, others, num_alternatives=num_alternatives, priority=self.ask.priority
                )
            except MeshError as error:
                self._lost(worker, error)
        return ()

    def _answer_key(self) -> AnswerKey:
        tenant = self.request.caller.tenant
        return AnswerKey(tenant, self.ask.cache_salt, self.prompt, self._sampling, self.ask.stop_strings, self._grammar)

    def _may_share_answer(self) -> bool:
        return self.ask.allow_cached_answer and self.ask.sampling.is_greedy

    def _nobody_left(self, error: MeshError) -> MeshError:
        return lane_lost() if self.has_begun else self._failures.last or error


def _blaming_tool(error: MeshError, conversation: Conversation) -> MeshError:
    """An error of a tool's schema, or of all tools, under the name by which the client gave it."""
    blamed = error.metadata.get("parameter", "")
    names = {f"tools[{at}].parameters": tool.parameter for at, tool in enumerate(conversation.shown_tools)}
    if error.reason not in (Reason.GRAMMAR_INVALID, Reason.GRAMMAR_LIMIT) or blamed not in (*names, "tools"):
        return error
    return blaming(names.get(blamed, blamed), error)


def too_long(where: str, lane: Lane, counted: MeshError | int) -> MeshError:
    """A prompt that a lane's context does not hold, in numbers; ``counted``: its tokens, or a tokenizer's refusal."""
    if isinstance(counted, MeshError):
        least = "at least " if counted.metadata.get("at_least") else ""
        num_tokens = least + counted.metadata.get("token_count", "more")
    else:
        num_tokens = str(counted)
    together = "" if lane.num_dimensions else ", prompt and answer together"
    return MeshError(
        Reason.PROMPT_TOO_LONG,
        f"the prompt has {num_tokens} tokens; the model's context is {lane.context_length} tokens{together}",
        parameter=where,
    )


def _usage(attempts: "Sequence[Attempt]") -> Usage:
    return Usage(
        prompt_tokens=sum(len(attempt.prompt) for attempt in attempts),
        cached_tokens=sum(attempt.num_cached_tokens for attempt in attempts),
        completion_tokens=sum(attempt.num_tokens for attempt in attempts),
        reasoning_tokens=sum(attempt.num_reasoning_tokens for attempt in attempts),
    )


def _role_insufficient(caller: Caller, needed: Role, what: str) -> MeshError:
    return MeshError(
        Reason.ROLE_INSUFFICIENT, f"{what} needs the role {needed.value!r}; this key has {caller.role.value!r}"
    )


def _opaque(tenant: str) -> str:
    """A tenant's key for those who need to tell tenants apart, and not to know them."""
    return blake2b(tenant.encode(), digest_size=8).hexdigest()
