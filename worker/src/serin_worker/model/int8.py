"""Linear layers in 8 bits: weights by a scale for each output, rows by one scale for each row, sums exact.

The method is dynamic quantization of Jacob et al. (arXiv:1712.05877) with symmetric scales for each channel and each
token; nothing is calibrated. Sums of products are whole numbers, so a row's bits depend on nothing but the row.
`linear_int8` in plain torch says what the kernel computes. Knows nothing about what layers are part of.
"""

import ctypes
from collections.abc import Callable

import torch

from serin_worker.model.siblings import Group, Siblings, members
from serin_worker.native.library import DTYPES, kernels

_STEP = 64
_BLOCK = 32
_ROWS = 16
_LARGEST = 127.0


class _Output(ctypes.Structure):
    _fields_ = (("columns", ctypes.c_int64), ("data", ctypes.c_void_p))


class Int8Weights:
    """Weights of one or more layers that are given the same rows, quantized and laid out for the kernel.

    Args:
        weights: [out, in] of each layer, all of one dtype.
        biases: [out] of each layer, or None.

    Raises:
        KernelUnavailable: there is no compiler.
    """

    def __init__(self, weights: list[torch.Tensor], biases: list[torch.Tensor | None]) -> None:
        self.in_features = weights[0].shape[1]
        self.out_features = [len(weight) for weight in weights]
        library = kernels()
        self._kernel = _declared(library.serin_int8_linear)
        self._padded = _up(self.in_features, _STEP)
        blocks = [_up(count, _BLOCK) for count in self.out_features]
        self._packed = torch.zeros(sum(blocks) * self._padded, dtype=torch.int8)
        self._scales = torch.zeros(sum(blocks))
        self._bias = torch.zeros(sum(blocks)) if any(bias is not None for bias in biases) else None
        first = 0
        for weight, bias, padded in zip(weights, biases, blocks, strict=True):
            exact = weight.detach().contiguous()
            library.serin_int8_pack(
                ctypes.c_int32(DTYPES[exact.dtype]),
                ctypes.c_void_p(exact.data_ptr()),
                ctypes.c_int64(len(exact)),
                ctypes.c_int64(self.in_features),
                ctypes.c_void_p(self._packed[first * self._padded :].data_ptr()),
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


def quantized_weight(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
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
        groups: layers by name, siblings together.
        progress: called with the fraction of groups done.

    Raises:
        KernelUnavailable: there is no compiler.
    """
    replaced = 0
    for number, names in enumerate(groups, start=1):
        layers = [model.get_submodule(name) for name in names]
        weights = Int8Weights([layer.weight for layer in layers], [layer.bias for layer in layers])  # type: ignore[misc]
        group = Group(weights, weights.in_features, weights.out_features)
        for name, member in zip(names, members(group), strict=True):
            parent, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(parent), attribute, member)
            replaced += 1
        if progress:
            progress(number / len(groups))
    return replaced


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
