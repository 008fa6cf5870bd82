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


@dataclass(frozen=True, slots=True)
class EmbeddingServing:
    """An embedding model that is served as one instance; ``max_num_inputs`` is what it is called fully used at."""

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
        """Load now: utilization counts inputs that are computed and that wait."""
        running, waiting = self.loop.num_running, self.loop.num_waiting
        return LoadReport(
            utilization=(running + waiting) / self.max_num_inputs,
            requests_per_s=self.loop.rate.per_s(),
            named={"kv": 0.0, "running": running, "waiting": waiting},
        )

    async def computes_numbers(self) -> bool:
        """Ask the model a fixed question: whether its vector is made of numbers.

        Raises:
            WorkerError: it could not be asked.
        """
        return await self.loop.computes_numbers()
