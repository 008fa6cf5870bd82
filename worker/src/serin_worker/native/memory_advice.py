"""What the system is told about memory of tensors, where it can be told (madvise); elsewhere nothing happens.

Knows nothing about what is in it.
"""

import ctypes
import mmap

import torch

_NAMES = {"huge pages": "MADV_HUGEPAGE", "not needed": "MADV_DONTNEED"}


def ask_for_huge_pages(tensor: torch.Tensor) -> None:
    """For a tensor on the CPU that nobody has written yet: fewer addresses to look up where it is read all over."""
    _advise(tensor, "huge pages")


def drop_pages(tensor: torch.Tensor) -> int:
    """Give back the whole pages of a contiguous tensor on the CPU; returns their bytes. What only they hold is lost."""
    return _advise(tensor, "not needed")


def _advise(tensor: torch.Tensor, what: str) -> int:
    advice = getattr(mmap, _NAMES[what], None)
    page = mmap.PAGESIZE
    first = tensor.data_ptr()
    last = (first + tensor.numel() * tensor.element_size()) // page * page
    first = -(-first // page) * page
    if advice is None or last <= first:
        return 0
    failed = ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), ctypes.c_int(advice))
    return 0 if failed else last - first
