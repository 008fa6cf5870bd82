"""How much of a tensor's memory is there: what was written, by whole pages."""

import mmap

import torch
from serin_worker.model.residence import resident_bytes_of


def test_pages_are_there_once_they_are_written():
    """Memory of the system's own, which is taken as it is written."""
    num_pages = 64
    with mmap.mmap(-1, num_pages * mmap.PAGESIZE) as memory:
        tensor = torch.frombuffer(memory, dtype=torch.uint8)
        assert resident_bytes_of(tensor) == 0
        tensor[: 16 * mmap.PAGESIZE] = 1
        assert resident_bytes_of(tensor) == 16 * mmap.PAGESIZE
        tensor.fill_(2)
        assert resident_bytes_of(tensor) == num_pages * mmap.PAGESIZE
        del tensor


def test_elsewhere_nothing_of_it_is_here():
    """Nor of no memory at all."""
    assert resident_bytes_of(torch.empty(0)) == 0
    assert resident_bytes_of(torch.empty(1000, device="meta")) == 0
