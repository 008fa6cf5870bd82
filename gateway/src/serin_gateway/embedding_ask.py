"""What a client wants vectors of, whichever door it came through, and the ranges that hold for both.

Knows nothing about HTTP, gRPC or tokenizers.
"""

from dataclasses import dataclass, field

from serin_gateway.ask import Ask, Sampling, TokenPrompt, Turns, place_of, refuse

MAX_INPUTS = 2048
PART_INPUTS = 256
"""Inputs are computed in parts, for each of which a request waits its turn: at most so many, and no more than a worker
has places, so that a long list delays nobody by more than one of its parts."""


@dataclass(frozen=True, slots=True)
class EmbeddingAsk(Ask):
    """Texts or ids to compute vectors of. Nothing is generated, so that the inputs' tokens are all that it can use.

    Attributes:
        num_dimensions: length of the vectors; None: the model's own.
    """

    sampling: Sampling = field(default_factory=lambda: Sampling(choice_count=0))
    num_dimensions: int | None = None

    @property
    def may_change_model(self) -> bool:
        """Never: vectors of two models cannot be compared."""
        return False

    def turns(self, worker_places: int) -> Turns:
        """A turn for each part; an input takes one place."""
        num_inputs = part_inputs(worker_places)
        return Turns(min(len(self.inputs), num_inputs), -(-len(self.inputs) // num_inputs))


def part_inputs(worker_places: int) -> int:
    """Most inputs of a part, where the smallest worker has so many places (0: unknown)."""
    return min(PART_INPUTS, worker_places or PART_INPUTS)


def check(ask: EmbeddingAsk) -> EmbeddingAsk:
    """The ask, if every value is in range.

    Raises:
        MeshError: PARAMETER_INVALID with the parameter as its caller names it, its value and what is accepted.
    """
    if not 0 < len(ask.model) <= 256:
        raise refuse("model", f"{ask.model!r:.80} is not accepted; accepted: a model's name")
    if not 1 <= len(ask.inputs) <= MAX_INPUTS:
        raise refuse(ask.named("inputs"), f"{len(ask.inputs)} inputs; accepted: 1 to {MAX_INPUTS}")
    if ask.num_dimensions is not None and not 1 <= ask.num_dimensions < 2**31:
        raise refuse(ask.named("num_dimensions"), f"{ask.num_dimensions} is not accepted; accepted: 1 to 2147483647")
    for index, one in enumerate(ask.inputs):
        if isinstance(one, str) and not one:
            raise refuse(ask.named(place_of(one, index)), "is empty; accepted: a text of at least one character")
        if isinstance(one, TokenPrompt) and not one.token_ids:
            raise refuse(ask.named(place_of(one, index)), "is empty; accepted: at least one token id")
    return ask
