"""Linear layers in e4m3: weights by a scale for each output, rows by one scale for each row.

The format is that of Micikevicius et al. (arXiv:2209.05433); nothing is calibrated. Such numbers are multiplied as they
are (`torch._scaled_mm`) on devices that can. Everywhere else they are held in bfloat16 (float32, where the model is),
which holds each of them exactly: the answers are those of 8 bits, time and memory those of the plain layer and a pass
over the rows more. The output layer stays as it is, as others leave it too. Knows nothing about what layers are part
of.
"""

import functools
import logging
from collections.abc import Callable

import torch

from serin_worker.model.siblings import Siblings, replace_siblings
from serin_worker.model.stored_linear import quantized_of
from serin_worker.native.triton_runtime import has_triton

E4M3 = torch.float8_e4m3fn
_LARGEST = torch.finfo(E4M3).max
_LEAST_FACTOR = 1e-12
"""Of rows that are zero, or nearly."""
_FIRST_CAPABILITY = (8, 9)
_MULTIPLE = 16
"""Of inputs and outputs, for a device to multiply them."""


class Fp8Layers(torch.nn.Module):
    """One or more layers that are given the same rows, as one.

    Args:
        weights: (numbers [out, in] e4m3, scales [out] float32) of each layer.
        biases: [out] of each layer, or None.
        dtype: what the rest of the model is in.
        is_scaled: multiply e4m3 numbers as they are; the device can, and sizes are multiples of 16.
    """

    def __init__(
        self,
        weights: list[tuple[torch.Tensor, torch.Tensor]],
        biases: list[torch.Tensor | None],
        dtype: torch.dtype,
        *,
        is_scaled: bool,
    ) -> None:
        super().__init__()
        numbers = torch.cat([one for one, _ in weights])
        self.in_features = numbers.shape[1]
        self.out_features = [len(one) for one, _ in weights]
        self._quantized = quantizer(numbers.device, self.in_features)
        self._scales = torch.cat([scales for _, scales in weights])
        self._biases = [None if bias is None else bias.detach().float() for bias in biases]
        self._numbers: torch.Tensor | None = numbers if is_scaled else None
        if not is_scaled:
            holds = dtype if dtype in (torch.float32, torch.bfloat16) else torch.bfloat16
            self.multiply = torch.nn.Linear(self.in_features, len(numbers), bias=False, device="meta")
            self.multiply.weight = torch.nn.Parameter(numbers.to(holds), requires_grad=False)
            self._holds = holds

    def forward(self, rows: torch.Tensor) -> list[torch.Tensor]:
        """[..., in] to [..., out] for each layer, in the rows' dtype; they may be views of one tensor."""
        numbers, factors = self._quantized(rows)
        if self._numbers is None:
            product = self.multiply(numbers.to(self._holds))
            parts = torch.split(product, self.out_features, -1)
            scales = torch.split(self._scales, self.out_features)
            parts = tuple(part * (factors * scale) for part, scale in zip(parts, scales, strict=True))
        else:
            whole = torch._scaled_mm(
                numbers.flatten(0, -2),
                self._numbers.t(),
                scale_a=factors.flatten(0, -2),
                scale_b=self._scales[None],
                out_dtype=torch.bfloat16,
            )
            parts = torch.split(whole.view(*rows.shape[:-1], -1), self.out_features, -1)
        return [
            (part if bias is None else part + bias).to(rows.dtype)
            for part, bias in zip(parts, self._biases, strict=True)
        ]


def quantizer(device: torch.device, width: int) -> Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """What makes e4m3 of rows of a width on a device: ``quantized``, or a kernel that does the same in one launch."""
    if not (multiplies_e4m3(device) and has_triton(device)):
        return quantized
    from serin_worker.model import triton_modules, triton_quantize

    if width > triton_modules.WIDEST:
        return quantized
    return functools.partial(triton_quantize.e4m3_rows, largest=_LARGEST, least_factor=_LEAST_FACTOR)


def quantized(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows [..., in] as e4m3, and what to multiply each with to get it back [..., 1] in float32.

    A row with NaN or infinity is not finite afterwards either.
    """
    largest = rows.abs().amax(dim=-1, keepdim=True).float()
    # By a tensor of the device: torch multiplies by the inverse of a plain number there, which rounds twice.
    factors = (largest / largest.new_full((), _LARGEST)).clamp_min(_LEAST_FACTOR)
    return (rows / factors).to(E4M3), factors


def quantized_weight(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight [out, in] as e4m3, and a scale for each output [out]."""
    numbers, factors = quantized(weight.detach().float())
    return numbers, factors[:, 0]


def linear_fp8(
    rows: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """What is computed, said plainly: rows [n, in] and a quantized weight [out, in] to [n, out]."""
    numbers, factors = quantized(rows)
    result = (numbers.double() @ weight.double().T) * (factors * scales)
    return (result if bias is None else result + bias).to(rows.dtype)


def quantize_linears(
    model: torch.nn.Module,
    groups: list[Siblings],
    dtype: torch.dtype,
    progress: Callable[[float], None] | None = None,
) -> int:
    """Replace linear layers of a model, siblings by one pass; returns how many.

    Args:
        model: its layers are replaced in place.
        groups: plain or stored layers by name, siblings together.
        dtype: what the rest of the model is in.
        progress: called with the fraction of groups done.
    """

    def made(layers: list[torch.nn.Module]) -> Fp8Layers:
        weights = [quantized_of(layer, quantized_weight) for layer in layers]
        return Fp8Layers(weights, [layer.bias for layer in layers], dtype, is_scaled=_is_scaled(weights))  # type: ignore[misc]

    return replace_siblings(model, groups, made, progress)


def multiplies_e4m3(device: torch.device) -> bool:
    """Whether a device multiplies such numbers as they are."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= _FIRST_CAPABILITY


def tell_limits(device: torch.device) -> None:
    """Say in the log what a user of this device should know."""
    log = logging.getLogger(__name__)
    if multiplies_e4m3(device):
        log.warning("fp8 on %s: this path has been tested on the CPU alone, and on no device yet", device)
    else:
        log.warning(
            "fp8 on %s: numbers of 8 bits are held in 16, which saves no memory and costs time; it is for the answers "
            "that a GPU gives in fp8. For speed use --quantize int8",
            device,
        )


def _is_scaled(weights: list[tuple[torch.Tensor, torch.Tensor]]) -> bool:
    fits = all(size % _MULTIPLE == 0 for numbers, _ in weights for size in numbers.shape)
    return fits and multiplies_e4m3(weights[0][0].device)
