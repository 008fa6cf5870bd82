"""One model on a request's way, and what the request holds there. Knows nothing about what comes before or after."""

from dataclasses import dataclass

from serin_gateway.cascades.held import HeldOutbox
from serin_gateway.catalog import ServedModel
from serin_gateway.limits.reservation import Reservation
from serin_gateway.overload import Pass


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
