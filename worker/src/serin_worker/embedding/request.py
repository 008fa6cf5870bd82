"""What is asked of an embedding model, and what each of its inputs becomes on the way.

Knows nothing about threads or models.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from serin_worker.errors import InputTooLong, RequestRefused

MAX_INPUTS = 2048


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddingRequest:
    """Inputs as ids, special ones included; ``num_dimensions`` 0: whole vectors."""

    inputs: Sequence[Sequence[int]]
    num_dimensions: int = 0


@dataclass(frozen=True, slots=True)
class EmbeddingBounds:
    """What a model can be asked.

    Attributes:
        max_tokens: longest input.
        vocabulary_size: ids are below it.
        num_dimensions: length of whole vectors.
        can_shorten: whether the beginning of a vector means something by itself.
    """

    max_tokens: int
    vocabulary_size: int
    num_dimensions: int
    can_shorten: bool

    def check(self, request: EmbeddingRequest) -> None:
        """Refuse what cannot be computed.

        Raises:
            RequestRefused: naming the input and what is accepted.
        """
        if not 1 <= len(request.inputs) <= MAX_INPUTS:
            raise RequestRefused("runs", f"there are {len(request.inputs)} inputs; accepted: 1 to {MAX_INPUTS}")
        self._check_dimensions(request.num_dimensions)
        for index, ids in enumerate(request.inputs):
            if not ids:
                raise RequestRefused(f"runs[{index}]", f"runs[{index}] is empty; accepted: at least one id")
            if len(ids) > self.max_tokens:
                raise InputTooLong(index, len(ids), self.max_tokens)
            if max(ids) >= self.vocabulary_size:
                raise RequestRefused(
                    f"runs[{index}]",
                    f"runs[{index}] has the id {max(ids)}; accepted: ids below {self.vocabulary_size}",
                )

    def _check_dimensions(self, wanted: int) -> None:
        if wanted > self.num_dimensions:
            raise RequestRefused(
                "dimension_count", f"{wanted} dimensions are wanted and the model has {self.num_dimensions}"
            )
        if wanted and wanted != self.num_dimensions and not self.can_shorten:
            raise RequestRefused(
                "dimension_count",
                f"the model joins several poolings, so a vector's beginning says nothing about the rest; accepted: "
                f"{self.num_dimensions}",
            )
