"""The seam to workers that score: how likely each lane's model finds given tokens.

Knows nothing about gRPC; `upstream/` carries it out over the mesh, `testing` in memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from serin_gateway.catalog import Worker
from serin_gateway.tokenizer import CallScope


@dataclass(frozen=True, slots=True)
class TokenScore:
    """Log-probability of one given token in nats, and the id that would have been likeliest."""

    logprob: float
    best_id: int


class Scorers(Protocol):
    """Calls workers for scores."""

    async def score(
        self, scope: CallScope, worker: Worker, prompt: Sequence[int], answer: Sequence[int]
    ) -> Sequence[TokenScore]:
        """One score for each token of the answer, by one prefill at the lowest priority; nothing is kept of it.

        Raises:
            MeshError: whatever went wrong.
        """
