"""Linear layers in 8 bits on a device: the numbers of ``int8``, siblings by one product.

By Triton's kernels where they run, else by torch's own product of whole numbers; both give the same bits. On the CPU
there is a kernel of ours instead (`native_linear`). Knows nothing about what layers are part of.
"""

import logging
from collections.abc import Callable
from typing import Protocol

import torch

from serin_worker.model.int8 import Quantized, quantized_rows, quantized_weight
from serin_worker.model.siblings import Siblings, replace_siblings
from serin_worker.model.stored_linear import quantized_of
from serin_worker.native.triton_runtime import has_triton

_MULTIPLE = 8
"""Of inputs and outputs, for torch's product on CUDA."""
_LEAST_ROWS = 32
"""Rows that torch's product is given at least: on CUDA it refuses 16 and fewer."""


class Product(Protocol):
    """Rows [n, in] int8 with factors [n, 1] by weights [out, in] int8 with scales [out]: [n, out] in a dtype."""

    def __call__(
        self,
        numbers: torch.Tensor,
        factors: torch.Tensor,
        weight: torch.Tensor,
        scales: torch.Tensor,
        bias: torch.Tensor | None,
        dtype: torch.dtype,
        /,
    ) -> torch.Tensor:
        """The bias [out], float32, is added before the result is rounded."""
        ...


class Int8Layers(torch.nn.Module):
    """One or more layers that are given the same rows, as one; outputs are views of one tensor.

    Args:
        weights: (numbers [out, in] int8, scales [out] float32) of each layer.
        biases: [out] of each layer, or None.
        quantize: makes int8 of rows.
        multiply: their product with the weights.
    """

    def __init__(
        self,
        weights: list[Quantized],
        biases: list[torch.Tensor | None],
        quantize: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
        multiply: Product,
    ) -> None:
        super().__init__()
        self.in_features = weights[0][0].shape[1]
        self.out_features = [len(numbers) for numbers, _ in weights]
        self._quantize, self._multiply = quantize, multiply
        self._numbers = torch.cat([numbers for numbers, _ in weights]).contiguous()
        self._scales = torch.cat([scales for _, scales in weights]).contiguous()
        self._bias = None
        if any(bias is not None for bias in biases):
            parts = [
                scales.new_zeros(len(scales)) if bias is None else bias.detach().float()
                for bias, (_, scales) in zip(biases, weights, strict=True)
            ]
            self._bias = torch.cat(parts)

    def forward(self, rows: torch.Tensor) -> list[torch.Tensor]:
        """[..., in] to [..., out] for each layer, in the rows' dtype."""
        numbers, factors = self._quantize(rows)
        whole = self._multiply(
            numbers.view(-1, self.in_features), factors.view(-1, 1), self._numbers, self._scales, self._bias, rows.dtype
        )
        return list(torch.split(whole.view(*rows.shape[:-1], -1), self.out_features, -1))


def torch_product(
    numbers: torch.Tensor,
    factors: torch.Tensor,
    weight: torch.Tensor,
    scales: torch.Tensor,
    bias: torch.Tensor | None,
    dtype: torch.dtype,
) -> torch.Tensor:
    """``Product`` by torch's own product of whole numbers, which CUDA has for some sizes only: others are padded."""
    num_rows, num_outputs = len(numbers), len(weight)
    missing = -weight.shape[1] % _MULTIPLE
    more_rows, more_outputs = max(0, _LEAST_ROWS - num_rows), -num_outputs % _MULTIPLE
    if missing or more_outputs:
        weight = torch.nn.functional.pad(weight, (0, missing, 0, more_outputs))
    if missing or more_rows:
        numbers = torch.nn.functional.pad(numbers, (0, missing, 0, more_rows))
    sums = torch._int_mm(numbers, weight.t())[:num_rows, :num_outputs]
    result = sums.float() * (factors * scales)
    return (result if bias is None else result + bias).to(dtype)


def quantize_linears(
    model: torch.nn.Module, groups: list[Siblings], progress: Callable[[float], None] | None = None
) -> int:
    """Replace linear layers of a model on a device, siblings by one product; returns how many.

    Args:
        model: its layers are replaced in place.
        groups: plain or stored layers by name, siblings together.
        progress: called with the fraction of groups done.
    """

    def made(layers: list[torch.nn.Module]) -> Int8Layers:
        weights = [quantized_of(layer, quantized_weight) for layer in layers]
        return Int8Layers(weights, [layer.bias for layer in layers], *_kernels(weights[0][0]))  # type: ignore[misc]

    return replace_siblings(model, groups, made, progress)


def tell_limits(device: torch.device) -> None:
    """Say in the log what a user of this device should know."""
    logging.getLogger(__name__).warning(
        "int8 on %s: this path has been tested on the CPU alone, and on no device yet (docs/gpu.md)", device
    )


def _kernels(weight: torch.Tensor) -> tuple[Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]], Product]:
    """What quantizes rows and multiplies them, on a weight's device."""
    if not has_triton(weight.device):
        return quantized_rows, torch_product
    # Not imported at the top: triton is there where somebody has a GPU, and on Linux alone.
    from serin_worker.model import triton_int8, triton_modules

    is_wide = weight.shape[1] > triton_modules.WIDEST
    return quantized_rows if is_wide else triton_int8.quantized_rows, triton_int8.product
