"""Experts chosen once and taken again: of two runs that differ by rounding, both send a token to the same experts.

Which experts are the best of a row is decided by the last bit of a number now and then; all that follows is then
another sum, though nothing is wrong. Choices are seen as what they are made by, `torch.topk`. Knows nothing about
models.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from serin_worker.model.operations import Through


class Routing:
    """Choices of one run over ``num_rows`` rows, in the order in which they were made."""

    def __init__(self, num_rows: int) -> None:
        self._num_rows = num_rows
        self._chosen: list[torch.Tensor] = []

    @contextmanager
    def noting(self) -> Iterator[None]:
        """All rows are run inside, and what they choose is kept."""
        with _choosing(self._note):
            yield

    @contextmanager
    def repeating(self, first: int, num_rows: int) -> Iterator[None]:
        """``num_rows`` rows from ``first`` on are run inside, and choose what they chose before."""
        kept = iter(self._chosen)

        def again(values: torch.Tensor, indices: torch.Tensor, given: torch.Tensor, dim: int) -> Any:
            chosen = next(kept, None)
            at = _row_dimension(indices, num_rows)
            if chosen is None or at is None or chosen.dim() != indices.dim() or chosen.shape[at] != self._num_rows:
                return values, indices
            part = chosen.narrow(at, first, num_rows)
            return (given.gather(dim, part), part) if part.shape == indices.shape else (values, indices)

        with _choosing(again):
            yield

    def _note(self, values: torch.Tensor, indices: torch.Tensor, given: torch.Tensor, dim: int) -> Any:
        self._chosen.append(indices)
        return values, indices


def _row_dimension(indices: torch.Tensor, num_rows: int) -> int | None:
    """[rows, ...] or [1, rows, ...]."""
    return next((at for at in (0, 1) if at < indices.dim() - 1 and indices.shape[at] == num_rows), None)


def _choosing(choose: Callable[[torch.Tensor, torch.Tensor, torch.Tensor, int], Any]) -> Through:
    """A block whose choices are what ``choose(values, indices, chosen from, dimension)`` makes of them."""

    def compute(func: torch._ops.OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        found = func(*args, **kwargs)
        if func is not torch.ops.aten.topk.default:
            return found
        values, indices = found
        return choose(values, indices, args[0], args[2] if len(args) > 2 else kwargs.get("dim", -1))

    return Through(compute)
