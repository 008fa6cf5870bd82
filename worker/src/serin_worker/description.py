"""What an engine is, once it has started.

Knows nothing about how it came to be.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class EngineDescription:
    """What an engine is, for whoever compares it with others."""

    folder: Path
    weights_digest: str
    kv_digest: str
    numerics_class: str
    numerics: str
    precision: str
    num_blocks: int
    block_size: int
    block_bytes: int
    context_length: int
    max_num_sequences: int
    vocabulary_size: int
    attention: str
