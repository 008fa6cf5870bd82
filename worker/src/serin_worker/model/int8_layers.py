"""Linear layers in 8 bits on a device: the numbers of ``int8``, siblings by one product.

By Triton's kernels where they run, else by torch's own product of whole numbers; both give the same bits. On the CPU
there is a kernel of ours instead (`native_linear`). Knows nothing about what layers are part of.
"""

import logging
from collections.abc import Callable
from typing import Protocol

import torch
from torch.nn.functional import pad

from serin_worker.model.int8 import Quantized, quantized_rows, quantized_weight
from serin_worker.model.siblings import Siblings, replace_siblings
from serin_worker.model.stored_linear import quantized_of
from serin_worker.native.triton_runtime import has_triton

MULTIPLE = 8
"""Of inputs and outputs, for torch's product on CUDA."""
_MOST_INPUTS = (2**31 - 1) // (128 * 127)
"""Whose sums are exact in 32 bits."""
_LEAST_ROWS = 32
"""Rows that torch's product is given at least: on CUDA it refuses 16 and fewer."""


class Product(Protocol):
    """Rows [n, in] int8 with factors [n, 1] by weights [out, in] int8 with scales [out]: [n, out] in a dtype.

    Weights may have more inputs than rows, zeros.
    """

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
        multiple: of inputs and outputs, up to which weights are padded once.
    """

    def __init__(
        self,
        weights: list[Quantized],
        biases: list[torch.Tensor | None],
        quantize: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
        multiply: Product,
        multiple: int = 1,
    ) -> None:
        super().__init__()
        self.in_features = weights[0][0].shape[1]
        self.out_features = [len(numbers) for numbers, _ in weights]
        self._quantize, self._multiply = quantize, multiply
        assert self.in_features <= _MOST_INPUTS, "sums of products would not be exact"
        more_inputs, more_outputs = -self.in_features % multiple, -sum(self.out_features) % multiple
        self._numbers = pad(torch.cat([numbers for numbers, _ in weights]), (0, more_inputs, 0, more_outputs))
        self._scales = pad(torch.cat([scales for _, scales in weights]), (0, more_outputs))
        self._bias = None
        if any(bias is not None for bias in biases):
            parts = [
                scales.new_zeros(len(scales)) if bias is None else bias.detach().float()
                for bias, (_, scales) in zip(biases, weights, strict=True)
            ]
            self._bias = pad(torch.cat(parts), (0, more_outputs))

    def forward(self, rows: torch.Tensor) -> list[torch.Tensor]:
        """[..., in] to [..., out] for each layer, in the rows' dtype."""
        numbers, factors = self._quantize(rows)
        whole = self._multiply(
            numbers.reshape(-1, self.in_features),
            factors.reshape(-1, 1),
            self._numbers,
            self._scales,
            self._bias,
            rows.dtype,
        )
        width = sum(self.out_features)
        return list(torch.split(whole[:, :width].view(*rows.shape[:-1], width), self.out_features, -1))


def torch_product(
    numbers: torch.Tensor,
    factors: torch.Tensor,
    weight: torch.Tensor,
    scales: torch.Tensor,
    bias: torch.Tensor | None,
    dtype: torch.dtype,
) -> torch.Tensor:
    """``Product`` by torch's own product of whole numbers, which CUDA has for multiples of ``MULTIPLE`` only."""
    num_rows = len(numbers)
    missing, more_rows = weight.shape[1] - numbers.shape[1], max(0, _LEAST_ROWS - num_rows)
    if missing or more_rows:
        numbers = pad(numbers, (0, missing, 0, more_rows))
    sums = torch._int_mm(numbers, weight.t())[:num_rows]
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
        biases: list[torch.Tensor | None] = [layer.bias for layer in layers]  # type: ignore[misc]
        return Int8Layers(weights, biases, *_kernels(weights[0][0]))

    return replace_siblings(model, groups, made, progress)


def tell_limits(device: torch.device) -> None:
    """Say in the log what a user of this device should know."""
    logging.getLogger(__name__).warning(
        "int8 on %s: this path has been tested on the CPU alone, and on no device yet (docs/gpu.md)", device
    )


def _kernels(weight: torch.Tensor) -> tuple[Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]], Product, int]:
    """What quantizes rows and multiplies them, on a weight's device, and the multiple that it takes."""
    if not has_triton(weight.device):
        return quantized_rows, torch_product, MULTIPLE
    # Not imported at the top: triton is there where somebody has a GPU, and on Linux alone.
    from serin_worker.model import triton_int8, triton_modules, triton_quantize

    is_wide = weight.shape[1] > triton_modules.WIDEST
    return quantized_rows if is_wide else triton_quantize.int8_rows, triton_int8.product, 1
