"""What processes cost: CPU seconds and memory, by name. Knows nothing about what they do."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

MIB = 1024 * 1024
BUSY = 0.85
"""Share of one core above which a single-threaded process is the limit."""


@dataclass(frozen=True)
class Cost:
    """What one process cost between two looks."""

    cpu_s: float
    rss_mib: float
    peak_rss_mib: float


class Processes:
    """Processes under watch, each with its children."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        self._before = self._cpu()

    def begin(self) -> None:
        """CPU seconds count from here."""
        self._before = self._cpu()

    def costs(self) -> dict[str, Cost]:
        """What each cost since `begin`."""
        now = self._cpu()
        return {
            name: Cost(
                cpu_s=now[name] - self._before[name],
                rss_mib=sum(one.memory_info().rss for one in _family(process)) / MIB,
                peak_rss_mib=_peak_mib(process.pid),
            )
            for name, process in self._processes.items()
        }

    def _cpu(self) -> dict[str, float]:
        return {
            name: sum(sum(one.cpu_times()[:2]) for one in _family(process)) for name, process in self._processes.items()
        }


def limit(costs: Mapping[str, Cost], wall_s: float, num_cores: int) -> str:
    """What held the throughput back, in words: the machine, one process, or neither."""
    total = sum(cost.cpu_s for cost in costs.values()) / wall_s
    name, cost = max(costs.items(), key=lambda item: item[1].cpu_s)
    share = cost.cpu_s / wall_s
    if total >= BUSY * num_cores:
        return f"the machine: {total:.2f} of {num_cores} cores busy, most of them in {name} ({share:.2f})"
    if share >= BUSY:
        return f"{name}: {share:.2f} cores of its one event loop"
    return f"no process: {total:.2f} of {num_cores} cores busy, {name} most ({share:.2f})"


def _family(process: psutil.Process) -> list[psutil.Process]:
    """A process and what it started; of this one, which started the mesh, itself alone."""
    return [process] if process.pid == os.getpid() else [process, *process.children(recursive=True)]


def _peak_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0
