"""Linear layers in 8 bits: weights by a scale for each output, rows by one scale for each row, sums exact.

The method is dynamic quantization of Jacob et al. (arXiv:1712.05877) with symmetric scales for each channel and each
token; nothing is calibrated. Sums of products are whole numbers, so a row's bits depend on nothing but the row. This is
what the kernel (`native_linear`) computes, in plain torch.
"""

import torch

_LARGEST = 127.0

Quantized = tuple[torch.Tensor, torch.Tensor]
"""Numbers [out, in] in int8, and a scale for each output [out] in float32."""


def quantized_weight(weight: torch.Tensor) -> Quantized:
    """What the kernel makes of a weight [out, in]: numbers from -127 to 127 (int8), and a scale for each output."""
    numbers, factors = quantized_rows(weight.detach())
    return numbers, factors[:, 0]


def quantized_rows(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows [..., in] in int8, and what to multiply each with to get it back [..., 1] in float32.

    The factor of a row with NaN or infinity is not finite.
    """
    whole, largest = _quantized(rows.float())
    return whole.nan_to_num(0.0).to(torch.int8), largest / largest.new_full((), _LARGEST)


def linear_int8(
    rows: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """What the kernel computes, in plain torch: rows [n, in] and a quantized weight [out, in] to [n, out]."""
    numbers, factors = quantized_rows(rows)
    sums = (numbers.double() @ weight.double().T).float()
    result = sums * (factors * scales)
    return (result if bias is None else result + bias.float()).to(rows.dtype)


def _quantized(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows [..., in] as whole numbers up to 127, and the largest magnitude of each row [..., 1]."""
    largest = rows.abs().amax(dim=-1, keepdim=True)
    # Tensors of the same device throughout: torch multiplies by the inverse of a plain number, which rounds twice.
    inverse = torch.where(largest > 0, largest.new_full((), _LARGEST) / largest, 0.0)
    return (rows * inverse).round().clamp(-_LARGEST, _LARGEST), largest
