"""Activations and RMS norms by C++ kernels: one pass, and the same bits in every batch.

Knows nothing about where in a model they are.
"""

import ctypes

import torch

from serin_worker.native.library import DTYPES, kernels, num_threads
from serin_worker.native.outcome import answering

WIDEST = 2**31 - 1
"""Numbers in a row that a norm takes."""


class NativeActivation(torch.nn.Module):
    """SiLU or tanh-GELU, element by element."""

    def __init__(self, kind: int) -> None:
        super().__init__()
        self.kind = kind
        self._kernel = answering(kernels().serin_activate)
        self._kernel.argtypes = [ctypes.c_int32, ctypes.c_int32, *[ctypes.c_void_p] * 3, ctypes.c_int64, ctypes.c_int32]

    def forward(self, rows: torch.Tensor, factor: torch.Tensor | None = None) -> torch.Tensor:
        """Any shape; times a factor of the same shape, if there is one."""
        rows = rows.contiguous()
        factor = None if factor is None else factor.contiguous()
        out = torch.empty_like(rows)
        self._kernel(
            self.kind,
            DTYPES[rows.dtype],
            rows.data_ptr(),
            None if factor is None else factor.data_ptr(),
            out.data_ptr(),
            rows.numel(),
            num_threads(),
        )
        return out


class NativeRMSNorm(torch.nn.Module):
    """``x / rms(x) * weight`` over the last dimension; kinds differ in where they round and whether one is added."""

    def __init__(self, weight: torch.Tensor, eps: float, kind: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(weight.detach().contiguous(), requires_grad=False)
        self.eps = eps
        self.kind = kind
        self._kernel = answering(kernels().serin_rms_norm)
        pointers = [ctypes.c_void_p] * 3
        self._kernel.argtypes = [
            *[ctypes.c_int32] * 2,
            *pointers,
            ctypes.c_int64,
            ctypes.c_int32,
            ctypes.c_float,
            ctypes.c_int32,
        ]

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """[..., width]."""
        rows = rows.contiguous()
        out = torch.empty_like(rows)
        width = rows.shape[-1]
        self._kernel(
            self.kind,
            DTYPES[rows.dtype],
            rows.data_ptr(),
            self.weight.data_ptr(),
            out.data_ptr(),
            rows.numel() // width,
            width,
            self.eps,
            num_threads(),
        )
        return out
