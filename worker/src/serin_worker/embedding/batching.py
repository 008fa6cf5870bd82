"""Which inputs are computed together: the oldest first, and with it those of nearly its length.

A batch is as long as its longest input, so that inputs of very different lengths cost each other. Knows nothing about
models or threads.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")

WINDOW = 512
"""Inputs that are looked at, oldest first: one is overtaken, at most, by those that came shortly after it."""
MAX_PADDING = 0.25
"""Share of a batch that may be padding."""


def next_batch(waiting: Sequence[T], length: Callable[[T], int], max_tokens: int) -> list[T]:
    """The oldest input and those of the window nearest to it in length, as many as fit.

    Args:
        waiting: inputs, oldest first; at least one.
        length: tokens of an input.
        max_tokens: most tokens of a batch, padding counted; an input longer than this is a batch by itself.
    """
    window = sorted(waiting[:WINDOW], key=length)
    first = last = next(at for at, one in enumerate(window) if one is waiting[0])
    num_used = length(waiting[0])
    while True:
        below = length(window[first - 1]) if first > 0 else None
        above = length(window[last + 1]) if last + 1 < len(window) else None
        if below is None and above is None:
            break
        longest, shortest = length(window[last]), length(window[first])
        takes_above = below is None or (above is not None and above - longest <= shortest - below)
        added = above if takes_above else below
        assert added is not None
        num_padded = max(longest, added) * (last - first + 2)
        if num_padded > max_tokens or num_padded - num_used - added > MAX_PADDING * num_padded:
            break
        num_used += added
        first, last = (first, last + 1) if takes_above else (first - 1, last)
    return window[first : last + 1]
