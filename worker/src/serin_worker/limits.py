"""Bounds of one step.

Knows nothing about what is scheduled.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one step, and how far back its tokens look.

    Attributes:
        max_num_sequences: that run at once, whosever they are.
        window: positions that a token sees, its own included, where every layer has a window; 0: all.
        num_spare_sequences: beside ``max_num_sequences``, of tenants that hold few places; see `places`.
    """

    block_size: int = 16
    max_num_sequences: int = 64
    max_num_tokens: int = 512
    max_num_scored: int = 128
    window: int = 0
    num_spare_sequences: int = 0
