"""How much memory this process may still take, and what torch raises when that was too little.

Knows nothing about models.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

T = TypeVar("T")

_UNLIMITED = 2**62
_SAYS_ALLOCATOR = ("DefaultCPUAllocator", "can't allocate memory", "out of memory")
"""How torch's own errors say it on the CPU, where it is a plain RuntimeError."""


def available_bytes(device: torch.device) -> int:
    """Free bytes of the device; on the CPU what the system and the control group leave."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    return min(_system_bytes(), _group_bytes())


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


def is_out_of_memory(error: Exception) -> bool:
    """Python's own error, torch's on a device, or its allocator's on the CPU."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _SAYS_ALLOCATOR)


def _system_bytes() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return _UNLIMITED
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(fields["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in fields else _UNLIMITED


def _group_bytes() -> int:
    root = Path("/sys/fs/cgroup")
    pairs = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))
    for limit_name, used_name in pairs:
        try:
            limit, used = ((root / name).read_text().strip() for name in (limit_name, used_name))
        except OSError:
            continue
        if limit.isdigit() and int(limit) < _UNLIMITED:
            return max(int(limit) - int(used), 0)
    return _UNLIMITED
