"""What workers have sent under the names that attempts are billed as: the seam.

Knows nothing about gRPC; `upstream/` asks the mesh.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from serin_gateway.catalog import Lane


@dataclass(frozen=True, slots=True)
class Account:
    """What one worker has sent for one attempt.

    Attributes:
        lane: the worker's.
        token_counts: by choice, tokens of its output up to the last one sent, what other workers made before included.
        is_running: it may still grow.
    """

    name: str
    lane: Lane
    prompt_tokens: int
    cached_tokens: int
    token_counts: Mapping[int, int] = field(default_factory=dict)
    is_running: bool = False


class Accounts(Protocol):
    """Asks workers."""

    async def begun_with(self, model: str, prefix: str) -> tuple[Sequence[Account], bool]:
        """All accounts of a model's workers whose names begin so, and whether every worker has answered."""
