"""Bounds of one step.

Knows nothing about what is scheduled.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one step, and how far back its tokens look.

    Attributes:
        window: positions that a token sees, its own included, where every layer has a window; 0: all.
    """

    block_size: int = 16
    max_num_sequences: int = 64
    max_num_tokens: int = 512
    max_num_scored: int = 128
    window: int = 0
