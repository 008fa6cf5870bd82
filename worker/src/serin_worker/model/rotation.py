"""Rotary positions of queries and keys by one kernel instead of a dozen small operations, with the same bits.

Transformers' models call a function of their module for it, so that function is replaced, where a device's kernel gives
what it gives. Knows nothing about attention, or about how kernels compute.
"""

import sys
from collections.abc import Callable
from typing import Any

import torch

from serin_worker.model.small_kernels import DTYPES, SmallKernels

NAME = "apply_rotary_pos_emb"
"""Of transformers' function."""
_Rotation = Callable[..., tuple[torch.Tensor, torch.Tensor]]


class Rotation:
    """Rotates what the kernel of a device can, and leaves the rest to the function in whose place it stands.

    One of a module serves all models of that kind in the process, on whatever device each is.
    """

    def __init__(self, original: _Rotation) -> None:
        self.original = original
        self.kernels: dict[str, SmallKernels] = {}
        """By the type of the device."""

    def __call__(
        self, q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, *more: Any, **named: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Queries and keys [1, heads, tokens, dim] by angles [1, tokens, dim]."""
        kernels = self.kernels.get(q.device.type)
        if kernels is None or more or named or torch.is_grad_enabled() or not _is_fit(q, k, cos, sin, kernels):
            return self.original(q, k, cos, sin, *more, **named)
        return kernels.rotate(q, k, cos, sin)


def replace_rotation(model: torch.nn.Module, kernels: SmallKernels) -> bool:
    """Let a model on the kernels' device rotate by them; whether it does now."""
    module = sys.modules[type(model).__module__]
    standing = getattr(module, NAME, None)
    parameter = next(model.parameters(), None)
    if standing is None or parameter is None or parameter.device.type != kernels.device_type:
        return False
    if isinstance(standing, Rotation) and kernels.device_type in standing.kernels:
        return True
    original = standing.original if isinstance(standing, Rotation) else standing
    rotation = Rotation(original)
    rotation.kernels[kernels.device_type] = kernels
    if not all(_is_same(original, rotation, dtype, parameter.device) for dtype in DTYPES):
        return False
    if isinstance(standing, Rotation):
        standing.kernels |= rotation.kernels
    else:
        setattr(module, NAME, rotation)
    return True


def _is_fit(q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, kernels: SmallKernels) -> bool:
    return (
        all(
            tensor.dim() == 4
            and tensor.shape[0] == 1
            and cos.shape == sin.shape == (1, *tensor.shape[-2:])
            and tensor.dtype == cos.dtype == sin.dtype
            and tensor.device == cos.device == sin.device
            and tensor.stride(-1) == cos.stride(-1) == sin.stride(-1) == 1
            for tensor in (q, k)
        )
        and q.dtype in DTYPES
        and cos.stride(1) == sin.stride(1)
        and q.shape[-1] % kernels.rotated_multiple == 0
    )


@torch.inference_mode()
def _is_same(original: _Rotation, rotation: Rotation, dtype: torch.dtype, device: torch.device) -> bool:
    generator = torch.Generator().manual_seed(0)

    def numbers(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype)

    given = numbers(1, 5, 3, 64).transpose(1, 2), numbers(1, 5, 2, 64).transpose(1, 2), *numbers(2, 1, 5, 64)
    try:
        right = original(*given)
    except (TypeError, ValueError, RuntimeError, IndexError):
        return False  # it takes other things than queries, keys and angles
    return all(torch.equal(one, other) for one, other in zip(right, rotation(*given), strict=True))
