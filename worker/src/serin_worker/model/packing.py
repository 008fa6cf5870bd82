"""Linear layers with weights laid out once for oneDNN, instead of at every call; for types without a kernel of ours.

A packed layer is up to twice as fast for the few rows of a decode. A row's bits may depend on how many rows it is
computed with: whether they do is found out (`row_bits.py`), not assumed. A processor that cannot compute in the
weights' own type gets them packed in float32: twice the memory, and up to seven times as fast as emulating it. Knows
nothing about what the layers are part of.
"""

import logging
from collections.abc import Callable, Iterator
from functools import cache

import torch

from serin_worker.model.mapped_pages import MappedPages
from serin_worker.model.row_bits import mirrored, row_multiple

_PACKED_ROWS = 16
_FEATURES = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}


class PackedLinear(torch.nn.Module):
    """``x @ weight.T + bias`` with a packed weight; rows come and go in the weight's type, whatever is computed in."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self._dtype = computed_in(weight.dtype)
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().to(self._dtype), _PACKED_ROWS)
        self._bias = None if bias is None else bias.detach().to(self._dtype)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """[..., in] to [..., out]."""
        computed: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            rows.to(self._dtype), self._packed, self._bias, "none", [], ""
        )
        return computed.to(rows.dtype)


def computed_in(dtype: torch.dtype) -> torch.dtype:
    """The type in which this machine's CPU multiplies matrices that are kept in ``dtype``: the same, or float32."""
    feature = _FEATURES.get(dtype)
    try:
        return dtype if feature is None or getattr(torch.ops.mkldnn, feature)() else torch.float32
    except (RuntimeError, AttributeError):  # a torch built without these operators: nothing is packed
        return dtype


def pack_linears(model: torch.nn.Module, progress: Callable[[float], None] | None = None) -> int:
    """Replace every plain linear layer of a model; returns how many. None, where this machine or dtype cannot.

    A layer's own weight is dropped, unless something else holds it too (a tied embedding). ``progress`` is called with
    the fraction of layers done.
    """
    layers = [name for name, module in model.named_modules() if type(module) is torch.nn.Linear]
    if not layers or not _is_supported(_plain_layers(model)):
        return 0
    mapped = MappedPages()
    for number, name in enumerate(layers, start=1):
        parent_name, _, attribute = name.rpartition(".")
        parent = model.get_submodule(parent_name)
        layer = getattr(parent, attribute)
        setattr(parent, attribute, PackedLinear(layer.weight, layer.bias))
        mapped.let_go(layer.parameters())
        if progress:
            progress(number / len(layers))
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()  # what is left no longer holds a mapped file in memory
    return len(layers)


def packed_row_multiple(model: torch.nn.Module) -> int | None:
    """The smallest number of rows in whose multiples packed layers give a row the same bits always; None: in none.

    Looks at a layer of every shape in the model, with weights of its own: what kernels do depends on shapes alone.
    """
    layers = list(_plain_layers(model))
    if not layers or not _is_supported(layers):
        return None
    shapes = frozenset((*layer.weight.shape, layer.weight.dtype) for layer in layers)
    return _row_multiple(shapes, torch.get_num_threads())


@cache
def _row_multiple(shapes: frozenset[tuple[int, int, torch.dtype]], num_threads: int) -> int | None:
    """The same for layers of these (outputs, inputs, type), computed by so many threads; found out once a process."""
    largest = 1
    for num_outputs, num_inputs, dtype in shapes:
        packed = PackedLinear(mirrored(num_outputs, num_inputs, dtype), None)
        multiple = row_multiple(packed, num_inputs, num_outputs, dtype)
        if multiple is None:
            return None
        largest = max(largest, multiple)
    return largest


def _plain_layers(model: torch.nn.Module) -> Iterator[torch.nn.Linear]:
    return (module for module in model.modules() if type(module) is torch.nn.Linear)


def _is_supported(layers: "Iterator[torch.nn.Linear] | list[torch.nn.Linear]") -> bool:
    weight = next(iter(layers)).weight
    if weight.device.type != "cpu" or weight.dtype not in (torch.float32, *_FEATURES):
        return False
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    try:
        sample = weight[:16, :16].contiguous()
        rows = torch.eye(sample.shape[1], dtype=weight.dtype)
        return torch.allclose(PackedLinear(sample, None)(rows), sample.T, rtol=1e-2)
    except (RuntimeError, AttributeError) as error:  # a torch built without these operators
        logging.getLogger(__name__).warning("linear layers are not packed: %s", str(error).partition("\n")[0])
        return False
