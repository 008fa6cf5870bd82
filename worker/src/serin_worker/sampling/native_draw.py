"""Draws by a C++ kernel: filters and noise in one pass over each row, the same definition as in torch; and the largest.

Knows nothing about processors or log-probabilities.
"""

import ctypes
import functools
import logging
from collections.abc import Sequence
from math import inf, log

import torch

from serin_worker.native.library import KernelUnavailable, kernels, num_threads
from serin_worker.request import Sampling
from serin_worker.sampling.draw import Purpose

_DTYPES = {torch.float32: 0, torch.bfloat16: 1}


class _DrawRow(ctypes.Structure):
    _fields_ = (
        ("seed", ctypes.c_uint64),
        ("choice", ctypes.c_uint32),
        ("position", ctypes.c_uint32),
        ("purpose", ctypes.c_uint32),
        ("row", ctypes.c_int32),
        ("top_k", ctypes.c_int32),
        ("temperature", ctypes.c_float),
        ("top_p", ctypes.c_float),
        ("log_min_p", ctypes.c_float),
    )


def is_available(device: torch.device) -> bool:
    """Whether the kernel can draw from logits there; what is in a batch never decides who draws."""
    return device.type == "cpu" and _kernel() is not None


def largest(logits: torch.Tensor) -> tuple[list[float], list[int]]:
    """Each row's largest number, NaN if there is any, and the first place where it is; logits [rows, vocabulary]."""
    if not is_available(logits.device) or logits.dtype not in _DTYPES or logits.stride(-1) != 1:
        values, places = logits.max(dim=-1)
        return values.tolist(), places.tolist()
    count, size = logits.shape
    found, at = (ctypes.c_float * count)(), (ctypes.c_int32 * count)()
    kernels().serin_largest(
        ctypes.c_void_p(logits.data_ptr()),
        ctypes.c_int32(_DTYPES[logits.dtype]),
        ctypes.c_int64(logits.stride(0)),
        ctypes.c_int32(size),
        ctypes.c_int32(count),
        found,
        at,
        ctypes.c_int32(num_threads()),
    )
    return list(found), list(at)


def take(
    logits: torch.Tensor,
    index: Sequence[int],
    samplings: Sequence[Sampling],
    names: Sequence[tuple[int, int, int]],
    purpose: Purpose = Purpose.TOKEN,
) -> list[int]:
    """A token for each of the rows ``index`` of logits [any, vocabulary], drawn under its (seed, choice, position)."""
    kernel = _kernel()
    assert kernel is not None, "is_available() comes first"
    if logits.dtype not in _DTYPES or logits.stride(-1) != 1:
        logits = logits.float().contiguous()
    rows = (_DrawRow * len(index))(
        *(
            _DrawRow(
                seed & 0xFFFFFFFFFFFFFFFF,
                choice,
                position,
                int(purpose),
                row,
                sampling.top_k,
                sampling.temperature,
                sampling.top_p,
                log(sampling.min_p) if sampling.min_p > 0 else -inf,
            )
            for row, sampling, (seed, choice, position) in zip(index, samplings, names, strict=True)
        )
    )
    tokens = (ctypes.c_int32 * len(index))()
    kernel(
        logits.data_ptr(),
        _DTYPES[logits.dtype],
        logits.stride(0),
        logits.shape[1],
        rows,
        len(index),
        tokens,
        num_threads(),
    )
    return list(tokens)


@functools.cache
def _kernel() -> "ctypes._NamedFuncPointer | None":
    try:
        function = kernels().serin_draw
    except KernelUnavailable as error:
        logging.getLogger(__name__).warning("drawing kernel unavailable, using torch: %s", error)
        return None
    function.argtypes = [
        ctypes.c_void_p,
        ctypes.c_int32,
        ctypes.c_int64,
        ctypes.c_int32,
        ctypes.POINTER(_DrawRow),
        ctypes.c_int32,
        ctypes.POINTER(ctypes.c_int32),
        ctypes.c_int32,
    ]
    function.restype = ctypes.c_int
    return function
