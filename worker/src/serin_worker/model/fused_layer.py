"""Decoder layers whose residual sums are computed by the kernel of the norm that follows: two launches less in each.

Transformers' layers add between their modules, so a layer as a whole is replaced, as it is on the CPU, and calls the
same modules. The last sum of a layer is taken with the first norm of the next one, which is told of it. Layers are
replaced only if they give the same bits on random rows. Knows nothing about attention, or about how norms are computed.
"""

from typing import Any, Protocol, runtime_checkable

import torch

from serin_worker.attention import interface
from serin_worker.attention.interface import PagedStep
from serin_worker.attention.layer import LayerCache, StepSequences
from serin_worker.model.layer_kinds import LAYER, MODEL_TYPES
from serin_worker.model.small_modules import random_rows

_NORMS = ("input_layernorm", "post_attention_layernorm")
_TRIED_ROWS = 5


@runtime_checkable
class AddingNorm(Protocol):
    """A norm with a kernel that also adds."""

    def __call__(self, rows: torch.Tensor, /) -> torch.Tensor:
        """[..., width]."""
        ...

    def add(self, rows: torch.Tensor, residual: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Their sum, and what the norm makes of it."""
        ...


class NormAhead(torch.nn.Module):
    """A norm that may have been computed together with the sum that it is given.

    Given another tensor than the last sum it computes anew, so that a wrong guess costs time only.
    """

    def __init__(self, norm: AddingNorm) -> None:
        super().__init__()
        self.norm = norm
        self._total: torch.Tensor | None = None
        self._normed: torch.Tensor | None = None

    def add(self, rows: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """Their sum, which this is going to be given next."""
        self._total, self._normed = self.norm.add(rows, residual)
        return self._total

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """[..., width]."""
        normed = self._normed if rows is self._total else None
        self._total = self._normed = None  # nothing of a step stays in memory
        return self.norm(rows) if normed is None else normed


class FusedDecoderLayer(torch.nn.Module):
    """Stands where a decoder layer stood, and holds it.

    Args:
        layer: its norms are NormAhead.
        following: the norm that the layer's result is given to.
    """

    def __init__(self, layer: torch.nn.Module, following: NormAhead) -> None:
        super().__init__()
        self.layer = layer
        self._following = (following,)  # not a part of this one

    def forward(self, hidden_states: torch.Tensor, *_: Any, **given: Any) -> torch.Tensor:
        """[1, tokens, width], as the layer itself."""
        layer: Any = self.layer
        attended, _ = layer.self_attn(hidden_states=layer.input_layernorm(hidden_states), **given)
        total = layer.post_attention_layernorm.add(attended, hidden_states)
        fed = layer.mlp(layer.post_attention_layernorm(total))
        return self._following[0].add(fed, total)


def fuse_residuals(model: torch.nn.Module) -> int:
    """Replace the decoder layers of a bound model, if that keeps the bits of all of them; returns how many."""
    body: Any = getattr(model, "model", None)
    layers = list(getattr(body, "layers", ()))
    if getattr(model.config, "model_type", "") not in MODEL_TYPES or not layers or not _is_known(body, layers):
        return 0
    places = [(layer, name) for layer in layers for name in _NORMS] + [(body, "norm")]
    norms = [getattr(place, name) for place, name in places]
    right = [_tried(layer, layer) for layer in layers]
    ahead = [NormAhead(norm) for norm in norms]
    _set(places, ahead)
    fused = [FusedDecoderLayer(layer, ahead[2 * number + 2]) for number, layer in enumerate(layers)]
    found = [_tried(layer, one) for layer, one in zip(layers, fused, strict=True)]
    if not _is_same(right, found, norms, ahead):
        _set(places, norms)
        return 0
    for number, one in enumerate(fused):
        body.layers[number] = one
    return len(layers)


def _is_known(body: Any, layers: list[Any]) -> bool:
    norms = [getattr(layer, name, None) for layer in layers for name in _NORMS] + [getattr(body, "norm", None)]
    return all(isinstance(norm, torch.nn.Module) and isinstance(norm, AddingNorm) for norm in norms) and all(
        {child for child, _ in layer.named_children()} == LAYER and interface.bound_to(layer.self_attn)
        for layer in layers
    )


def _set(places: list[tuple[Any, str]], norms: list[Any]) -> None:
    for (place, name), norm in zip(places, norms, strict=True):
        setattr(place, name, norm)


def _is_same(
    right: list[torch.Tensor], found: list[torch.Tensor], norms: list[AddingNorm], ahead: list[NormAhead]
) -> bool:
    """Whether layers give the same, and the norms after them, which were told of it."""
    return all(
        torch.equal(one, other) and torch.equal(norms[2 * number + 2](one), ahead[2 * number + 2](other))
        for number, (one, other) in enumerate(zip(right, found, strict=True))
    )


class _Stand:
    """In the place of attention while a layer is tried: what a row attends to is its own value."""

    def attend(
        self, cache: LayerCache, step: StepSequences, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        spec = cache.spec
        return value.repeat_interleave(spec.num_query_heads // spec.num_kv_heads, 1).flatten(1)


@torch.inference_mode()
def _tried(layer: Any, run: Any) -> torch.Tensor:
    """What ``run`` makes of random rows; it is a layer, or calls its modules."""
    bound = interface.bound_to(layer.self_attn)
    assert bound is not None, "only bound layers are tried"
    step = PagedStep(_Stand())
    step.sequences = StepSequences(*(torch.tensor(one, dtype=torch.int32) for one in ([0, 1], [1], [[0]])))
    interface.bind(layer.self_attn, bound.cache, step)
    weight = layer.mlp.get_submodule("down_proj")
    like = next(layer.parameters())
    rows = random_rows((1, _TRIED_ROWS, weight.out_features), like)
    cos, sin = random_rows((2, 1, _TRIED_ROWS, bound.cache.spec.key_dim), like)
    try:
        result: torch.Tensor = run(rows, attention_mask=None, position_ids=None, position_embeddings=(cos, sin))
        return result
    finally:
        interface.bind(layer.self_attn, bound.cache, bound.step)
