"""One request on its way along its route: which model is asked, what is held there, and who comes next.

Another model is asked only while the caller has seen nothing. Knows nothing about how a model answers.
"""

from collections.abc import Hashable, Sequence
from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING

from serin_mesh.errors import MeshError, Reason

from serin_gateway import bounds
from serin_gateway.ask import Ask, Turns
from serin_gateway.catalog import ServedModel
from serin_gateway.failures import may_try_another_model
from serin_gateway.limits.limiter import Amount, Scope, Standing
from serin_gateway.limits.reservation import Reservation
from serin_gateway.overload import Pass
from serin_gateway.receipt import Fallback
from serin_gateway.routing.alike import alike
from serin_gateway.routing.names import Route
from serin_gateway.routing.stop import Stop

if TYPE_CHECKING:
    from serin_gateway.pipeline import Request


class Journey:
    """A request's way: the model that was asked for, then those that answer in its place.

    Args:
        request: whose.
        route: where the name that was asked for leads.
        ask: what was asked.

    Raises:
        MeshError: PARAMETER_UNSUPPORTED, the route and what is asked do not go together.
    """

    def __init__(self, request: "Request", route: Route, ask: Ask) -> None:
        self._request = request
        self._route = route
        self._ask = ask
        self._models: Sequence[ServedModel] = alike(route, ask)
        self._stop: Stop | None = None
        self._at = 0
        self._refusal: MeshError | None = None

    @property
    def names(self) -> Sequence[str]:
        """Names of all models that may be asked."""
        return [model.name for model in self._models]

    @property
    def counts_models_apart(self) -> bool:
        """Whether limits of models are reserved model by model, as each is asked."""
        return len(self._models) > 1

    @property
    def standing(self) -> Standing | None:
        """Where the limits of the model that is asked now stand; None: they are counted elsewhere, if there are any."""
        return self._stop.reservation.standing if self._stop and self._stop.reservation else None

    @property
    def most(self) -> Amount:
        """What all of it can use: of models that stand in for each other, the dearest."""
        return reduce(Amount.at_least, map(self._most_at, self._models))

    @property
    def least(self) -> Amount:
        """What has to be left for any of it: the cheapest model's least."""
        return reduce(Amount.at_most, map(self._least_at, self._models))

    def look_ahead(self) -> None:
        """Refuse what would wait too long, before anything is reserved for it: under load most refusals end here.

        Raises:
            MeshError: QUEUE_FULL.
        """
        if not self.counts_models_apart:  # else another model may stand in
            model, request = self._models[0], self._request
            turns = self._ask.turns(model.worker_places)
            request.house.turnstiles.look(
                model,
                request.caller.tenant,
                self._ask.priority,
                turns.num_places,
                request.seconds_left,
                num_turns=turns.count,
            )

    async def begin(self) -> None:
        """Wait for a place at the first model that has one.

        Raises:
            MeshError: QUEUE_FULL, RATE_LIMITED (the model's limits) or DEADLINE_EXCEEDED: none has.
        """
        await self._go_on()

    async def answer(self, ask: Ask) -> None:
        """Have it answered, by whichever model can.

        Raises:
            MeshError: none can; what the first one said.
        """
        await self._by_others(ask)

    async def next_turn(self, turns: Turns) -> None:
        """Give back the place at the model that is asked now, for what is done, and wait for one for what is left.

        Raises:
            MeshError: QUEUE_FULL or DEADLINE_EXCEEDED.
        """
        stop = self._stop
        assert stop is not None
        if stop.admitted is not None:
            stop.admitted.give_back(is_answered=True)
        stop.admitted = await self._admitted(stop.model, turns)

    async def cover(self, model: str, part: Hashable, most: Amount, bound: Amount) -> None:
        """Reserve of a model's limits what one prompt can use, which was taken for ``bound`` before it was counted.

        Raises:
            MeshError: RATE_LIMITED.
        """
        stop = self._stop
        if stop is not None and stop.reservation is not None and stop.model.name == model:
            await stop.reservation.cover(part, most, bound)

    def vacate(self, *, is_answered: bool) -> None:
        """Give back the place: no worker works for it any more, however slowly its caller reads."""
        if self._stop is not None and self._stop.admitted is not None:
            self._stop.admitted.give_back(is_answered=is_answered)

    async def end(self, *, is_answered: bool) -> None:
        """Give back whatever is held still."""
        if self._stop is not None:
            await self._stop.leave(is_answered=is_answered)

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
        refusal, model, receipt = self._refusal or error, self._models[self._at], self._request.receipt
        # Whatever goes wrong with one that stands in, callers hear what the model they asked for said.
        stands_in, is_late = self._refusal is not None, error.reason is Reason.DEADLINE_EXCEEDED
        may_go_on = not is_late if stands_in else may_try_another_model(error)
        if not may_go_on or self._at + 1 == len(self._models) or self._request.arrival.pinned_lane:
            receipt.model = self._models[0].name
            try:
                raise refusal
            finally:
                del refusal, error  # their tracebacks hold this frame, and with it what was asked
                self._refusal = None
        self._refusal = refusal
        self._at += 1
        receipt.fallbacks.append(Fallback(model.name, self._models[self._at].name, error.reason.value))

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
            await stop.reservation.open(self._most_at(model), self._least_at(model))
        try:
            stop.admitted = await self._admitted(model, ask.turns(model.worker_places))
        except BaseException:
            await stop.leave()
            raise
        return stop

    def _most_at(self, model: ServedModel) -> Amount:
        return bounds.most(model, self._ask.inputs, self._ask.sampling)

    def _least_at(self, model: ServedModel) -> Amount:
        return bounds.least(model, self._ask.inputs, self._ask.sampling)

    async def _admitted(self, model: ServedModel, turns: Turns) -> Pass:
        request = self._request
        return await request.house.turnstiles.enter(
            model,
            request.caller.tenant,
            self._ask.priority,
            turns.num_places,
            request.seconds_left,
            num_turns=turns.count,
        )
