"""How much memory this process may still take, and what torch raises when that was too little.

Knows nothing about models.
"""

import errno
import resource
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from serin_worker.model import control_groups

T = TypeVar("T")

_UNLIMITED = 2**62
_SAYS_ALLOCATOR = ("DefaultCPUAllocator", "can't allocate memory", "out of memory", "Cannot allocate memory")
"""How torch's own errors say it on the CPU, where it is a plain RuntimeError."""


def available_bytes(device: torch.device, mapped_bytes: int = 0) -> int:
    """Free bytes of the device; on the CPU what the system, control groups and the process's own limit leave.

    Args:
        device: where memory is to be taken.
        mapped_bytes: of files that will be mapped meanwhile; they count as address space alone.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    by_group = control_groups.left_bytes()
    by_limit = max(0, _address_space_bytes() - mapped_bytes)
    return min(_system_bytes(), by_limit, _UNLIMITED if by_group is None else by_group)


def if_it_fits(compute: Callable[[], T]) -> T | None:
    """What ``compute`` makes; None: memory does not suffice for it, and what it had taken is free again."""
    try:
        return compute()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # the error is gone, and what its frames held
        torch.cuda.empty_cache()
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Python's own error, torch's on a device or of its CPU allocator, or the system's of a file to be mapped."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _SAYS_ALLOCATOR)


def _system_bytes() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return _UNLIMITED
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(fields["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in fields else _UNLIMITED


def _address_space_bytes() -> int:
    """What ``ulimit -v`` leaves: all that is mapped counts, files too."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return _UNLIMITED
    try:
        num_pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return limit
    return max(0, limit - num_pages * resource.getpagesize())
