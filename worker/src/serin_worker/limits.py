"""Bounds of one step.

Knows nothing about what is scheduled.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one step."""

    block_size: int = 16
    max_num_sequences: int = 64
    max_num_tokens: int = 512
    max_num_scored: int = 128
