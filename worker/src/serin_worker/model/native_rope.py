"""Rotary positions of queries and keys by one kernel instead of a dozen small operations, with the same bits.

Transformers' models call a function of their module for it, so that function is replaced, where the kernel gives what
it gives. Knows nothing about attention.
"""

import ctypes
import sys
from collections.abc import Callable
from typing import Any

import torch

from serin_worker.native.library import DTYPES, has_kernels, kernels, num_threads

_NAME = "apply_rotary_pos_emb"
_HALF_STEP = 16
_Rotation = Callable[..., tuple[torch.Tensor, torch.Tensor]]


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


class NativeRotation:
    """Rotates what the kernel can, and leaves the rest to the function in whose place it stands."""

    def __init__(self, original: _Rotation) -> None:
        self._original = original
        self._kernel = kernels().serin_rotate
        word = ctypes.c_int32
        self._kernel.argtypes = [word, ctypes.POINTER(_Heads), word, ctypes.POINTER(Angles), word, word]

    def __call__(
        self, q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, *more: Any, **named: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Queries and keys [1, heads, tokens, dim] by angles [1, tokens, dim]."""
        if more or named or torch.is_grad_enabled() or not all(_is_fit(tensor, cos, sin) for tensor in (q, k)):
            return self._original(q, k, cos, sin, *more, **named)
        num_tokens, width = cos.shape[1:]
        outputs = [tensor.new_empty((1, num_tokens, tensor.shape[1], width)) for tensor in (q, k)]
        heads = (_Heads * 2)(
            *(
                _Heads(tensor.data_ptr(), out.data_ptr(), tensor.shape[1], tensor.stride(2), tensor.stride(1))
                for tensor, out in zip((q, k), outputs, strict=True)
            )
        )
        self._kernel(DTYPES[q.dtype], heads, 2, angles_of(cos, sin), width, num_threads())
        return outputs[0].transpose(1, 2), outputs[1].transpose(1, 2)


def angles_of(cos: torch.Tensor, sin: torch.Tensor) -> Angles:
    """Two tensors [1, tokens, dim] of the same strides; they have to stay."""
    return Angles(cos.data_ptr(), sin.data_ptr(), cos.shape[1], cos.stride(1))


def replace_rotation(model: torch.nn.Module) -> bool:
    """Let a model on the CPU rotate by the kernel; whether it does now."""
    module = sys.modules[type(model).__module__]
    original = getattr(module, _NAME, None)
    if isinstance(original, NativeRotation):
        return True
    parameter = next(model.parameters(), None)
    if original is None or parameter is None or parameter.device.type != "cpu" or not has_kernels():
        return False
    rotation = NativeRotation(original)
    if not all(_is_same(original, rotation, dtype) for dtype in DTYPES):
        return False
    setattr(module, _NAME, rotation)
    return True


def _is_fit(tensor: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> bool:
    tokens, width = tensor.shape[-2:]
    return (
        tensor.dim() == 4
        and tensor.shape[0] == 1
        and tensor.dtype in DTYPES
        and tensor.dtype == cos.dtype == sin.dtype
        and tensor.device.type == "cpu"
        and tensor.stride(-1) == cos.stride(-1) == sin.stride(-1) == 1
        and cos.shape == sin.shape == (1, tokens, width)
        and cos.stride(1) == sin.stride(1)
        and width % (2 * _HALF_STEP) == 0
    )


@torch.inference_mode()
def _is_same(original: _Rotation, rotation: NativeRotation, dtype: torch.dtype) -> bool:
    generator = torch.Generator().manual_seed(0)

    def numbers(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(dtype)

    given = numbers(1, 5, 3, 64).transpose(1, 2), numbers(1, 5, 2, 64).transpose(1, 2), *numbers(2, 1, 5, 64)
    try:
        right = original(*given)
    except (TypeError, ValueError, RuntimeError, IndexError):
        return False  # it takes other things than queries, keys and angles
    return all(torch.equal(one, other) for one, other in zip(right, rotation(*given), strict=True))
