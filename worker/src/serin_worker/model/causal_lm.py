"""A loaded model bound to its pages: token ids and a step's sequences in, logits out.

Knows nothing about requests, schedules or sampling.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.nn import Linear
from transformers import PreTrainedModel

from serin_worker.attention import interface
from serin_worker.attention.device_step import DeviceStep
from serin_worker.attention.interface import PagedStep
from serin_worker.attention.layer import LayerCache, LayerSpec, PagedAttention, StepSequences
from serin_worker.attention.native import NativePagedAttention
from serin_worker.config import Quantization
from serin_worker.errors import ModelRefused
from serin_worker.model import fp8, int8_layers, merged_linear
from serin_worker.model.fused_layer import fuse_residuals
from serin_worker.model.native_layer import replace_layers
from serin_worker.model.native_linear import Kind, replace_linears
from serin_worker.model.own_code import own_code_of
from serin_worker.model.packing import pack_linears, packed_row_multiple
from serin_worker.model.positions import positions_of
from serin_worker.model.products import Product, find_products
from serin_worker.model.rotation import replace_rotation
from serin_worker.model.siblings import Siblings, copy_if_needed, find_siblings
from serin_worker.model.small_kernels import kernels_for
from serin_worker.model.small_modules import replace_small_modules
from serin_worker.model.stored_linear import StoredLinear
from serin_worker.native.library import has_kernels

_log = logging.getLogger(__name__)
_PLAIN_ROW_MULTIPLE = 16
_QUANTIZED_SHARE = 0.8
"""Of the time that layers take to be replaced: quantizing; the rest is packing."""
_SEEN_ROWS = 32
"""Enough for experts to be given some of them each, and not all."""
_LAYER_TYPES = {"full_attention", "sliding_attention"}


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What the engine needs to know about a model before its pages exist."""

    layers: tuple[LayerSpec, ...]
    vocabulary_size: int
    context_length: int
    end_ids: frozenset[int]
    """Ids by which the model ends, all in the vocabulary."""
    limit: str = ""
    """Why ``context_length`` is less than the model's positions; empty: it is not."""

    @property
    def window(self) -> int:
        """Positions that a token sees in any layer, its own included; 0: all."""
        windows = [layer.window for layer in self.layers]
        return max(windows) if all(windows) else 0

    def block_bytes(self, block_size: int, dtype: torch.dtype) -> int:
        """Bytes of one KV block over all layers."""
        numbers = sum(layer.num_kv_heads * (layer.key_dim + -(-layer.value_dim // 16) * 16) for layer in self.layers)
        return numbers * block_size * dtype.itemsize


class CausalModel:
    """Runs packed rows of several sequences in one pass."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._modules = _probe(model)
        self.linears = "plain"
        """How linear layers are computed: plain, packed, native, merged, int8, fp8, or two of these (fp8+native)."""
        self._caches: list[LayerCache] = []
        self._step: PagedStep | None = None
        self._attention: PagedAttention | None = None
        self.shape = _shape(model, self._modules)
        _tell_dropped_ids(model, self.shape)
        if self.shape.limit:
            _log.warning(
                "%s: the context holds %d tokens: %s", model.name_or_path, self.shape.context_length, self.shape.limit
            )

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._model.device

    @property
    def dtype(self) -> torch.dtype:
        """What the weights are."""
        return self._model.dtype

    @property
    def is_quantized(self) -> bool:
        """Whether some linear layers take rows in 8 bits."""
        return self.linears.startswith(("int8", "fp8"))

    @property
    def is_native(self) -> bool:
        """Whether all that takes time on a CPU is done by kernels of ours."""
        return not {"plain", "packed", "merged"} & set(self.linears.split("+"))

    @property
    def num_layers_run(self) -> int:
        """Attention layers computed since it was bound; grows within a step."""
        return self._step.num_layers_run if self._step else 0

    @property
    def module(self) -> PreTrainedModel:
        """The model itself, for what replaces parts of it."""
        return self._model

    def prepare(
        self, *, keep_bits: bool, quantize: Quantization = "none", progress: Callable[[float], None] | None = None
    ) -> int | None:
        """Replace layers by faster ones that compute the same, where this machine can, or nearly the same, where asked.

        Args:
            keep_bits: leave out what would let a row's bits depend on its batch.
            quantize: what becomes of linear layers.
            progress: called with the fraction of layers done.

        Returns:
            The number of rows in whose multiples a row's bits do not depend on its batch; None: they do.

        Raises:
            KernelUnavailable: there is no compiler, and ``quantize`` needs one.
            ModelRefused: its code does not run with layers that are replaced.
        """
        if kernels := kernels_for(self.device):
            replace_small_modules(self._model, kernels)
            replace_rotation(self._model, kernels)
        if quantize != "none":
            self._quantize(quantize, _part(progress, 0.0, _QUANTIZED_SHARE))
            self._copy_if_needed()
            progress = _part(progress, _QUANTIZED_SHARE, 1.0)
        groups = self._siblings(Linear)
        if not groups:
            if progress:
                progress(1.0)
            return 1
        if self.device.type == "cpu" and self.dtype is torch.bfloat16 and has_kernels():
            replace_linears(self._model, Kind.BFLOAT16, groups, progress)
            self._note("native")
            return 1
        if self.device.type == "cuda" and self.dtype in merged_linear.DTYPES:
            self.merge(groups, progress)
            return _PLAIN_ROW_MULTIPLE
        multiple = packed_row_multiple(self._model)
        if (multiple is not None or not keep_bits) and pack_linears(self._model, progress):
            self._note("packed")
            return multiple
        return _PLAIN_ROW_MULTIPLE

    def merge(self, groups: list[Siblings], progress: Callable[[float], None] | None = None) -> None:
        """Compute plain siblings by one product each."""
        if merged_linear.merge_linears(self._model, groups, progress):
            self._copy_if_needed()
            self._note("merged")
        self._free_replaced()
        if progress:
            progress(1.0)

    def _free_replaced(self) -> None:
        """Give back the device's memory of layers that are gone: how much is free is going to be asked."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _note(self, linears: str) -> None:
        self.linears = linears if self.linears == "plain" else f"{self.linears}+{linears}"

    def _quantize(self, quantize: Quantization, progress: Callable[[float], None] | None) -> None:
        """Replace the layers that the checkpoint holds quantized; where it holds none, those that may be."""
        groups = self._siblings(StoredLinear) or self._siblings(Linear)
        if quantize == "int8" and self.device.type == "cpu":
            replace_linears(self._model, Kind.INT8, groups, progress)
        elif quantize == "int8":
            int8_layers.quantize_linears(self._model, groups, progress)
        else:
            head = self._model.get_output_embeddings()  # type: ignore[no-untyped-call]
            kept = {name for name, module in self._model.named_modules() if module is head and type(head) is Linear}
            groups = [group for group in groups if kept.isdisjoint(group)]
            fp8.quantize_linears(self._model, groups, self.dtype, progress)
        self.linears = quantize
        self._free_replaced()

    def _siblings(self, kind: type[torch.nn.Module]) -> list[Siblings]:
        if not any(type(module) is kind for module in self._model.modules()):
            return []
        with own_code_of(self._model):
            return find_siblings(self._model, self._record, kind)

    def _copy_if_needed(self) -> None:
        with own_code_of(self._model):
            copy_if_needed(self._model, self._record)

    def _record(self) -> None:
        """A few tokens through the model, without attention."""
        with interface.recording():
            _run(self._model)

    def find_products(self) -> tuple[int, list[Product]]:
        """Rows of a run without attention, and the matrix products that torch computes in it."""
        with own_code_of(self._model), interface.recording():
            return _SEEN_ROWS, find_products(lambda: _run(self._model, _SEEN_ROWS, _SEEN_ROWS))

    def bind(self, attention: PagedAttention, num_blocks: int, block_size: int) -> None:
        """Make pages for every layer, in place of those that it had."""
        self._step, self._attention = PagedStep(attention), attention
        if self._caches:
            self._caches = []
            for module in self._modules:
                interface.release(module)
            self._free_replaced()
        for module, spec in self._modules.items():
            cache = attention.allocate(spec, num_blocks, block_size, self.dtype)
            interface.bind(module, cache, self._step)
            self._caches.append(cache)

    def fuse_layers(self) -> int:
        """Replace layers, bound to their pages, by ones of fewer calls where that keeps the bits; returns how many."""
        assert self._attention is not None, "bind() comes first"
        if isinstance(self._attention, NativePagedAttention):
            return replace_layers(self._model, self._attention)
        return fuse_residuals(self._model)

    @torch.inference_mode()
    def forward(
        self,
        token_ids: torch.Tensor,
        positions: torch.Tensor,
        sequences: StepSequences | DeviceStep,
        rows: torch.Tensor,
    ) -> torch.Tensor:
        """Logits [len(rows), vocabulary] of the chosen rows; all of this step's keys and values are in the pages after.

        Args:
            token_ids: [T] int64 or int32; rows after those of ``sequences`` are padding.
            positions: [T] int64 or int32.
            sequences: whose rows they are.
            rows: [any] int64, rows whose logits are wanted.
        """
        assert self._step is not None, "bind() comes first"
        self._step.sequences = sequences
        output = self._model(
            input_ids=token_ids[None], position_ids=positions[None], use_cache=False, logits_to_keep=rows
        )
        logits: torch.Tensor = output.logits[0]
        return logits

    def peak_bytes(self, num_rows: int, num_logits: int) -> int:
        """Memory of a device that a step of so many rows takes beside weights and pages, as measured; 0 on the CPU."""
        if self.device.type != "cuda":
            return 0
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        with own_code_of(self._model), interface.recording():
            _run(self._model, num_rows, num_logits)
        return int(torch.cuda.max_memory_allocated(self.device) - before)

    def copy_blocks(self, copies: list[tuple[int, int]]) -> None:
        """Copy blocks (from, to) in every layer."""
        assert self._attention is not None, "bind() comes first"
        sources, targets = [pair[0] for pair in copies], [pair[1] for pair in copies]
        for cache in self._caches:
            self._attention.copy_blocks(cache, sources, targets)


def shape_of(model: PreTrainedModel) -> ModelShape:
    """The shape of a model that has no numbers yet.

    Raises:
        ModelRefused: it does not run without numbers, or is not supported.
    """
    return _shape(model, _probe(model))


def _shape(model: PreTrainedModel, modules: dict[torch.nn.Module, LayerSpec]) -> ModelShape:
    config = model.config.get_text_config()
    positions = positions_of(config)
    return ModelShape(
        layers=tuple(modules.values()),
        vocabulary_size=int(config.vocab_size),
        context_length=positions.count,
        end_ids=frozenset(i for i in _end_ids(model)[1] if 0 <= i < config.vocab_size),
        limit=positions.limit,
    )


def _probe(model: PreTrainedModel) -> dict[torch.nn.Module, LayerSpec]:
    """Run a few tokens to see which modules attend, and how.

    Raises:
        ModelRefused: some layer does not attend through transformers' attention interface, or not causally.
    """
    config = model.config.get_text_config()
    kind = type(model).__name__
    unknown = set(getattr(config, "layer_types", None) or ()) - _LAYER_TYPES
    if unknown:
        raise ModelRefused(f"{kind} has layers of type {sorted(unknown)}; supported: {sorted(_LAYER_TYPES)}")
    with own_code_of(model):
        found = _recorded(model)
    if len(found.layers) != config.num_hidden_layers:
        raise ModelRefused(
            f"{kind} has {config.num_hidden_layers} layers and {len(found.layers)} of them attend through "
            "transformers' attention interface; only models where all do are served"
        )
    layers = _as_masked(kind, found)
    layer_types = getattr(config, "layer_types", None) or ()
    for kind_of_layer, spec in zip(layer_types, layers.values(), strict=False):
        if kind_of_layer == "sliding_attention" and not spec.window:
            raise ModelRefused(f"{kind} has sliding layers but does not say how wide their window is")
    return layers


def _recorded(model: PreTrainedModel) -> interface.Recording:
    """What a few tokens ask of attention; of masks too, where the model has numbers."""
    has_numbers = model.device.type != "meta"
    if has_numbers:
        model.set_attn_implementation(interface.RECORDED)
    try:
        with interface.recording() as found:
            _run(model)
    finally:
        if has_numbers:
            model.set_attn_implementation(interface.NAME)
    return found


def _as_masked(kind: str, found: interface.Recording) -> dict[torch.nn.Module, LayerSpec]:
    """The layers with the windows that their masks have.

    Transformers' own functions attend by masks. The window that is handed to them beside is for kernels which take no
    mask, and a few architectures hand over none, or one that their masks do not have.

    Raises:
        ModelRefused: a layer's window is none of several masks'.
    """
    if len(found.mask_windows) == 1:
        (window,) = found.mask_windows
        return {module: replace(spec, window=window) for module, spec in found.layers.items()}
    for spec in found.layers.values():
        if found.mask_windows and spec.window not in found.mask_windows:
            raise ModelRefused(
                f"{kind} has a layer with a window of {spec.window} positions (0: all) and masks with "
                f"{sorted(found.mask_windows)}; only models whose layers and masks agree are served"
            )
    return found.layers


def _part(progress: Callable[[float], None] | None, start: float, end: float) -> Callable[[float], None] | None:
    """Progress of a part, told as that of the whole."""
    return None if progress is None else lambda fraction: progress(start + fraction * (end - start))


@torch.inference_mode()
def _run(model: PreTrainedModel, num_rows: int = 4, num_logits: int = 1) -> None:
    """Some tokens, no two alike, through a model whose attention is recorded."""
    positions = torch.arange(num_rows, device=model.device)[None]
    ids = positions % model.config.get_text_config().vocab_size
    kept = torch.arange(num_rows - num_logits, num_rows)
    model(input_ids=ids, position_ids=positions, use_cache=False, logits_to_keep=kept)


def _end_ids(model: PreTrainedModel) -> tuple[str, frozenset[int]]:
    """The file that says by which ids the model ends, and the ids, as they stand there."""
    generation = getattr(model, "generation_config", None)
    is_own = (Path(model.name_or_path or "") / "generation_config.json").exists()  # else it is made of config.json
    for config in (generation, model.config.get_text_config(), model.config):
        found = getattr(config, "eos_token_id", None)
        if found is not None:
            file = "generation_config.json" if config is generation and is_own else "config.json"
            return file, frozenset(int(i) for i in (found if isinstance(found, (list, tuple)) else (found,)))
    return "config.json", frozenset()


def _tell_dropped_ids(model: PreTrainedModel, shape: ModelShape) -> None:
    """Published checkpoints name end ids that they have no logits for; nothing can draw them, and they are left out."""
    file, ids = _end_ids(model)
    if dropped := sorted(ids - shape.end_ids):
        _log.warning(
            "%s/%s: eos_token_id names %s, outside the vocabulary of %d ids: left out, the model never ends by it",
            model.name_or_path,
            file,
            ", ".join(map(str, dropped)),
            shape.vocabulary_size,
        )
