"""How much of a tensor's memory is there: pages that were never written take none of it.

By mincore(2), a byte for each page. Knows nothing about what the tensors are for.
"""

import ctypes
import mmap

import numpy
import torch


def resident_bytes_of(tensor: torch.Tensor) -> int:
    """Bytes of its pages in this process' resident memory; 0 where it is elsewhere, or the system does not say."""
    if tensor.device.type != "cpu" or not tensor.nbytes:
        return 0
    try:
        mincore = ctypes.CDLL(None, use_errno=True).mincore
    except (OSError, AttributeError):
        return 0
    first = tensor.data_ptr() // mmap.PAGESIZE * mmap.PAGESIZE
    num_bytes = tensor.data_ptr() + tensor.nbytes - first
    pages = numpy.zeros(-(-num_bytes // mmap.PAGESIZE), dtype=numpy.uint8)
    mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
    if mincore(first, num_bytes, pages.ctypes.data) != 0:
        return 0
    return int(numpy.count_nonzero(pages & 1)) * mmap.PAGESIZE
