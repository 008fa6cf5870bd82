"""Linear layers with weights laid out once for oneDNN, instead of at every call.

A packed layer is up to twice as fast for the few rows of a decode. On many processors a row's bits do not depend on how
many rows it is computed with; whether they do is found out, not assumed. Knows nothing about what layers are part of.
"""

import logging

import torch

_PACKED_ROWS = 16
_WIDE = 16_384
_SLICES = (
    (0, 1),
    (4, 1),
    (1, 2),
    (2, 3),
    (3, 5),
    (0, 8),
    (1, 15),
    (0, 16),
    (5, 17),
    (0, 32),
    (7, 33),
    (0, 64),
    (9, 150),
)
"""(first row, number of rows)"""
_FEATURES = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}


class PackedLinear(torch.nn.Module):
    """``x @ weight.T + bias`` with a packed weight."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _PACKED_ROWS)
        self._bias = None if bias is None else bias.detach()

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """[..., in] to [..., out]."""
        result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, self._packed, self._bias, "none", [], "")
        return result


def pack_linears(model: torch.nn.Module) -> int:
    """Replace every plain linear layer of a model; returns how many. None, where this machine or dtype cannot.

    A layer's own weight is dropped, unless something else holds it too (a tied embedding).
    """
    layers = [(name, module) for name, module in model.named_modules() if type(module) is torch.nn.Linear]
    if not layers or not _is_supported(layers[0][1].weight):
        return 0
    for name, layer in layers:
        parent, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(parent), attribute, PackedLinear(layer.weight, layer.bias))
    return len(layers)


def packing_keeps_bits(model: torch.nn.Module) -> bool:
    """Whether a packed layer of every shape in the model gives a row the same bits alone and in any batch."""
    shapes = {tuple(m.weight.shape): m.weight for m in model.modules() if type(m) is torch.nn.Linear}
    return all(_is_supported(weight) and _keeps_bits(weight) for weight in shapes.values())


def _keeps_bits(weight: torch.Tensor) -> bool:
    layer = PackedLinear(weight, None)
    num_rows = 257 if weight.shape[0] <= _WIDE else 65
    rows = torch.randn((num_rows, weight.shape[1]), generator=torch.Generator().manual_seed(0)).to(weight.dtype)
    together = layer(rows)
    slices = [slice(first, min(first + count, num_rows)) for first, count in _SLICES if first < num_rows]
    return all(torch.equal(layer(rows[part]), together[part]) for part in slices)


def _is_supported(weight: torch.Tensor) -> bool:
    if weight.device.type != "cpu" or weight.dtype not in (torch.float32, *_FEATURES):
        return False
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    feature = _FEATURES.get(weight.dtype)
    try:
        if feature is not None and not getattr(torch.ops.mkldnn, feature)():
            return False
        sample = weight[:16, :16].contiguous()
        rows = torch.eye(sample.shape[1], dtype=weight.dtype)
        return torch.allclose(PackedLinear(sample, None)(rows), sample.T, rtol=1e-2)
    except (RuntimeError, AttributeError) as error:  # a torch built without these operators
        logging.getLogger(__name__).warning("linear layers are not packed: %s", str(error).partition("\n")[0])
        return False
