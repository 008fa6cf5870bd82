"""A running embedding model with its names: what the service answers with.

Knows nothing about protobuf or servers.
"""

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from serin_mesh.load import LoadReport

if TYPE_CHECKING:  # torch takes seconds to import; the server listens before that
    from serin_worker.embedding.loop import EmbeddingLoop
    from serin_worker.embedding.startup import EmbeddingDescription


SHORT_INPUT_TOKENS = 32


def num_places(max_sequences: int, max_batch_tokens: int) -> int:
    """Inputs that a worker should have at a time: as many short ones as fill a batch, or what it is told, if more."""
    return max(max_sequences, max_batch_tokens // SHORT_INPUT_TOKENS)


@dataclass(frozen=True, slots=True)
class EmbeddingServing:
    """An embedding model that is served as one instance; ``max_num_inputs``: its places, see `num_places`."""

    loop: "EmbeddingLoop"
    about: "EmbeddingDescription"
    vocabulary_digest: str
    model: str
    version: str
    instance: str
    max_num_inputs: int
    epoch: str = field(default_factory=lambda: secrets.token_hex(8))
    """Differs after every start."""

    @property
    def result_digest(self) -> str:
        """Of everything that decides what it computes."""
        return self.about.vector_digest

    def load(self) -> LoadReport:
        """Load now, in places: batches are short, so only inputs beyond the places count as waiting."""
        num_inputs = self.loop.num_running + self.loop.num_waiting
        running = min(num_inputs, self.max_num_inputs)
        return LoadReport(
            utilization=num_inputs / self.max_num_inputs,
            requests_per_s=self.loop.rate.per_s(),
            named={"kv": 0.0, "running": running, "waiting": num_inputs - running},
        )

    async def computes_numbers(self) -> bool:
        """Ask the model a fixed question: whether its vector is made of numbers.

        Raises:
            WorkerError: it could not be asked.
        """
        return await self.loop.computes_numbers()
