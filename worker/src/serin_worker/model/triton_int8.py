"""Rows in int8 times weights in int8 on a GPU, by one launch of Triton (`triton_quantize` makes the rows).

Sums of products are whole numbers, which are added up exactly in any order, so that tiles may follow the number of
rows and a row's bits still depend on nothing but the row. Grids follow from shapes and nothing is read back, so that
it can be captured in a CUDA graph. Knows nothing about what layers are part of.
"""

from typing import NamedTuple

import torch
import triton

from serin_worker.model.triton_kernels import linear_int8_kernel
from serin_worker.native.triton_runtime import EXACT, on_device_of


class Tile(NamedTuple):
    """What a program of the product takes: rows, outputs, and inputs at a time."""

    rows: int
    outputs: int
    inputs: int
    num_warps: int
    num_stages: int


DECODES = Tile(rows=16, outputs=32, inputs=256, num_warps=4, num_stages=4)
"""Up to 16 rows wait for weights: 32 KB of them are on their way to each multiprocessor, and a layer of 4,096 outputs
has 128 programs."""
BATCHES = Tile(rows=64, outputs=32, inputs=128, num_warps=4, num_stages=6)
"""They wait for weights, too: as many programs, and as many bytes on their way."""
PROMPTS = Tile(rows=128, outputs=128, inputs=128, num_warps=8, num_stages=3)
"""More than 64 rows: the products themselves take the time, which matrix instructions of the whole warp group do."""


def tile_for(num_rows: int) -> Tile:
    """The tile for so many rows."""
    if num_rows <= DECODES.rows:
        return DECODES
    return BATCHES if num_rows <= BATCHES.rows else PROMPTS


def product(
    numbers: torch.Tensor,
    factors: torch.Tensor,
    weight: torch.Tensor,
    scales: torch.Tensor,
    bias: torch.Tensor | None,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Rows [n, in] by a weight, as `int8_layers.Product`.

    Args:
        numbers: [n, in] int8.
        factors: [n, 1] float32.
        weight: [out, in] int8.
        scales: [out] float32.
        bias: [out] float32, added before the result is rounded.
        dtype: of the result [n, out].
    """
    num_rows, num_outputs = len(numbers), len(weight)
    out = torch.empty((num_rows, num_outputs), dtype=dtype, device=numbers.device)
    if not num_rows:
        return out
    tile = tile_for(num_rows)
    with on_device_of(numbers):
        linear_int8_kernel[(triton.cdiv(num_rows, tile.rows), triton.cdiv(num_outputs, tile.outputs))](
            numbers,
            factors,
            weight,
            scales,
            scales if bias is None else bias,
            out,
            num_rows,
            num_inputs=numbers.shape[1],
            num_outputs=num_outputs,
            has_bias=bias is not None,
            tile_rows=tile.rows,
            tile_outputs=tile.outputs,
            tile_inputs=tile.inputs,
            num_warps=tile.num_warps,
            num_stages=tile.num_stages,
            **EXACT,
        )
    return out
