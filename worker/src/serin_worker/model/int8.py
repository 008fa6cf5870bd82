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


def _quantized(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows [n, in] as whole numbers up to 127, and the largest magnitude of each row [n, 1]."""
    largest = rows.abs().amax(dim=1, keepdim=True)
    inverse = torch.where(largest > 0, torch.tensor(_LARGEST) / largest, 0.0)  # a number over a tensor is rounded twice
    return (rows * inverse).round().clamp(-_LARGEST, _LARGEST), largest
