"""What compiled kernels answer, as Python says it. Knows nothing about what they compute."""

import ctypes
from typing import Any

_NO_MEMORY = 2
"""A bit of their answer (`Outcome` in kernels.h)."""


def answering(kernel: "ctypes._NamedFuncPointer") -> "ctypes._NamedFuncPointer":
    """A kernel whose calls raise what it answers.

    They raise:
        MemoryError: there was too little, and what it was to compute is not there, or only in parts.
        TypeError: it does not compute with numbers of that type.
    """
    kernel.restype = ctypes.c_int32
    kernel.errcheck = _check
    return kernel


def _check(outcome: Any, kernel: Any, _: Any) -> Any:
    if outcome & _NO_MEMORY:
        raise MemoryError(f"{kernel.__name__} lacks memory")
    if outcome:
        raise TypeError(f"{kernel.__name__} has nothing for numbers of this type")
    return outcome
