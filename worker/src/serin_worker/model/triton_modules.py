"""Small modules of a model on a GPU by Triton kernels: RMS norms, activations, rotary positions; one launch each.

They round where transformers' own modules round. A row's bits follow from the row and its width alone: nothing that a
kernel is compiled for depends on how many rows there are. Grids follow from shapes and nothing is read back, so that
all of it can be captured in a CUDA graph. Tensors may have strides, as parts of one product have. Knows nothing about
where in a model they are.
"""

from typing import NamedTuple

import torch
import triton

from serin_worker.model.triton_kernels import activation_kernel, rms_norm_kernel, rotation_kernel
from serin_worker.native.triton_runtime import EXACT, on_device_of

PER_THREAD = 8
"""Numbers that a thread holds: of 16 bits, they are the 16 bytes that one load instruction moves at most."""
WARP = 32
LEAST_TILE = 1024
"""Numbers in a program's tile, 4 warps of them: narrow rows (a head's) share one, since a block of one warp each would
leave a multiprocessor, which holds 32 blocks, half empty."""
MOST_WARPS = 16
"""Of one row: of 4,096 numbers and more. With 32 a block takes half of a multiprocessor, and waits longer to begin."""
WIDEST = 32_768
"""Numbers in a row that a norm takes: with 16 warps 64 a thread, the most that stay in registers."""
HEADS = 8
"""Heads that a program rotates: of 128 dimensions, they are a tile of LEAST_TILE numbers."""


class Rows(NamedTuple):
    """A tensor [..., width] as kernels read it: row r begins at ``r // num_inner * outer + r % num_inner * inner``."""

    tensor: torch.Tensor
    outer: int
    inner: int
    num_inner: int


class TritonActivation(torch.nn.Module):
    """SiLU (kind 0) or tanh-GELU (1), element by element."""

    def __init__(self, kind: int) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, rows: torch.Tensor, factor: torch.Tensor | None = None) -> torch.Tensor:
        """[..., width]; times a factor of the same shape, if there is one."""
        out = torch.empty(rows.shape, dtype=rows.dtype, device=rows.device)
        if not out.numel():
            return out
        x, width = rows_of(rows), rows.shape[-1]
        times = x if factor is None else rows_of(factor)
        block = min(LEAST_TILE, triton.next_power_of_2(width))
        with on_device_of(rows):
            activation_kernel[(rows.numel() // width, triton.cdiv(width, block))](
                x.tensor,
                times.tensor,
                out,
                *x[1:],
                *times[1:],
                width=width,
                kind=self.kind,
                multiplies=factor is not None,
                block=block,
                num_warps=warps_of(block),
                **EXACT,
            )
        return out


class TritonRMSNorm(torch.nn.Module):
    """``x / rms(x) * weight`` over the last dimension.

    Args:
        weight: [width], at most WIDEST.
        eps: added to the mean of squares.
        kind: 0: rounded before the weight; 1: the weight plus one, rounded once; 2: rounded once.
    """

    def __init__(self, weight: torch.Tensor, eps: float, kind: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(weight.detach().contiguous(), requires_grad=False)
        self.eps = eps
        self.kind = kind

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """[..., width]."""
        return self._run(rows, None)[0]

    def add(self, rows: torch.Tensor, residual: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``rows + residual``, rounded, and what the norm makes of it: the bits of the two after each other."""
        normed, total = self._run(rows, residual)
        return total, normed

    def _run(self, rows: torch.Tensor, residual: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        out = torch.empty(rows.shape, dtype=rows.dtype, device=rows.device)
        total = out if residual is None else torch.empty_like(out)
        if not out.numel():
            return out, total
        x, width = rows_of(rows), rows.shape[-1]
        added = x if residual is None else rows_of(residual)
        num_rows = rows.numel() // width
        num_tile_rows, block = tile_of(width)
        with on_device_of(rows):
            rms_norm_kernel[(triton.cdiv(num_rows, num_tile_rows),)](
                x.tensor,
                added.tensor,
                self.weight,
                out,
                total,
                num_rows,
                *x[1:],
                *added[1:],
                self.eps,
                width=width,
                kind=self.kind,
                adds=residual is not None,
                num_tile_rows=num_tile_rows,
                block=block,
                num_warps=warps_of(num_tile_rows * block),
                **EXACT,
            )
        return out, total


def rotate(q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries and keys [1, heads, tokens, dim] by angles [1, tokens, dim], in one launch."""
    num_tokens, width = cos.shape[1:]
    outputs = [tensor.new_empty((1, num_tokens, tensor.shape[1], width)) for tensor in (q, k)]
    block = triton.next_power_of_2(width // 2)
    num_parts = sum(triton.cdiv(tensor.shape[1], HEADS) for tensor in (q, k))
    with on_device_of(q):
        rotation_kernel[(num_tokens, num_parts)](
            q,
            k,
            *outputs,
            cos,
            sin,
            q.stride(2),
            q.stride(1),
            k.stride(2),
            k.stride(1),
            cos.stride(1),
            num_q_heads=q.shape[1],
            num_k_heads=k.shape[1],
            half=width // 2,
            num_tile_heads=HEADS,
            block=block,
            num_warps=warps_of(2 * HEADS * block),
            **EXACT,
        )
    return outputs[0].transpose(1, 2), outputs[1].transpose(1, 2)


def rows_of(tensor: torch.Tensor) -> Rows:
    """How a kernel reads a tensor [..., width]; copied only if its strides are none of two levels."""
    if tensor.stride(-1) != 1:
        tensor = tensor.contiguous()
    while tensor.dim() < 3:
        tensor = tensor.unsqueeze(0)
    tensor = tensor.flatten(0, -3)
    return Rows(tensor, tensor.stride(0), tensor.stride(1), tensor.shape[1])


def tile_of(width: int) -> tuple[int, int]:
    """Whole rows that a program takes, and the power of two that holds one."""
    block = triton.next_power_of_2(width)
    return max(1, LEAST_TILE // block), block


def warps_of(num_numbers: int) -> int:
    """Warps for a tile."""
    return min(MOST_WARPS, max(1, num_numbers // (PER_THREAD * WARP)))
