"""What the processor can do, as far as numbers depend on it, and how many of them there are.

Knows nothing about kernels.
"""

import os
import platform
from pathlib import Path

_LEVELS = (("amx_bf16", "amx"), ("avx512_bf16", "avx512-bf16"), ("avx512f", "avx512"), ("avx2", "avx2"))


def num_processors() -> int:
    """Processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor_flags() -> frozenset[str]:
    """Instruction set flags as the system names them; empty where it does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    line = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return frozenset(line.partition(":")[2].split())


def instruction_set() -> str:
    """Name of the widest instruction set that kernels choose by."""
    flags = processor_flags()
    return next((name for flag, name in _LEVELS if flag in flags), platform.machine() or "unknown")
