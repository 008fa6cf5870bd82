"""Linear layers as a quantized checkpoint holds them, put where transformers' loader finds room for their tensors.

The loader is transformers' own, told by its own extension point (a registered quantizer) that such layers take numbers
of 8 bits and scales. They compute, slowly; faster ones replace them. Knows nothing about those.
"""

from collections.abc import Callable
from typing import Any

import torch
from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING, register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from serin_worker.errors import ModelRefused
from serin_worker.model.checkpoint import Checkpoint, TensorEntry
from serin_worker.model.stored_quantization import Block, StoredQuantization

METHOD = "serin"
_SLICE = 4096
"""Outputs that are quantized at a time: on the way a number takes twelve bytes."""
_ITEMS = {"I8": torch.int8, "F8_E4M3": torch.float8_e4m3fn}


class StoredLinear(torch.nn.Module):
    """``x @ (numbers * scales).T + bias``.

    Args:
        layer: whose place it takes.
        stored: how the checkpoint holds it.
        scale_shape: shape of the checkpoint's scales: of one number, [out], [out, 1] or a number for each block.
    """

    def __init__(self, layer: torch.nn.Linear, stored: StoredQuantization, scale_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self._stored = stored
        device, numbers = layer.weight.device, _ITEMS[stored.item]
        self.weight = _fixed(torch.empty(layer.weight.shape, dtype=numbers, device=device))
        setattr(self, stored.scales, _fixed(torch.empty(scale_shape, dtype=torch.float32, device=device)))
        self.bias = layer.bias

    @property
    def scales(self) -> torch.Tensor:
        """[out] float32; of layers that are not held in blocks."""
        scales: torch.Tensor = getattr(self, self._stored.scales)
        return scales.detach().flatten().expand(self.out_features)

    def dequantized(self, dtype: torch.dtype) -> torch.Tensor:
        """The weight [out, in] that the numbers stand for."""
        numbers = self.weight.detach().float()
        if self._stored.block is None:
            return (numbers * self.scales[:, None]).to(dtype)
        rows, columns = self._stored.block
        scales = getattr(self, self._stored.scales).detach()
        scales = scales.repeat_interleave(rows, 0).repeat_interleave(columns, 1)
        weight: torch.Tensor = numbers * scales[: self.out_features, : self.in_features]
        return weight.to(dtype)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """[..., in] to [..., out]."""
        return torch.nn.functional.linear(rows, self.dequantized(rows.dtype), self.bias)


def quantized_of(
    layer: torch.nn.Module, quantize: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """A layer's numbers [out, in] and scales [out]: as they are stored, or made of a plain layer's weight."""
    if isinstance(layer, StoredLinear):
        return layer.weight.detach(), layer.scales
    weight: torch.Tensor = layer.weight  # type: ignore[assignment]
    parts = [quantize(part) for part in torch.split(weight.detach(), _SLICE)]
    return torch.cat([numbers for numbers, _ in parts]), torch.cat([scales for _, scales in parts])


def prepare_skeleton(model: torch.nn.Module, checkpoint: Checkpoint) -> None:
    """Put a :class:`StoredLinear` in the place of every linear layer whose weight the checkpoint holds quantized.

    Raises:
        ModelRefused: a quantized tensor is no linear layer's weight, or has no scales that fit; or there is none, and
            the configuration says so.
    """
    stored = checkpoint.quantization
    assert stored is not None, "there is nothing to prepare for"
    if all(entry.dtype != stored.item for entry in checkpoint.tensors.values()):
        held = ", ".join(sorted({entry.dtype for entry in checkpoint.tensors.values()}))
        raise ModelRefused(
            f"quantization_config says that weights are held in {stored.kind}, and no tensor is stored as "
            f"{stored.item} (there are {held}); take it out to serve the weights as they are",
            str(checkpoint.folder / "config.json"),
        )
    modules = dict(model.named_modules())
    body = f"{getattr(model, 'base_model_prefix', '')}."
    for name, entry in sorted(checkpoint.tensors.items()):
        if entry.dtype != stored.item:
            continue
        layer_name, _, kind = name.rpartition(".")
        layer_name = layer_name if layer_name in modules else body + layer_name
        layer = modules.get(layer_name)
        if kind != "weight" or type(layer) is not torch.nn.Linear:
            raise ModelRefused(
                f"tensor {name!r} is quantized ({stored.kind}) and not the weight of a linear layer; "
                "only those are served in 8 bits",
                entry.file,
            )
        scales = checkpoint.tensors.get(f"{name.removesuffix('weight')}{stored.scales}")
        if scales is None:
            raise ModelRefused(f"tensor {name!r} is quantized and has no {stored.scales!r} beside it", entry.file)
        _check_scales(name, entry, scales, stored.block)
        model.set_submodule(layer_name, StoredLinear(layer, stored, scales.shape))


def dequantize(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Make plain linear layers of stored ones."""
    for name, layer in list(model.named_modules()):
        if type(layer) is StoredLinear:
            plain = torch.nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
            plain.weight = _fixed(layer.dequantized(dtype))
            plain.bias = layer.bias
            model.set_submodule(name, plain)


def configuration(checkpoint: Checkpoint) -> dict[str, Any]:
    """What a configuration names as its ``quantization_config`` for transformers' loader to come here."""
    if METHOD not in AUTO_QUANTIZER_MAPPING:
        register_quantization_config(METHOD)(_Configuration)
        register_quantizer(METHOD)(_Quantizer)
    return {"quant_method": METHOD, "checkpoint": checkpoint}


class _Configuration(QuantizationConfigMixin):
    def __init__(self, checkpoint: Checkpoint, **_: Any) -> None:
        self.quant_method = METHOD  # type: ignore[assignment]
        self.checkpoint = checkpoint


class _Quantizer(HfQuantizer):
    def _process_model_before_weight_loading(self, model: Any, **_: Any) -> None:
        prepare_skeleton(model, self.quantization_config.checkpoint)  # type: ignore[attr-defined]

    def is_serializable(self) -> bool:
        return False

    @property
    def is_trainable(self) -> bool:
        return False


def _check_scales(name: str, weight: TensorEntry, scales: TensorEntry, block: Block | None) -> None:
    num_outputs = weight.shape[0]
    if block is not None:
        accepted = [tuple(-(-size // part) for size, part in zip(weight.shape, block, strict=True))]
    else:
        accepted = [(num_outputs, 1), (num_outputs,), (1,), (), (1, 1)]
    if scales.shape not in accepted or scales.dtype not in ("F32", "BF16", "F16"):
        raise ModelRefused(
            f"the scales of tensor {name!r} are {scales.dtype} of shape {scales.shape}; "
            f"accepted: F32, BF16 or F16 of {' or '.join(map(str, accepted))}",
            scales.file,
        )


def _fixed(tensor: torch.Tensor) -> torch.nn.Parameter:
    return torch.nn.Parameter(tensor, requires_grad=False)
