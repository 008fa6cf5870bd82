"""One request on its way along its route: which model is asked, what is held there, and who comes next.

Another model is asked only while the caller has seen nothing. A cascade's first answer is held back until it is judged,
then given at once or thrown away. Knows nothing about how a model answers.
"""

import asyncio
import time
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from serin_mesh.errors import MeshError, Reason

from serin_gateway.ask import Ask, TokenPrompt, refuse
from serin_gateway.cascades.answer_rules import answer_rule
from serin_gateway.cascades.cascade import Cascade, Decision, Hint, Outcome, Rule
from serin_gateway.cascades.held import HeldOutbox
from serin_gateway.cascades.prompt_rules import prompt_rule
from serin_gateway.catalog import ServedModel
from serin_gateway.conversation import Conversation
from serin_gateway.failures import may_try_another_model
from serin_gateway.limits.limiter import Amount, Scope, Standing
from serin_gateway.limits.reservation import Reservation
from serin_gateway.overload import Pass
from serin_gateway.receipt import Fallback
from serin_gateway.routing.names import Route

if TYPE_CHECKING:
    from serin_gateway.pipeline import Attempt, Request

MIN_ESCALATION_S = 1.0
"""With less time left than this, or than the first answer took, a held answer is given as it is."""
HINT_KEY = "serin-cascade"
"""Header and metadata by which callers decide."""

_FIRST_CANNOT = {
    Reason.PROMPT_TOO_LONG: Rule.UNSUITED,
    Reason.PARAMETER_UNSUPPORTED: Rule.UNSUITED,
    Reason.LANE_LOST: Rule.FAILED,
    Reason.UPSTREAM_UNAVAILABLE: Rule.FAILED,
    Reason.NUMERICS_FAILED: Rule.FAILED,
}
"""What ends a first model's attempt, and neither the request nor its caller is to blame."""


@dataclass(slots=True)
class Hold:
    """How an answer is held back: where it waits, and whether the model is to say how sure it is."""

    outbox: HeldOutbox
    want_logprobs: bool


@dataclass(slots=True)
class Stop:
    """What a request holds at one model while it is asked there: a place, and a reservation of the model's limits."""

    model: ServedModel
    reservation: Reservation | None = None
    admitted: Pass | None = None

    async def leave(self, *, is_answered: bool = False) -> None:
        """Give back what is held. A second time changes nothing."""
        if self.admitted is not None:
            self.admitted.give_back(is_answered=is_answered)
        if self.reservation is not None:
            await self.reservation.give_back()


class Journey:
    """A request's way.

    Args:
        request: whose.
        route: where the name that was asked for leads.
        ask: what was asked.

    Raises:
        MeshError: PARAMETER_INVALID or PARAMETER_UNSUPPORTED, the route and what is asked do not go together.
    """

    def __init__(self, request: "Request", route: Route, ask: Ask) -> None:
        self._request = request
        self._route = route
        self._ask = ask
        self._models = list(_alike(route, ask))
        self.counts_models_apart = route.cascade is not None or len(self._models) > 1
        """Whether limits of models are reserved model by model, as each is asked."""
        self._stop: Stop | None = None
        self._at = 0
        self._refusal: MeshError | None = None
        self._rule: Rule | None = None
        """Why the second model of a cascade answers; None: the first is asked."""
        if route.cascade is not None:
            self._choose(route.cascade)

    @property
    def names(self) -> Sequence[str]:
        """Names of all models that may be asked."""
        first = [self._first.name] if self._first else []
        return [*first, *(model.name for model in self._models)]

    def most(self, of: Callable[[ServedModel], Amount]) -> Amount:
        """What all of it can use: a cascade both its models, of those that stand in for each other the dearest."""
        amounts = [of(model) for model in self._models]
        most = Amount(max(one.tokens for one in amounts), max(one.nano for one in amounts))
        if self._first is None:
            return most
        before = of(self._first)
        return Amount(before.tokens + most.tokens, before.nano + most.nano)

    async def begin(self, of: Callable[[ServedModel], Amount]) -> None:
        """Wait for a place at the first model that has one.

        Raises:
            MeshError: QUEUE_FULL, RATE_LIMITED (the model's limits) or DEADLINE_EXCEEDED: none has.
        """
        self._most_of = of
        if self._first is not None:
            try:
                self._stop = await self._arrive(self._first)
                return
            except MeshError as error:
                if not may_try_another_model(error):
                    raise
                self._escalate(Rule.UNAVAILABLE)
        await self._go_on()

    async def answer(self, ask: Ask) -> None:
        """Have it answered, by whichever model can.

        Raises:
            MeshError: none can; what the first one said.
        """
        if self._first is None or not await self._by_first(ask, self._first):
            await self._by_others(ask)

    @property
    def standing(self) -> Standing | None:
        """Where the limits of the model that is asked now stand; None: they are counted elsewhere, or there are none."""
        return self._stop.reservation.standing if self._stop and self._stop.reservation else None

    async def cover(self, model: str, part: Hashable, most: Amount) -> None:
        """Reserve of a model's limits what one prompt can use.

        Raises:
            MeshError: RATE_LIMITED.
        """
        stop = self._stop
        if stop is not None and stop.reservation is not None and stop.model.name == model:
            await stop.reservation.cover(part, most)

    async def end(self, *, is_answered: bool) -> None:
        """Give back whatever is held still."""
        if self._stop is not None:
            await self._stop.leave(is_answered=is_answered)

    @property
    def _first(self) -> ServedModel | None:
        """The first model of a cascade, while it may be asked."""
        return self._route.first if self._rule is None else None

    # A cascade:

    def _choose(self, cascade: Cascade) -> None:
        """Decide what can be decided before any model is asked."""
        hint, rules = _hint(self._request.arrival.cascade_hint), cascade.rules
        if hint is not Hint.AUTO and not rules.hint:
            raise refuse(HINT_KEY, f"{cascade.name!r} does not let its callers decide; accepted: auto, or nothing")
        if self._request.arrival.pinned_lane:
            raise refuse("serin-lane", f"{cascade.name!r} is a cascade; a lane belongs to one model: name that one")
        if hint is Hint.FIRST:
            assert self._route.first is not None
            self._models = [self._route.first]
            self._rule = Rule.HINT
            self._decide(Outcome.KEPT, Rule.HINT)
            return
        rule = Rule.HINT if hint is Hint.THEN else prompt_rule(rules, self._ask)
        if rule is not None:
            self._escalate(rule)

    def _escalate(self, rule: Rule) -> None:
        self._rule = rule
        self._decide(Outcome.ESCALATED, rule)

    def _decide(self, outcome: Outcome, rule: Rule) -> None:
        assert self._route.cascade is not None
        self._request.receipt.decision = Decision(self._route.cascade.name, outcome, rule)

    async def _by_first(self, ask: Ask, first: ServedModel) -> bool:
        """Have the first model answer, and judge; False: others are to answer."""
        assert self._route.cascade is not None and self._stop is not None
        rules = self._route.cascade.rules
        hold = Hold(HeldOutbox(), rules.need_logprobs)
        began_at = time.monotonic()
        try:
            attempts = await self._held(replace(ask, model=first.name), hold)
        except MeshError as error:
            rule = Rule.UNAVAILABLE if may_try_another_model(error) else _FIRST_CANNOT.get(error.reason)
            if rule is None:
                raise
            attempts, found = None, rule
        else:
            found = _judge(self._route.cascade, ask, hold, attempts) if attempts else Rule.TOO_LARGE
        await self._stop.leave(is_answered=attempts is not None)
        if attempts and found is Rule.NONE:
            self._keep(attempts, hold, Rule.NONE)
            return True
        took_s, left_s = time.monotonic() - began_at, self._request.deadline - time.monotonic()
        if attempts and left_s < max(MIN_ESCALATION_S, took_s):
            self._keep(attempts, hold, Rule.LATE)
            return True
        self._request.throw_away(first.name)
        self._escalate(found)
        try:
            await self._by_others(ask)
        except MeshError:
            if not attempts or found is Rule.SCHEMA or self._request.outbox.has_begun:
                raise
            self._keep(attempts, hold, Rule.THEN_FAILED)
        return True

    def _keep(self, attempts: "Sequence[Attempt]", hold: Hold, rule: Rule) -> None:
        self._decide(Outcome.KEPT, rule)
        self._request.give(attempts, hold.outbox)

    async def _held(self, ask: Ask, hold: Hold) -> "Sequence[Attempt] | None":
        """A whole answer that its caller has seen nothing of; None: it is more than may be held.

        Raises:
            MeshError: there is none.
        """
        answering = asyncio.create_task(self._request.answer_by(ask, hold))
        overflow = asyncio.create_task(hold.outbox.overflowed.wait())
        try:
            await asyncio.wait({answering, overflow}, return_when=asyncio.FIRST_COMPLETED)
            return await answering if answering.done() and not hold.outbox.is_full else None
        finally:
            for task in (answering, overflow):
                task.cancel()
            await asyncio.gather(answering, overflow, return_exceptions=True)

    # Models that answer in each other's place:

    async def _by_others(self, ask: Ask) -> None:
        request = self._request
        while True:
            if self._stop is None or self._stop.model is not self._models[self._at]:
                await self._go_on()
            assert self._stop is not None
            try:
                await request.answer_by(replace(ask, model=self._stop.model.name))
                return
            except MeshError as error:
                if request.outbox.has_begun:
                    raise
                await self._stop.leave()
                self._next(error)

    async def _go_on(self) -> None:
        """Wait for a place at the next model that has one."""
        while True:
            try:
                self._stop = await self._arrive(self._models[self._at])
                return
            except MeshError as error:
                self._next(error)

    def _next(self, error: MeshError) -> None:
        """A model cannot answer: the next one is to, if there is one and the error allows it.

        Raises:
            MeshError: none is to; what the first one said.
        """
        refusal, model = self._refusal or error, self._models[self._at]
        # Whatever goes wrong with one that stands in, callers hear what the model they asked for said.
        may_go_on = (
            may_try_another_model(error) if self._refusal is None else error.reason is not Reason.DEADLINE_EXCEEDED
        )
        if not may_go_on or self._at + 1 == len(self._models) or self._request.arrival.pinned_lane:
            self._request.receipt.model = self._models[0].name
            raise refusal
        self._refusal = refusal
        self._at += 1
        self._request.receipt.fallbacks.append(Fallback(model.name, self._models[self._at].name, error.reason.value))

    async def _arrive(self, model: ServedModel) -> Stop:
        """A place at a model, and what is reserved of its limits.

        Raises:
            MeshError: RATE_LIMITED, QUEUE_FULL or DEADLINE_EXCEEDED.
        """
        request, ask = self._request, self._ask
        request.receipt.model = model.name
        stop = Stop(model)
        if self.counts_models_apart:
            scope = Scope("model", model.name, model.limits)
            stop.reservation = Reservation(request.house.leases, [scope], lambda: request.used_by(model.name))
            await stop.reservation.open(self._most_of(model))
        try:
            left_s = request.deadline - time.monotonic()
            stop.admitted = await request.house.turnstiles.enter(
                model, request.caller.tenant, ask.priority, ask.choice_count, left_s
            )
        except BaseException:
            await stop.leave()
            raise
        return stop


def _judge(cascade: Cascade, ask: Ask, hold: Hold, attempts: "Sequence[Attempt]") -> Rule:
    """The rule by which an answer is thrown away; NONE: it is good."""
    choices = hold.outbox.choices(ask.choice_count)
    for choice, logprobs in zip(choices, [one for attempt in attempts for one in attempt.logprobs], strict=True):
        choice.logprobs = logprobs
    conversation = ask.inputs[0] if isinstance(ask.inputs[0], Conversation) else None
    return answer_rule(cascade.rules, choices, ask.grammar, conversation) or Rule.NONE


def _hint(text: str) -> Hint:
    with suppress(ValueError):
        return Hint(text) if text else Hint.AUTO
    raise refuse(HINT_KEY, f"{text[:32]!r} is not accepted; accepted: {', '.join(Hint)}")


def _alike(route: Route, ask: Ask) -> Sequence[ServedModel]:
    """The models of a route that understand an ask: ids mean something in one vocabulary only.

    Raises:
        MeshError: PARAMETER_UNSUPPORTED, ids for a cascade whose models have two.
    """
    names_ids = bool(ask.sampling.logit_bias or ask.sampling.stop_token_ids)
    if not names_ids and not any(isinstance(one, TokenPrompt) for one in ask.inputs):
        return route.models
    first = _vocabularies(route.begins_with)
    alike = [model for model in route.models if len(first | _vocabularies(model)) == 1]
    if route.cascade is None:
        return [route.models[0], *(model for model in alike if model is not route.models[0])]
    if route.models[0] not in alike:
        why = f"{route.asked[:80]!r} is a cascade whose models have different vocabularies; send text, and no ids"
        raise refuse("model", why, Reason.PARAMETER_UNSUPPORTED)
    return alike


def _vocabularies(model: ServedModel) -> set[str]:
    return {lane.vocabulary_digest for lane in model.lanes if lane.is_ready}
