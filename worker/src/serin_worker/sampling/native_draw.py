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
from serin_worker.native.outcome import answering
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


def largest(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Each row's largest number, NaN if there is any, and the first place where it is; logits [rows, vocabulary].

    Returns:
        [rows] in a float type and [rows] in an integer type, where the logits are.
    """
    if not is_available(logits.device) or logits.dtype not in _DTYPES or logits.stride(-1) != 1:
        values, places = logits.max(dim=-1)
        return values, places
    count, size = logits.shape
    found, at = torch.empty(count, dtype=torch.float32), torch.empty(count, dtype=torch.int32)
    answering(kernels().serin_largest)(
        ctypes.c_void_p(logits.data_ptr()),
        ctypes.c_int32(_DTYPES[logits.dtype]),
        ctypes.c_int64(logits.stride(0)),
        ctypes.c_int32(size),
        ctypes.c_int32(count),
        ctypes.c_void_p(found.data_ptr()),
        ctypes.c_void_p(at.data_ptr()),
        ctypes.c_int32(num_threads()),
    )
    return found, at


def take(
    logits: torch.Tensor,
    index: Sequence[int],
    samplings: Sequence[Sampling],
    names: Sequence[tuple[int, int, int]],
    purpose: Purpose = Purpose.TOKEN,
) -> torch.Tensor:
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
    tokens = torch.empty(len(index), dtype=torch.int32)
    kernel(
        logits.data_ptr(),
        _DTYPES[logits.dtype],
        logits.stride(0),
        logits.shape[1],
        rows,
        len(index),
        tokens.data_ptr(),
        num_threads(),
    )
    return tokens


@functools.cache
def _kernel() -> "ctypes._NamedFuncPointer | None":
    try:
        function = answering(kernels().serin_draw)
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
        ctypes.c_void_p,
        ctypes.c_int32,
    ]
    return function
