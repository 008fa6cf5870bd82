"""The least that a Triton kernel can do, to see whether any can."""

import torch
import triton
import triton.language as tl

from serin_worker.native.triton_runtime import on_device_of

_SIZE = 32


@triton.jit
def _count(out: tl.tensor, size: tl.constexpr) -> None:
    places = tl.arange(0, size)
    tl.store(out + places, places)


def tried(device: torch.device) -> bool:
    """Whether it does what it says; raises whatever keeps kernels from being compiled or launched."""
    out = torch.zeros(_SIZE, dtype=torch.int32, device=device)
    with on_device_of(out):
        _count[(1,)](out, _SIZE)
    return out.tolist() == list(range(_SIZE))
