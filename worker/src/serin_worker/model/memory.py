"""How much memory this process may still take.

Knows nothing about models.
"""

from pathlib import Path

import torch

_UNLIMITED = 2**62


def available_bytes(device: torch.device) -> int:
    """Free bytes of the device; on the CPU what the system and the control group leave."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    return min(_system_bytes(), _group_bytes())


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
