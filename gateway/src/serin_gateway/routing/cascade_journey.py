"""A request on its way along a cascade: a first model's answer is held back until it is judged.

A good one is given at once; else it is thrown away and the second model answers, streamed as any. What can be decided
without an answer is decided before the first model is asked. Knows nothing about how rules are checked.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from serin_mesh.errors import MeshError, Reason

from serin_gateway.ask import Ask, refuse
from serin_gateway.cascades.answer_rules import answer_rule
from serin_gateway.cascades.cascade import Cascade, Decision, Hint, Outcome, Rule
from serin_gateway.cascades.held import HeldOutbox
from serin_gateway.cascades.prompt_rules import prompt_rule
from serin_gateway.catalog import ServedModel
from serin_gateway.conversation import Conversation
from serin_gateway.failures import may_try_another_model
from serin_gateway.limits.limiter import NOTHING, Amount
from serin_gateway.routing.journey import Journey
from serin_gateway.routing.names import Route
from serin_gateway.routing.stop import Hold

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
    Reason.NUMERICS_FAILED: Rule.FAILED,
    Reason.OUT_OF_MEMORY: Rule.FAILED,
}
"""What ends a first model's attempt, and neither the request nor its caller is to blame."""


class CascadeJourney(Journey):
    """A request's way along a cascade.

    Args:
        request, route, ask: as of any journey.
        cascade, first: what is declared, and its first model.

    Raises:
        MeshError: PARAMETER_INVALID or PARAMETER_UNSUPPORTED, the cascade and what is asked do not go together.
    """

    def __init__(self, request: "Request", route: Route, ask: Ask, cascade: Cascade, first: ServedModel) -> None:
        super().__init__(request, route, ask)
        self._cascade = cascade
        self._first: ServedModel | None = first
        """The first model, while it is to be asked."""
        self._choose(first)

    @property
    def names(self) -> Sequence[str]:
        """Names of all models that may be asked."""
        return [*([self._first.name] if self._first else []), *super().names]

    @property
    def counts_models_apart(self) -> bool:
        """Always: which models are asked is not known yet."""
        return True

    @property
    def most(self) -> Amount:
        """What all of it can use: both models."""
        return super().most + (NOTHING if self._first is None else self._most_at(self._first))

    @property
    def least(self) -> Amount:
        """What has to be left for any of it: either model alone may answer."""
        least = super().least
        return least if self._first is None else least.at_most(self._least_at(self._first))

    async def begin(self) -> None:
        """Wait for a place at the first model, or at the second where the first has none."""
        if self._first is not None:
            try:
                self._stop = await self._arrive(self._first)
                return
            except MeshError as error:
                if not may_try_another_model(error):
                    raise
                self._escalate(Rule.UNAVAILABLE)
        await super().begin()

    async def answer(self, ask: Ask) -> None:
        """Have the first model answer, and judge; where that is not good enough, have the second one answer."""
        if self._first is None:
            await super().answer(ask)
            return
        hold = Hold(HeldOutbox(), self._cascade.rules.need_logprobs)
        began_at = time.monotonic()
        attempts, rule = await self._judged(ask, self._first, hold)
        assert self._stop is not None
        await self._stop.leave(is_answered=attempts is not None)
        took_s = time.monotonic() - began_at
        if attempts is not None and rule is Rule.NONE:
            self._keep(attempts, hold, rule)
        elif attempts is not None and self._request.seconds_left < max(MIN_ESCALATION_S, took_s):
            self._keep(attempts, hold, Rule.LATE)
        else:
            self._request.throw_away(self._first.name)
            self._escalate(rule)
            await self._by_second(ask, attempts, hold, rule)

    async def _by_second(self, ask: Ask, attempts: "Sequence[Attempt] | None", hold: Hold, rule: Rule) -> None:
        """Have the second model answer. Where it cannot, a whole first answer that may be wrong is better than none.

        Raises:
            MeshError: there is none, or it is known to be wrong.
        """
        try:
            await self._by_others(ask)
        except MeshError:
            if attempts is None or rule is Rule.SCHEMA or self._request.outbox.has_begun:
                raise
            self._keep(attempts, hold, Rule.THEN_FAILED)

    def _choose(self, first: ServedModel) -> None:
        """Decide what can be decided before any model is asked."""
        name, arrival = self._cascade.name, self._request.arrival
        hint = _hint(arrival.cascade_hint)
        if hint is not Hint.AUTO and not self._cascade.rules.hint:
            raise refuse(HINT_KEY, f"{name!r} does not let its callers decide; accepted: auto, or nothing")
        if arrival.pinned_lane:
            raise refuse("serin-lane", f"{name!r} is a cascade; a lane belongs to one model: name that one")
        if hint is Hint.FIRST:
            self._models, self._first = [first], None
            self._decide(Outcome.KEPT, Rule.HINT)
            return
        rule = Rule.HINT if hint is Hint.THEN else prompt_rule(self._cascade.rules, self._ask)
        if rule is not None:
            self._escalate(rule)

    def _escalate(self, rule: Rule) -> None:
        self._first = None
        self._decide(Outcome.ESCALATED, rule)

    def _keep(self, attempts: "Sequence[Attempt]", hold: Hold, rule: Rule) -> None:
        self._decide(Outcome.KEPT, rule)
        self._request.give(attempts, hold.outbox)

    def _decide(self, outcome: Outcome, rule: Rule) -> None:
        self._request.receipt.decision = Decision(self._cascade.name, outcome, rule)

    async def _judged(self, ask: Ask, first: ServedModel, hold: Hold) -> "tuple[Sequence[Attempt] | None, Rule]":
        """The first model's whole answer, or None, and the rule by which it is not good enough; NONE: it is.

        Raises:
            MeshError: there is none, and the second model could not help.
        """
        try:
            attempts = await self._held(replace(ask, model=first.name), hold)
        except MeshError as error:
            if error.reason not in _FIRST_CANNOT and not may_try_another_model(error):
                raise
            return None, _FIRST_CANNOT.get(error.reason, Rule.UNAVAILABLE)
        if attempts is None:
            return None, Rule.TOO_LARGE
        choices = hold.outbox.choices(ask.choice_count)
        for choice, logprobs in zip(choices, [one for attempt in attempts for one in attempt.logprobs], strict=True):
            choice.logprobs = logprobs
        conversation = ask.inputs[0] if isinstance(ask.inputs[0], Conversation) else None
        return attempts, answer_rule(self._cascade.rules, choices, ask.grammar, conversation) or Rule.NONE

    async def _held(self, ask: Ask, hold: Hold) -> "Sequence[Attempt] | None":
        """A whole answer that its caller has seen nothing of; None: it is more than may be held.

        Raises:
            MeshError: there is none.
        """
        answering = asyncio.create_task(self._request.answer_by(ask, hold))
        overflow = asyncio.create_task(hold.outbox.overflowed.wait())
        try:
            await asyncio.wait({answering, overflow}, return_when=asyncio.FIRST_COMPLETED)
            return None if hold.outbox.overflowed.is_set() else await answering
        finally:
            for task in (answering, overflow):
                task.cancel()
            await asyncio.gather(answering, overflow, return_exceptions=True)


def _hint(text: str) -> Hint:
    with suppress(ValueError):
        return Hint(text) if text else Hint.AUTO
    raise refuse(HINT_KEY, f"{text[:32]!r} is not accepted; accepted: {', '.join(Hint)}")


def journey_of(request: "Request", route: Route, ask: Ask) -> Journey:
    """The way of a request along its route.

    Raises:
        MeshError: PARAMETER_INVALID or PARAMETER_UNSUPPORTED, the route and what is asked do not go together.
    """
    if route.cascade is None and request.arrival.cascade_hint not in ("", Hint.AUTO):
        request.receipt.passed_over = [HINT_KEY]
    if route.cascade is None or route.first is None:
        return Journey(request, route, ask)
    return CascadeJourney(request, route, ask, route.cascade, route.first)
