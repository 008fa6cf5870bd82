"""Rotary positions of queries and keys by a C++ kernel. Knows nothing about models."""

import ctypes
import functools

import torch

from serin_worker.native.library import DTYPES, kernels, num_threads
from serin_worker.native.outcome import answering

MULTIPLE = 32
"""In which it takes dimensions of a head: half of them fill vectors of 16 numbers."""


class _Heads(ctypes.Structure):
    _fields_ = (
        ("input", ctypes.c_void_p),
        ("output", ctypes.c_void_p),
        ("num_heads", ctypes.c_int64),
        ("token_stride", ctypes.c_int64),
        ("head_stride", ctypes.c_int64),
    )


class Angles(ctypes.Structure):
    """Cosines and sines [1, tokens, dim], as the kernel takes them."""

    _fields_ = (
        ("cos", ctypes.c_void_p),
        ("sin", ctypes.c_void_p),
        ("num_tokens", ctypes.c_int64),
        ("stride", ctypes.c_int64),
    )


def rotate(q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries and keys [1, heads, tokens, dim] by angles [1, tokens, dim]."""
    num_tokens, width = cos.shape[1:]
    outputs = [tensor.new_empty((1, num_tokens, tensor.shape[1], width)) for tensor in (q, k)]
    heads = (_Heads * 2)(
        *(
            _Heads(tensor.data_ptr(), out.data_ptr(), tensor.shape[1], tensor.stride(2), tensor.stride(1))
            for tensor, out in zip((q, k), outputs, strict=True)
        )
    )
    _kernel()(DTYPES[q.dtype], heads, 2, angles_of(cos, sin), width, num_threads())
    return outputs[0].transpose(1, 2), outputs[1].transpose(1, 2)


def angles_of(cos: torch.Tensor, sin: torch.Tensor) -> Angles:
    """Two tensors [1, tokens, dim] of the same strides; they have to stay."""
    return Angles(cos.data_ptr(), sin.data_ptr(), cos.shape[1], cos.stride(1))


@functools.cache
def _kernel() -> "ctypes._NamedFuncPointer":
    function = answering(kernels().serin_rotate)
    word = ctypes.c_int32
    function.argtypes = [word, ctypes.POINTER(_Heads), word, ctypes.POINTER(Angles), word, word]
    return function
