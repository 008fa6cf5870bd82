"""Memory of mapped checkpoint files, given back piece by piece once something else was made of it.

A file stays mapped for as long as any tensor of it is in use (an embedding), and each page of it that was ever read
counts as this process's memory until then. Where a page is read again it comes from the file. Knows nothing about
models.
"""

import bisect
from collections.abc import Iterable
from pathlib import Path

import torch

from serin_worker.native.memory_advice import drop_pages

_MAPS = Path("/proc/self/maps")


class MappedPages:
    """Which memory of this process is mapped from files, as it was when this was made; none where nobody says so."""

    def __init__(self) -> None:
        self._ranges = _file_ranges()
        self._starts = [start for start, _ in self._ranges]

    def let_go(self, tensors: Iterable[torch.Tensor]) -> int:
        """Give back the whole pages of those tensors that a file holds; returns their bytes.

        Nobody may have written them: what differs from the file is lost.
        """
        return sum(map(self._let_go, tensors))

    def _let_go(self, tensor: torch.Tensor) -> int:
        if tensor.device.type != "cpu" or not tensor.is_contiguous():
            return 0
        first = tensor.data_ptr()
        last = first + tensor.numel() * tensor.element_size()
        place = bisect.bisect_right(self._starts, first) - 1
        if place < 0 or last > self._ranges[place][1]:
            return 0  # not a file's: such memory would lose what it holds
        return drop_pages(tensor)


def _file_ranges() -> list[tuple[int, int]]:
    """(start, end) of each mapping of a file, in order; a hub's files are mapped by names that say nothing."""
    try:
        lines = _MAPS.read_text().splitlines()
    except OSError:
        return []
    fields = (line.split(maxsplit=5) for line in lines)
    found = [(one[0], one[5]) for one in fields if len(one) == 6]
    files = {name for name in {name for _, name in found} if name.startswith("/") and Path(name).is_file()}
    return [_range(addresses) for addresses, name in found if name in files]


def _range(addresses: str) -> tuple[int, int]:
    start, _, end = addresses.partition("-")
    return int(start, 16), int(end, 16)
