"""Whether Triton's kernels run here: it is an extra of this distribution, for CUDA devices.

Triton compiles a kernel when it is first launched, with a small launcher in C beside it, so importing it says little: a
kernel is tried. Knows nothing about what kernels do.
"""

import functools
import logging
from contextlib import AbstractContextManager

import torch

EXACT = {"enable_fp_fusion": False}
"""What a launch says so that the compiler adds no product unrounded, here and not there: ``tl.fma`` says where."""
_INSTALL = "pip install 'serin-worker[cuda]', and a C compiler with Python's headers"


@functools.cache
def has_triton(device: torch.device) -> bool:
    """Whether kernels written in Triton run on a device; where they do not on a CUDA device, the log says why."""
    if device.type != "cuda":
        return False
    try:
        from serin_worker.native.triton_trial import tried
    except ImportError as error:
        return _missing(device, f"no Triton ({error})")
    try:
        if tried(device):
            return True
    except Exception as error:  # noqa: BLE001 - what a compiler, a linker and a driver raise has no common class
        return _missing(device, str(error).strip().partition("\n")[0] or type(error).__name__)
    return _missing(device, "a kernel computes something else")


def on_device_of(tensor: torch.Tensor) -> AbstractContextManager[None]:
    """For a launch: Triton launches on the thread's current device, wherever tensors are."""
    return torch.cuda.device_of(tensor)  # type: ignore[no-untyped-call]


def _missing(device: torch.device, why: str) -> bool:
    log = logging.getLogger(__name__)
    log.warning(
        "Triton's kernels do not run on %s, torch serves instead, slower: %s; they need %s", device, why, _INSTALL
    )
    return False
