"""Gives memory that was needed only for a while back to the system. Knows nothing about whose it was."""

import ctypes
import gc


def give_back() -> None:
    """Collect garbage and let the C library return free pages; does only the former where it cannot.

    Reading a tokenizer of 150,000 tokens takes 250 MB for a second and 80 MB for good.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's own
    if trim is not None:
        trim(0)
