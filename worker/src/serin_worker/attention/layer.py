"""What attention works on: one layer's pages, and the sequences of one step.

Knows nothing about models, schedules or how attention is computed.
"""

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch

from serin_worker.attention.device_step import DeviceStep


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """Shape and arithmetic of one attention layer, as seen when the model was probed."""

    num_query_heads: int
    num_kv_heads: int
    key_dim: int
    value_dim: int
    scale: float
    window: int = 0
    """A query sees this many positions, its own included; 0: all."""
    softcap: float = 0.0
    """Scores become ``softcap * tanh(score / softcap)``; 0: they stay."""
    has_sinks: bool = False
    """Whether every query head has a learned logit that takes part in the softmax and adds nothing."""


@dataclass(slots=True)
class LayerCache:
    """Pages of one layer. Their inner layout belongs to the implementation that made them."""

    spec: LayerSpec
    keys: torch.Tensor
    values: torch.Tensor
    sinks: torch.Tensor | None = None


@dataclass(slots=True)
class StepSequences:
    """The rows of one step, packed sequence after sequence; padding rows follow the last.

    All are int32 on the CPU: ``starts`` [n + 1] first row of each sequence, ``contexts`` [n] its length once this
    step's rows are in the cache, ``tables`` [n, any] its blocks.
    """

    starts: torch.Tensor
    contexts: torch.Tensor
    tables: torch.Tensor
    on_device: DeviceStep | None = field(default=None, repr=False, compare=False, kw_only=True)
    """The same step on a device, left here by the first layer that attends in it for those after it: one copy a step,
    since every step has an object of its own. Whoever changes the tensors above makes a new one."""

    @property
    def num_rows(self) -> int:
        """Rows that are not padding."""
        return int(self.starts[-1])


class Attending(Protocol):
    """What computes attention in a step."""

    def attend(
        self, cache: LayerCache, step: StepSequences, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        """Write keys and values [rows, kv heads, dim] and read for query [rows, heads, dim]: [rows, heads * dim].

        A row's result is bit for bit the same in every batch and chunking. Padding rows give zeros.
        """
        ...


class PagedAttention(Attending, Protocol):
    """How keys and values are kept and read. All methods work in place on pages they laid out."""

    layout: str
    """Names the order of numbers in a page; part of the KV digest."""

    def allocate(self, spec: LayerSpec, num_blocks: int, block_size: int, dtype: torch.dtype) -> LayerCache:
        """Pages for one layer."""
        ...

    def copy_blocks(self, cache: LayerCache, sources: list[int], targets: list[int]) -> None:
        """Copy pages inside one layer."""
        ...


@runtime_checkable
class DeviceAttention(PagedAttention, Protocol):
    """One that can also read from its device whose rows a step has, so that the step can be recorded and repeated."""

    def attend_device(
        self, cache: LayerCache, step: DeviceStep, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        """As :meth:`PagedAttention.attend`; what is launched follows from shapes and ``step``'s numbers alone."""
        ...
