"""Tokens on a GPU by Triton kernels: the largest logit, and draws without filters, in one pass over each row.

A row is cut into tiles, whose best are merged. Draws are those that the torch functions beside this define. The largest
of some numbers does not depend on how they are cut, so a row's token is the same in every batch. Grids follow from
shapes, so that all but the upload of parameters can be captured in a CUDA graph. Knows nothing about filters,
processors or log-probabilities.
"""

from collections.abc import Sequence

import numpy
import torch
import triton

from serin_worker.native.triton_runtime import EXACT, on_device_of
from serin_worker.request import Sampling
from serin_worker.sampling.draw import Purpose
from serin_worker.sampling.triton_kernels import choose_kernel, merge_kernel

TILE = 4096
"""Logits of a program: a vocabulary of 152,000 is 38 programs, so that 4 rows fill the 132 multiprocessors of an H100,
and one row is cut finely enough for its latency. Rows of a small vocabulary share a program."""
WARPS = 8
"""16 logits a thread: 32 bytes of 16-bit numbers to load, and noise (ten rounds for every four) in registers."""
MERGED = 1024
"""Results that a program merges: of 16 rows of a vocabulary of 152,000, or of one of 4 million, and no more."""
MERGE_WARPS = 4
"""8 results a thread."""
_NUM_WORDS = 6


def largest(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Each row's largest number, NaN if there is any, and the first place where it is; logits [rows, vocabulary].

    Returns:
        [rows] float32 and [rows] int32.
    """
    return choose(logits, None)


def take(
    logits: torch.Tensor,
    samplings: Sequence[Sampling],
    names: Sequence[tuple[int, int, int]],
    purpose: Purpose = Purpose.TOKEN,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each row's largest number, and the token that its (seed, choice, position) draws, or the largest's place.

    Of rows that are greedy or have filters it is the place: who filters draws from what is left.

    Args:
        logits: [rows, vocabulary].
        samplings: of each row.
        names: of each row's draw.
        purpose: what the draw is for.

    Returns:
        [rows] float32 and [rows] int32.
    """
    return choose(logits, table_of(samplings, names, logits.device), purpose)


def table_of(
    samplings: Sequence[Sampling], names: Sequence[tuple[int, int, int]], device: torch.device
) -> torch.Tensor | None:
    """What kernels have to know of each row [rows, 6] int32, by one copy to the device; None: nothing is drawn."""
    is_drawn = [not (sampling.is_greedy or sampling.has_filters) for sampling in samplings]
    if not any(is_drawn):
        return None
    table = numpy.zeros((len(names), _NUM_WORDS), dtype=numpy.uint32)
    temperatures = [s.temperature if drawn else 0.0 for s, drawn in zip(samplings, is_drawn, strict=True)]
    table[:, 0] = numpy.asarray(temperatures, dtype=numpy.float32).view(numpy.uint32)
    table[:, 1:5] = [(choice, position, seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF) for seed, choice, position in names]
    host = torch.from_numpy(table.view(numpy.int32))
    if device.type == "cuda":
        return host.pin_memory().to(device, non_blocking=True)
    return host.to(device)


def choose(
    logits: torch.Tensor, table: torch.Tensor | None, purpose: Purpose = Purpose.TOKEN
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same as ``take`` for parameters that are on the device; never waits for it."""
    if logits.stride(-1) != 1:
        logits = logits.contiguous()
    num_rows, size = logits.shape
    chosen = torch.empty((2, num_rows), dtype=torch.int32, device=logits.device)
    if num_rows:
        block = min(TILE, max(4, triton.next_power_of_2(size)))
        num_tile_rows = TILE // block
        num_parts = triton.cdiv(size, block)
        assert num_parts <= MERGED, f"a vocabulary of {size} is beyond what is merged at a time"
        best = torch.empty((num_rows, num_parts, 4), dtype=torch.int32, device=logits.device)
        draws = table is not None
        with on_device_of(logits):
            choose_kernel[(triton.cdiv(num_rows, num_tile_rows), num_parts)](
                logits,
                best if table is None else table,
                best,
                num_rows,
                logits.stride(0),
                size=size,
                draws=draws,
                purpose=int(purpose),
                num_tile_rows=num_tile_rows,
                block=block,
                num_warps=WARPS,
                **EXACT,
            )
            merge_block = triton.next_power_of_2(num_parts)
            num_merged_rows = MERGED // merge_block
            merge_kernel[(triton.cdiv(num_rows, num_merged_rows),)](
                best,
                best if table is None else table,
                chosen,
                num_rows,
                num_parts=num_parts,
                draws=draws,
                num_tile_rows=num_merged_rows,
                block=merge_block,
                num_warps=MERGE_WARPS,
            )
    return chosen[0].view(torch.float32), chosen[1]
