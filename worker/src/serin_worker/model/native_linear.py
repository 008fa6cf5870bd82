"""Linear layers by the kernel of `native/linear.cpp`: weights laid out once, siblings in one pass.

Weights are kept as they are (bfloat16) or quantized to 8 bits. A row's bits depend on nothing but the row. Knows
nothing about what layers are part of.
"""

import ctypes
import enum
from collections.abc import Callable, Sequence

import torch

from serin_worker.model.int8 import Quantized
from serin_worker.model.siblings import Siblings, replace_siblings
from serin_worker.model.stored_linear import StoredLinear
from serin_worker.native.library import DTYPES, kernels, num_threads
from serin_worker.native.outcome import answering

_STEP = 64
"""Bytes of the inner dimension in a tile's line."""
_BLOCK = 32
_TILE = 16


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
        weights: [out, in] of each layer, all of one dtype: bfloat16, if that is the kind; to be quantized otherwise, or
            quantized already.
        biases: [out] of each layer, or None.

    Raises:
        KernelUnavailable: there is no compiler.
    """

    def __init__(
        self, kind: Kind, weights: Sequence[torch.Tensor | Quantized], biases: Sequence[torch.Tensor | None]
    ) -> None:
        shapes = [(weight[0] if isinstance(weight, tuple) else weight).shape for weight in weights]
        self.in_features = shapes[0][1]
        self.out_features = [shape[0] for shape in shapes]
        self.kind = kind
        self._kernel = _declared(kernels().serin_linear)
        self._width = _up(self.in_features * kind.itemsize, _STEP)
        self._row_bytes = _row_bytes(kind, self.in_features)
        blocks = [_up(count, _BLOCK) for count in self.out_features]
        self.packed = torch.empty(sum(blocks) * self._width, dtype=torch.uint8)
        self.scales = torch.zeros(sum(blocks))
        self.bias = torch.zeros(sum(blocks)) if any(bias is not None for bias in biases) else None
        first = 0
        for weight, bias, padded in zip(weights, biases, blocks, strict=True):
            place = self.packed[first * self._width : (first + padded) * self._width]
            if isinstance(weight, tuple):
                numbers, scales = weight
                self.scales[first : first + len(scales)] = scales
                _lay_out(numbers.detach(), place)
            else:
                self._pack(weight.detach().contiguous(), place, self.scales[first:])
            if self.bias is not None and bias is not None:
                self.bias[first : first + len(bias)] = bias.detach().float()
            first += padded

    def __call__(self, rows: torch.Tensor) -> list[torch.Tensor]:
        """[..., in] to [..., out] for each layer, in the rows' dtype."""
        rows = rows.contiguous()
        count = rows.numel() // self.in_features
        outputs = [rows.new_empty((*rows.shape[:-1], width)) for width in self.out_features]
        places = (_Output * len(outputs))(*(_Output(out.shape[-1], out.data_ptr()) for out in outputs))
        scratch = torch.empty(_up(count, _TILE) * self._row_bytes, dtype=torch.uint8)
        factors = torch.empty(count)
        self._kernel(
            self.kind,
            DTYPES[rows.dtype],
            rows.data_ptr(),
            count,
            self.in_features,
            self.packed.data_ptr(),
            self.scales.data_ptr(),
            None if self.bias is None else self.bias.data_ptr(),
            places,
            len(outputs),
            scratch.data_ptr(),
            factors.data_ptr(),
            num_threads(),
        )
        return outputs

    def _pack(self, weight: torch.Tensor, place: torch.Tensor, scales: torch.Tensor) -> None:
        if len(weight) % _BLOCK:
            place.zero_()
        answering(kernels().serin_linear_pack)(
            ctypes.c_int32(self.kind),
            ctypes.c_int32(DTYPES[weight.dtype]),
            ctypes.c_void_p(weight.data_ptr()),
            ctypes.c_int64(len(weight)),
            ctypes.c_int64(self.in_features),
            ctypes.c_void_p(place.data_ptr()),
            ctypes.c_void_p(scales.data_ptr()),
            ctypes.c_int32(num_threads()),
        )


def _lay_out(numbers: torch.Tensor, place: torch.Tensor) -> None:
    """Put quantized numbers [out, in] where the kernel looks for them: as `serin_linear_pack` does, in plain torch.

    Blocks of 32 outputs, in them steps of 64 inputs, in them two tiles of 16 outputs, in them lines of 4 inputs.
    """
    num_outputs, width = numbers.shape
    num_blocks, num_steps = _up(num_outputs, _BLOCK) // _BLOCK, _up(width, _STEP) // _STEP
    if (num_outputs, width) != (num_blocks * _BLOCK, num_steps * _STEP):
        padding = (0, num_steps * _STEP - width, 0, num_blocks * _BLOCK - num_outputs)
        numbers = torch.nn.functional.pad(numbers, padding)
    fours = numbers.contiguous().view(torch.int32).view(num_blocks, 2, _TILE, num_steps, _STEP // 4)
    place.view(torch.int32).view(num_blocks, num_steps, 2, _STEP // 4, _TILE).copy_(fours.permute(0, 3, 1, 4, 2))


def replace_linears(
    model: torch.nn.Module, kind: Kind, groups: list[Siblings], progress: Callable[[float], None] | None = None
) -> int:
    """Replace linear layers of a model on the CPU, siblings by one pass; returns how many.

    Args:
        model: its layers are replaced in place.
        kind: what weights become.
        groups: plain or stored layers by name, siblings together.
        progress: called with the fraction of groups done.

    Raises:
        KernelUnavailable: there is no compiler.
    """

    def made(layers: list[torch.nn.Module]) -> NativeWeights:
        return NativeWeights(kind, [_weight(layer) for layer in layers], [layer.bias for layer in layers])  # type: ignore[misc]

    return replace_siblings(model, groups, made, progress)


def _weight(layer: torch.nn.Module) -> torch.Tensor | Quantized:
    if isinstance(layer, StoredLinear):
        return layer.weight.detach(), layer.scales
    weight: torch.Tensor = layer.weight  # type: ignore[assignment]
    return weight


def _row_bytes(kind: Kind, width: int) -> int:
    """What a row takes as the kernel wants it."""
    function = kernels().serin_linear_row_bytes
    function.restype = ctypes.c_int64
    return int(function(ctypes.c_int32(kind), ctypes.c_int64(width)))


def _declared(function: "ctypes._NamedFuncPointer") -> "ctypes._NamedFuncPointer":
    pointer, long, word = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
    outputs = ctypes.POINTER(_Output)
    function.argtypes = [
        word, word, pointer, long, long, pointer, pointer, pointer, outputs, word, pointer, pointer, word
    ]  # fmt: skip
    return answering(function)


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
