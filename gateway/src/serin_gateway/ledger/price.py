"""What tokens cost. Knows nothing about requests."""

from collections.abc import Iterable
from dataclasses import dataclass

PICO_PER_NANO = 1000


@dataclass(frozen=True, slots=True)
class Price:
    """Micro-units (10^-6) of the currency for a million tokens: for one token, that many pico-units (10^-12).

    Attributes:
        input: tokens of the prompt that were computed.
        cached_input: tokens of the prompt that were reused.
        output: tokens of the answer.
    """

    input: int = 0
    cached_input: int = 0
    output: int = 0

    def cost(self, prompt_tokens: int, cached_tokens: int, completion_tokens: int) -> int:
        """Nano-units of a billing line; what is less than one counts as one. ``prompt_tokens`` include the cached."""
        fresh = prompt_tokens - cached_tokens
        pico = fresh * self.input + cached_tokens * self.cached_input + completion_tokens * self.output
        return -(-pico // PICO_PER_NANO)


FREE = Price()


def highest(prices: Iterable[Price]) -> Price:
    """What no request can cost more than, whichever of these prices it is billed at."""
    known = list(prices)
    if not known:
        return FREE
    return Price(
        max(max(price.input, price.cached_input) for price in known),
        max(price.cached_input for price in known),
        max(price.output for price in known),
    )
