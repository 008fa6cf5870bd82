"""The seam to workers that score: how likely each lane's model finds given tokens.

Knows nothing about gRPC; `upstream/` carries it out over the mesh, `testing` in memory.
"""

from collections.abc import Sequence
from typing import Protocol

from serin_gateway.catalog import Worker
from serin_gateway.tokenizer import CallScope
from serin_gateway.worker import TokenLogprob

LOWEST_PRIORITY = -100


class Scorers(Protocol):
    """Calls workers for scores."""

    async def score(
        self,
        scope: CallScope,
        worker: Worker,
        prompt: Sequence[int],
        answer: Sequence[int],
        *,
        num_alternatives: int = 1,
        priority: int = LOWEST_PRIORITY,
    ) -> Sequence[TokenLogprob]:
        """One score for each token of the answer, with the likeliest ones at its place; by one prefill, kept nowhere.

        Raises:
            MeshError: whatever went wrong.
        """
