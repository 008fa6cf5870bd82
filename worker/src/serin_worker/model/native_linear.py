"""Linear layers by the kernel of `native/linear.cpp`: weights laid out once, siblings in one pass, a row's bits its own.

Weights are kept as they are (bfloat16) or quantized to 8 bits. Knows nothing about what layers are part of.
"""

import ctypes
import enum
import functools
from collections.abc import Callable

import torch

from serin_worker.model.siblings import Group, Siblings, members
from serin_worker.native.library import DTYPES, kernels

_STEP = 64
"""Bytes of the inner dimension in a tile's line."""
_BLOCK = 32
_ROWS = 16


class Kind(enum.IntEnum):
    """What weights are multiplied as."""

    INT8 = 0
    BFLOAT16 = 1

    @property
    def itemsize(self) -> int:
        """Bytes of a number."""
        return 1 if self is Kind.INT8 else 2


class _Output(ctypes.Structure):
    _fields_ = (("columns", ctypes.c_int64), ("data", ctypes.c_void_p))


class NativeWeights:
    """Weights of one or more layers that are given the same rows, laid out for the kernel.

    Args:
        kind: what they are multiplied as.
        weights: [out, in] of each layer, all of one dtype; of bfloat16, if that is the kind.
        biases: [out] of each layer, or None.

    Raises:
        KernelUnavailable: there is no compiler.
    """

    def __init__(self, kind: Kind, weights: list[torch.Tensor], biases: list[torch.Tensor | None]) -> None:
        self.in_features = weights[0].shape[1]
        self.out_features = [len(weight) for weight in weights]
        self._kind = kind
        self._kernel = _kernel()
        self._width = _up(self.in_features * kind.itemsize, _STEP)
        blocks = [_up(count, _BLOCK) for count in self.out_features]
        self._packed = torch.zeros(sum(blocks) * self._width, dtype=torch.uint8)
        self._scales = torch.zeros(sum(blocks)) if kind is Kind.INT8 else None
        self._bias = torch.zeros(sum(blocks)) if any(bias is not None for bias in biases) else None
        first = 0
        for weight, bias, padded in zip(weights, biases, blocks, strict=True):
            self._lay_out(weight.detach().contiguous(), first)
            if self._bias is not None and bias is not None:
                self._bias[first : first + len(bias)] = bias.detach().float()
            first += padded

    def __call__(self, rows: torch.Tensor) -> list[torch.Tensor]:
        """[..., in] to [..., out] for each layer, in the rows' dtype."""
        rows = rows.contiguous()
        count = rows.numel() // self.in_features
        outputs = [rows.new_empty((*rows.shape[:-1], width)) for width in self.out_features]
        places = (_Output * len(outputs))(*(_Output(out.shape[-1], out.data_ptr()) for out in outputs))
        scratch = torch.empty(_up(count, _ROWS) * self._width, dtype=torch.uint8)
        factors = torch.empty(count)
        self._kernel(
            self._kind,
            DTYPES[rows.dtype],
            rows.data_ptr(),
            count,
            self.in_features,
            self._packed.data_ptr(),
            None if self._scales is None else self._scales.data_ptr(),
            None if self._bias is None else self._bias.data_ptr(),
            places,
            len(outputs),
            scratch.data_ptr(),
            factors.data_ptr(),
            torch.get_num_threads(),
        )
        return outputs

    def _lay_out(self, weight: torch.Tensor, first: int) -> None:
        """A layer's weight, from its first column on."""
        kernels().serin_linear_pack(
            ctypes.c_int32(self._kind),
            ctypes.c_int32(DTYPES[weight.dtype]),
            ctypes.c_void_p(weight.data_ptr()),
            ctypes.c_int64(len(weight)),
            ctypes.c_int64(self.in_features),
            ctypes.c_void_p(self._packed[first * self._width :].data_ptr()),
            ctypes.c_void_p(None if self._scales is None else self._scales[first:].data_ptr()),
            ctypes.c_int32(torch.get_num_threads()),
        )


def replace_linears(
    model: torch.nn.Module, kind: Kind, groups: list[Siblings], progress: Callable[[float], None] | None = None
) -> int:
    """Replace linear layers of a model on the CPU, siblings by one pass; returns how many.

    A layer's own weight is dropped, unless something else holds it too (a tied embedding).

    Args:
        model: its layers are replaced in place.
        kind: what weights become.
        groups: layers by name, siblings together.
        progress: called with the fraction of groups done.

    Raises:
        KernelUnavailable: there is no compiler.
    """
    replaced = 0
    for number, names in enumerate(groups, start=1):
        layers = [model.get_submodule(name) for name in names]
        weights = NativeWeights(kind, [layer.weight for layer in layers], [layer.bias for layer in layers])  # type: ignore[misc]
        group = Group(weights, weights.in_features, weights.out_features)
        for name, member in zip(names, members(group), strict=True):
            parent, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(parent), attribute, member)
            replaced += 1
        if progress:
            progress(number / len(groups))
    return replaced


@functools.cache
def _kernel() -> "ctypes._NamedFuncPointer":
    function = kernels().serin_linear
    pointer, long, word = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
    function.argtypes = [
        word, word, pointer, long, long, pointer, pointer, pointer, ctypes.POINTER(_Output), word, pointer, pointer, word
    ]  # fmt: skip
    return function


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
