"""Linear layers in 8 bits: weights by a scale for each output, rows by one scale for each row, sums exact.

The method is dynamic quantization of Jacob et al. (arXiv:1712.05877) with symmetric scales for each channel and each
token; nothing is calibrated. Sums of products are whole numbers, so a row's bits depend on nothing but the row.
`linear_int8` in plain torch says what the kernel computes. Knows nothing about what layers are part of.
"""

import ctypes
from collections.abc import Callable, Sequence

import torch

from serin_worker.model.siblings import Group, Siblings, members
from serin_worker.model.stored_linear import StoredLinear
from serin_worker.native.library import DTYPES, kernels

_STEP = 64
_BLOCK = 32
_ROWS = 16
_TILE = 16
_LARGEST = 127.0


class _Output(ctypes.Structure):
    _fields_ = (("columns", ctypes.c_int64), ("data", ctypes.c_void_p))


Quantized = tuple[torch.Tensor, torch.Tensor]
"""Numbers [out, in] in int8, and a scale for each output [out] in float32."""


class Int8Weights:
    """Weights of one or more layers that are given the same rows, quantized and laid out for the kernel.

    Args:
        weights: [out, in] of each layer, to be quantized; or what is quantized already.
        biases: [out] of each layer, or None.

    Raises:
        KernelUnavailable: there is no compiler.
    """

    def __init__(self, weights: Sequence[torch.Tensor | Quantized], biases: Sequence[torch.Tensor | None]) -> None:
        shapes = [(weight[0] if isinstance(weight, tuple) else weight).shape for weight in weights]
        self.in_features = shapes[0][1]
        self.out_features = [shape[0] for shape in shapes]
        library = kernels()
        self._kernel = _declared(library.serin_int8_linear)
        self._padded = _up(self.in_features, _STEP)
        blocks = [_up(count, _BLOCK) for count in self.out_features]
        self._packed = torch.empty(sum(blocks) * self._padded, dtype=torch.int8)
        self._scales = torch.zeros(sum(blocks))
        self._bias = torch.zeros(sum(blocks)) if any(bias is not None for bias in biases) else None
        first = 0
        for weight, bias, padded in zip(weights, biases, blocks, strict=True):
            place = self._packed[first * self._padded : (first + padded) * self._padded]
            if isinstance(weight, tuple):
                numbers, scales = weight
                _lay_out(numbers.detach(), place)
                self._scales[first : first + len(scales)] = scales
            else:
                exact = weight.detach().contiguous()
                if len(exact) != padded:
                    place.zero_()
                library.serin_int8_pack(
                    ctypes.c_int32(DTYPES[exact.dtype]),
                    ctypes.c_void_p(exact.data_ptr()),
                    ctypes.c_int64(len(exact)),
                    ctypes.c_int64(self.in_features),
                    ctypes.c_void_p(place.data_ptr()),
                    ctypes.c_void_p(self._scales[first:].data_ptr()),
                    ctypes.c_int32(torch.get_num_threads()),
                )
            if self._bias is not None and bias is not None:
                self._bias[first : first + len(bias)] = bias.detach().float()
            first += padded

    def __call__(self, rows: torch.Tensor) -> list[torch.Tensor]:
        """[..., in] to [..., out] for each layer, in the rows' dtype."""
        rows = rows.contiguous()
        count = rows.numel() // self.in_features
        outputs = [rows.new_empty((*rows.shape[:-1], width)) for width in self.out_features]
        places = (_Output * len(outputs))(*(_Output(out.shape[-1], out.data_ptr()) for out in outputs))
        scratch = torch.empty(_up(count, _ROWS) * self._padded, dtype=torch.int8)
        factors = torch.empty(count)
        self._kernel(
            DTYPES[rows.dtype],
            rows.data_ptr(),
            count,
            self.in_features,
            self._packed.data_ptr(),
            self._scales.data_ptr(),
            None if self._bias is None else self._bias.data_ptr(),
            places,
            len(outputs),
            scratch.data_ptr(),
            factors.data_ptr(),
            torch.get_num_threads(),
        )
        return outputs


def _lay_out(numbers: torch.Tensor, place: torch.Tensor) -> None:
    """Put quantized numbers [out, in] where the kernel looks for them: as `serin_int8_pack` does, in plain torch.

    Blocks of 32 outputs, in them steps of 64 inputs, in them two tiles of 16 outputs, in them lines of 4 inputs.
    """
    num_outputs, width = numbers.shape
    num_blocks, num_steps = _up(num_outputs, _BLOCK) // _BLOCK, _up(width, _STEP) // _STEP
    if (num_outputs, width) != (num_blocks * _BLOCK, num_steps * _STEP):
        padding = (0, num_steps * _STEP - width, 0, num_blocks * _BLOCK - num_outputs)
        numbers = torch.nn.functional.pad(numbers, padding)
    fours = numbers.contiguous().view(torch.int32).view(num_blocks, 2, _TILE, num_steps, _STEP // 4)
    place.view(torch.int32).view(num_blocks, num_steps, 2, _STEP // 4, _TILE).copy_(fours.permute(0, 3, 1, 4, 2))


def quantized_weight(weight: torch.Tensor) -> Quantized:
    """What the kernel makes of a weight [out, in]: numbers from -127 to 127 (int8), and a scale for each output."""
    whole, largest = _quantized(weight.detach().float())
    return whole.to(torch.int8), largest[:, 0] / _LARGEST


def linear_int8(
    rows: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """What the kernel computes, in plain torch: rows [n, in] and a quantized weight [out, in] to [n, out]."""
    whole, largest = _quantized(rows.float())
    sums = (whole.double() @ weight.double().T).float()
    result = sums * ((largest / _LARGEST) * scales)
    return (result if bias is None else result + bias.float()).to(rows.dtype)


def quantize_linears(
    model: torch.nn.Module, groups: list[Siblings], progress: Callable[[float], None] | None = None
) -> int:
    """Replace linear layers of a model on the CPU, siblings by one pass; returns how many.

    A layer's own weight is dropped, unless something else holds it too (a tied embedding).

    Args:
        model: its layers are replaced in place.
        groups: plain or stored layers by name, siblings together.
        progress: called with the fraction of groups done.

    Raises:
        KernelUnavailable: there is no compiler.
    """
    replaced = 0
    for number, names in enumerate(groups, start=1):
        layers = [model.get_submodule(name) for name in names]
        weights = Int8Weights([_weight(layer) for layer in layers], [layer.bias for layer in layers])  # type: ignore[misc]
        group = Group(weights, weights.in_features, weights.out_features)
        for name, member in zip(names, members(group), strict=True):
            model.set_submodule(name, member)
            replaced += 1
        if progress:
            progress(number / len(groups))
    return replaced


def _weight(layer: torch.nn.Module) -> torch.Tensor | Quantized:
    if isinstance(layer, StoredLinear):
        return layer.weight.detach(), layer.scales
    weight: torch.Tensor = layer.weight  # type: ignore[assignment]
    return weight


def _quantized(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows [n, in] as whole numbers up to 127, and the largest magnitude of each row [n, 1]."""
    largest = rows.abs().amax(dim=1, keepdim=True)
    inverse = torch.where(largest > 0, torch.tensor(_LARGEST) / largest, 0.0)  # a number over a tensor is rounded twice
    return (rows * inverse).round().clamp(-_LARGEST, _LARGEST), largest


def _declared(function: "ctypes._NamedFuncPointer") -> "ctypes._NamedFuncPointer":
    pointer, long, word = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
    function.argtypes = [
        word, pointer, long, long, pointer, pointer, pointer, ctypes.POINTER(_Output), word, pointer, pointer, word
    ]  # fmt: skip
    return function


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
