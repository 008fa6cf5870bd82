"""Which kernels stand in for small modules on a device: compiled ones on the CPU, Triton's on CUDA, none elsewhere.

Knows nothing about models.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from serin_worker.native.library import has_kernels
from serin_worker.native.triton_runtime import has_triton

Rotate = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""Queries and keys [1, heads, tokens, dim], of any strides but the last, by cosines and sines [1, tokens, dim]."""
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
ACTIVATIONS: dict[str, int] = {"SiLU": 0, "SiLUActivation": 0, "GELUTanh": 1, "PytorchGELUTanh": 1}
"""Kinds of activations, by the name of the class that computes them."""
NORM_KINDS = (0, 1, 2)
"""Rounded before the weight; by the weight plus one, rounded once; rounded once after the weight."""


@dataclass(frozen=True, slots=True)
class SmallKernels:
    """What computes small modules on one kind of device, in any of DTYPES.

    Attributes:
        device_type: where.
        activation: makes a module of a kind: of rows of any shape, times a factor of that shape, if there is one.
        rms_norm: makes a module of a weight [width], what is added to the mean of squares, and a kind.
        widest_norm: numbers in a row that it takes at most.
        rotate: rotary positions.
        rotated_multiple: in whose multiples it takes dimensions of a head.
    """

    device_type: str
    activation: Callable[[int], torch.nn.Module]
    rms_norm: Callable[[torch.Tensor, float, int], torch.nn.Module]
    widest_norm: int
    rotate: Rotate
    rotated_multiple: int


def kernels_for(device: torch.device) -> SmallKernels | None:
    """Those of a device; None: torch serves."""
    if device.type == "cpu" and has_kernels():
        return native_kernels()
    return triton_kernels(device.type) if has_triton(device) else None


def native_kernels() -> SmallKernels:
    """Those in C++."""
    from serin_worker.model import native_modules, native_rope

    return SmallKernels(
        "cpu",
        native_modules.NativeActivation,
        native_modules.NativeRMSNorm,
        native_modules.WIDEST,
        native_rope.rotate,
        native_rope.MULTIPLE,
    )


def triton_kernels(device_type: str = "cuda") -> SmallKernels:
    """Those in Triton, which has to be installed; its interpreter runs them on the CPU."""
    from serin_worker.model import triton_modules

    return SmallKernels(
        device_type,
        triton_modules.TritonActivation,
        triton_modules.TritonRMSNorm,
        triton_modules.WIDEST,
        triton_modules.rotate,
        rotated_multiple=2,
    )
