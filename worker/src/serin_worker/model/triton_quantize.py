"""Rows in 8 bits on a GPU by one launch: the twins of ``fp8.quantized`` and ``int8.quantized_rows``, with their bits.

Knows nothing about what is multiplied with them.
"""

from typing import Any

import torch
import triton

from serin_worker.model.triton_kernels import quantize_kernel, quantize_whole_kernel
from serin_worker.model.triton_modules import WIDEST, rows_of, tile_of, warps_of
from serin_worker.native.triton_runtime import EXACT, on_device_of


def e4m3_rows(rows: torch.Tensor, largest: float, least_factor: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows [..., width], width at most WIDEST, as e4m3, and what to multiply each with to get it back [..., 1] float32.

    Args:
        rows: a row with NaN or infinity is not finite afterwards either.
        largest: what the largest number of a row becomes.
        least_factor: of rows that are zero, or nearly.
    """
    return _quantized(quantize_kernel, rows, torch.float8_e4m3fn, largest=largest, least_factor=least_factor)


def int8_rows(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The same as whole numbers up to 127 in int8; the factor of a row with NaN or infinity is not finite."""
    return _quantized(quantize_whole_kernel, rows, torch.int8)


def _quantized(
    kernel: Any, rows: torch.Tensor, dtype: torch.dtype, **constants: float
) -> tuple[torch.Tensor, torch.Tensor]:
    width = rows.shape[-1]
    assert width <= WIDEST, "a row is one tile"
    numbers = torch.empty(rows.shape, dtype=dtype, device=rows.device)
    factors = torch.empty((*rows.shape[:-1], 1), dtype=torch.float32, device=rows.device)
    num_rows = factors.numel()
    if num_rows:
        x = rows_of(rows)
        num_tile_rows, block = tile_of(width)
        with on_device_of(rows):
            kernel[(triton.cdiv(num_rows, num_tile_rows),)](
                x.tensor,
                numbers,
                factors,
                num_rows,
                *x[1:],
                **constants,
                width=width,
                num_tile_rows=num_tile_rows,
                block=block,
                num_warps=warps_of(num_tile_rows * block),
                **EXACT,
            )
    return numbers, factors
