"""The seam to transformers: the attention function its models call, by the name ``serin_paged``.

Models never see a cache or a mask; each attention module is bound to its pages, and the rows of the step are set just
before the model runs. By the name ``serin_recorded`` it records as well which masks a model asks for. Knows nothing
about schedules.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface

from serin_worker.attention.device_step import DeviceStep
from serin_worker.attention.layer import Attending, DeviceAttention, LayerCache, LayerSpec, StepSequences
from serin_worker.errors import ModelRefused

NAME = "serin_paged"
RECORDED = "serin_recorded"
"""For models with numbers: transformers looks into positions before it makes a mask."""
_SLOT = "serin_paged_layer"
_UNSUPPORTED = ("position_bias", "block_indices", "indices", "score_mod", "block_mask")
_recorder: ContextVar["Recording | None"] = ContextVar("recorder", default=None)


@dataclass(frozen=True, slots=True)
class Recording:
    """What a model's run asked of its attention.

    Attributes:
        layers: attention modules in order, and what each said.
        mask_windows: windows of the masks that were asked for, 0 for all positions; empty if not by ``RECORDED``.
    """

    layers: dict[torch.nn.Module, LayerSpec] = field(default_factory=dict)
    mask_windows: set[int] = field(default_factory=set)


class PagedStep:
    """What every bound module of a model reads during a forward pass."""

    def __init__(self, attention: Attending) -> None:
        self.attention = attention
        self.sequences: StepSequences | DeviceStep | None = None
        self.num_layers_run = 0
        """Grows with every layer, also within a step."""


class BoundLayer:
    """An attention module's pages and the step that it runs in."""

    def __init__(self, cache: LayerCache, step: PagedStep) -> None:
        self.cache = cache
        self.step = step

    @property
    def sequences(self) -> StepSequences:
        """Whose rows the step has; of a step that is planned here, not of one that a device reads."""
        assert isinstance(self.step.sequences, StepSequences), "the model ran outside a step"
        return self.step.sequences

    def __call__(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, sinks: torch.Tensor | None
    ) -> torch.Tensor:
        """Attention of a step's rows, as transformers' attention functions are called."""
        if sinks is not None and self.cache.sinks is None:
            self.cache.sinks = sinks.detach().float().contiguous()
        rows = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
        if isinstance(self.step.sequences, DeviceStep):
            assert isinstance(self.step.attention, DeviceAttention)
            output = self.step.attention.attend_device(self.cache, self.step.sequences, *rows)
        else:
            output = self.step.attention.attend(self.cache, self.sequences, *rows)
        self.step.num_layers_run += 1
        return output.view(1, output.shape[0], self.cache.spec.num_query_heads, self.cache.spec.value_dim)


def register() -> None:
    """Make the names known to transformers; may be called again."""
    AttentionInterface.register(NAME, _forward)
    AttentionInterface.register(RECORDED, _forward)
    AttentionMaskInterface.register(RECORDED, _note_mask)


def bind(module: torch.nn.Module, cache: LayerCache, step: PagedStep) -> None:
    """Give an attention module its pages."""
    module.__dict__[_SLOT] = BoundLayer(cache, step)


def release(module: torch.nn.Module) -> None:
    """Take an attention module's pages from it."""
    module.__dict__.pop(_SLOT, None)


def bound_to(module: torch.nn.Module) -> BoundLayer | None:
    """What an attention module was given last."""
    bound: BoundLayer | None = module.__dict__.get(_SLOT)
    return bound


@contextmanager
def recording() -> Iterator[Recording]:
    """Collect the attention modules that run inside, in order, instead of computing attention."""
    found = Recording()
    token = _recorder.set(found)
    try:
        yield found
    finally:
        _recorder.reset(token)


def _forward(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    found = _recorder.get()
    if found is not None:
        found.layers[module] = _spec(module, query, key, value, attention_mask, kwargs)
        return query.new_zeros((1, query.shape[2], query.shape[1], value.shape[3])), None
    return module.__dict__[_SLOT](query, key, value, _sinks(kwargs)), None


def _note_mask(*_: Any, local_size: int | None = None, **__: Any) -> None:
    """In the place of transformers' functions that make masks; the model sees none."""
    if found := _recorder.get():
        found.mask_windows.add(int(local_size or 0))


def _spec(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    kwargs: Mapping[str, Any],
) -> LayerSpec:
    kind = type(module).__name__
    for name in _UNSUPPORTED:
        if kwargs.get(name) is not None:
            raise ModelRefused(f"{kind} uses {name!r} in its attention, which paged attention does not have")
    if attention_mask is not None:
        raise ModelRefused(f"{kind} builds its own attention mask, which paged attention cannot honour")
    if kwargs.get("is_causal") is False or getattr(module, "is_causal", True) is False:
        raise ModelRefused(f"{kind} attends to later positions; only causal attention is served")
    if query.shape[1] % key.shape[1]:
        raise ModelRefused(f"{kind} has {query.shape[1]} query heads over {key.shape[1]} key heads")
    scale = kwargs.get("scaling")
    return LayerSpec(
        num_query_heads=query.shape[1],
        num_kv_heads=key.shape[1],
        key_dim=key.shape[3],
        value_dim=value.shape[3],
        scale=float(scale) if scale is not None else float(query.shape[3]) ** -0.5,
        window=int(kwargs.get("sliding_window") or 0),
        softcap=float(kwargs.get("softcap") or 0.0),
        has_sinks=_sinks(kwargs) is not None,
    )


def _sinks(kwargs: Mapping[str, Any]) -> torch.Tensor | None:
    """The learned logits of attention sinks, if the model passes any."""
    sinks: torch.Tensor | None = kwargs.get("s_aux")
    return sinks if sinks is not None else kwargs.get("sinks")
