"""Does a model fit into memory, and what would make it fit? Answered before anything is loaded.

Weights are counted as they lie once they are prepared, and while they are, the KV cache as it is asked for. Knows
nothing about flags: what would help is named by the configuration's fields.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from serin_mesh.engine_ranges import SHORT_REQUEST_TOKENS

from serin_worker.config import BadConfig, EngineConfig, Quantization
from serin_worker.errors import ModelRefused, NotEnoughMemory, Remedy
from serin_worker.model import fp8
from serin_worker.model.causal_lm import ModelShape, shape_of
from serin_worker.model.checkpoint import Checkpoint
from serin_worker.model.loading import DTYPES, Described
from serin_worker.model.memory import available_bytes, is_out_of_memory
from serin_worker.model.packing import computed_in
from serin_worker.model.stored_linear import StoredLinear
from serin_worker.model.verification import num_check_blocks
from serin_worker.native.library import has_kernels
from serin_worker.quantization import quantization_of

_SCALE_BYTES = 4
_SPARED = 0.05
"""Share of what is available that remedies leave for the activations of a step."""
_STORED_AS = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes."""

    weights: int
    cache: int

    @property
    def total(self) -> int:
        """Bytes of both."""
        return self.weights + self.cache


def check_fit(described: Described, config: EngineConfig, precision: str) -> None:
    """Refuse a model that does not fit.

    Raises:
        NotEnoughMemory: with both numbers, and what would make it fit.
        BadConfig: the KV cache is asked to be smaller than what is of use.
    """
    available = available_bytes(torch.device(config.device), described.checkpoint.weight_bytes)
    if _is_ample(described, config, precision, available):
        return
    shape = _shape(described)
    needed = _need(described, shape, config, precision)
    if needed.total > available:
        raise _refused(described, config, precision, available)


@contextmanager
def refusing(described: Described, config: EngineConfig, precision: str) -> Iterator[None]:
    """Memory that does not suffice within, although it seemed to, is told like a model that does not fit.

    Raises:
        NotEnoughMemory: with both numbers, what the system said, and what takes less.
    """
    available = available_bytes(torch.device(config.device), described.checkpoint.weight_bytes)
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        why = " ".join(str(error).split())[:200] or type(error).__name__
        if described.family.is_headless:
            raise _encoder_refused(described, precision, torch.device(config.device), available, why) from error
        raise _refused(described, config, precision, available, why) from error


def check_encoder_fit(described: Described, precision: str, device: torch.device) -> None:
    """Refuse a model of embeddings that does not fit; it has no KV cache and is not quantized.

    Raises:
        NotEnoughMemory: with both numbers.
    """
    available = available_bytes(device, described.checkpoint.weight_bytes)
    if weight_bytes(described, precision, "none", device) > available:
        raise _encoder_refused(described, precision, device, available)


def num_blocks(shape: ModelShape, dtype: torch.dtype, config: EngineConfig, reserved: int = 0) -> int:
    """KV blocks that a loaded model gets, beside ``reserved`` bytes that its steps take.

    Raises:
        BadConfig: asked for fewer than what is of use.
        NotEnoughMemory: asked for more than there is.
    """
    context_length = context_length_of(shape, config)
    if config.num_blocks is not None:
        config.check_num_blocks(context_length)
        return config.num_blocks
    device = torch.device(config.device)
    available = max(0, available_bytes(device) - reserved)
    block_bytes = shape.block_bytes(config.block_size, dtype)
    checked = num_check_blocks(config.block_size) * block_bytes
    budget = _least_cache(shape, config, block_bytes)
    if config.kv_bytes is None:
        share = 0.9 if device.type == "cuda" else 0.3
        per_sequence = -(-context_length // config.block_size)
        wanted = min(int(available * share), (per_sequence * config.max_num_sequences) * block_bytes)
        budget = max(budget, wanted)
    if max(budget, checked) > available:
        remedy: Remedy = {"kv_bytes": _advised(available) // block_bytes * block_bytes}
        raise NotEnoughMemory("the KV cache", max(budget, checked), available, (remedy,) if checked < budget else ())
    return budget // block_bytes


def context_length_of(shape: ModelShape, config: EngineConfig) -> int:
    """Most tokens of a sequence.

    Raises:
        BadConfig: the model has fewer positions than what is asked.
    """
    asked = config.context_length or shape.context_length
    if asked > shape.context_length:
        why = f" ({shape.limit})" if shape.limit else ""
        raise BadConfig("context_length", asked, f"1 to {shape.context_length}, the positions that the model has{why}")
    return asked


def weight_bytes(described: Described, precision: str, quantize: Quantization, device: torch.device) -> int:
    """Most bytes that weights take, from the start of loading on; what is mapped from a file and not kept is none.

    On a GPU nothing is mapped: all is loaded as it is, then made into what it becomes, layer by layer.
    """
    dtype = DTYPES[precision]
    model = described.model
    plain = {id(parameter): parameter.numel() for parameter in model.parameters()}
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    embedding = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    prepared, largest = 0, 0
    for module in model.modules():
        if not isinstance(module, (torch.nn.Linear, StoredLinear)):
            continue
        if id(module.weight) not in embedding:
            plain.pop(id(module.weight), None)
        is_stored = isinstance(module, StoredLinear)
        is_left = (quantize == "fp8" and module is head) or _holds_quantized(described.checkpoint)
        kind: Quantization = "none" if is_left and not is_stored else quantize
        taken = module.weight.numel() * _item_bytes(kind, dtype, device)
        taken += 0 if kind == "none" else _SCALE_BYTES * module.out_features
        prepared, largest = prepared + taken, max(largest, taken)
    prepared += sum(plain.values()) * dtype.itemsize
    if device.type == "cpu" and _STORED_AS.get(_common_type(described.checkpoint)) == precision:
        return prepared
    converted = sum(
        parameter.numel() * (dtype.itemsize if parameter.dtype.itemsize > 1 else 1) for parameter in model.parameters()
    )
    return max(prepared, converted + largest)


def _refused(
    described: Described, config: EngineConfig, precision: str, available: int, why: str = ""
) -> NotEnoughMemory:
    shape = _shape(described)
    needed = _need(described, shape, config, precision)
    room = _advised(min(available, needed.total - 1))  # what was too much must not be advised again
    remedies = tuple(_remedies(described, shape, config, precision, room))
    what = f"{described.checkpoint.folder} in {precision}"
    parts = f" (weights {needed.weights:,}, KV cache {needed.cache:,})" if shape else " (weights alone)"
    return NotEnoughMemory(what, needed.total, available, remedies, parts, why)


def _encoder_refused(
    described: Described, precision: str, device: torch.device, available: int, why: str = ""
) -> NotEnoughMemory:
    needed = weight_bytes(described, precision, "none", device)
    room = _advised(min(available, needed - 1))
    smaller = precision == "float32" and weight_bytes(described, "bfloat16", "none", device) <= room
    remedies: tuple[Remedy, ...] = ({"precision": "bfloat16"},) if smaller else ()
    return NotEnoughMemory(f"{described.checkpoint.folder} in {precision}", needed, available, remedies, why=why)


def _advised(num_bytes: int) -> int:
    """How much of so many bytes a remedy may take."""
    return int(num_bytes * (1 - _SPARED))


def _holds_quantized(checkpoint: Checkpoint) -> bool:
    return checkpoint.quantization is not None and checkpoint.quantization.block is None


def _common_type(checkpoint: Checkpoint) -> str:
    """What all numbers are saved in that are not quantized; empty: in several types."""
    stored = checkpoint.quantization
    kinds = {
        entry.dtype
        for name, entry in checkpoint.tensors.items()
        if entry.dtype in _STORED_AS and not (stored and stored.is_scale(name))
    }
    return kinds.pop() if len(kinds) == 1 else ""


def _item_bytes(quantize: Quantization, dtype: torch.dtype, device: torch.device) -> int:
    if quantize == "int8" or (quantize == "fp8" and fp8.multiplies_e4m3(device)):
        return 1
    is_emulated = device.type == "cpu" and not (dtype is torch.bfloat16 and has_kernels())
    return (computed_in(dtype) if is_emulated else dtype).itemsize


def _is_ample(described: Described, config: EngineConfig, precision: str, available: int) -> bool:
    """Whether half of the memory suffices by a count that is too high: an exact one takes half a second of a start."""
    text = described.config.get_text_config()
    num_heads = getattr(text, "num_attention_heads", None)
    if not isinstance(num_heads, int):
        return False  # an architecture that does not say how large its cache is
    widest = max(text.hidden_size, num_heads * (getattr(text, "head_dim", None) or 0))
    token_bytes = 2 * text.num_hidden_layers * widest * DTYPES[precision].itemsize
    asked = config.num_blocks * config.block_size if config.num_blocks is not None else config.context_length
    cache = config.kv_bytes if config.kv_bytes is not None else (asked or SHORT_REQUEST_TOKENS) * token_bytes
    return _need(described, None, config, precision).weights + cache <= available // 2


def _need(described: Described, shape: ModelShape | None, config: EngineConfig, precision: str) -> Need:
    quantize = quantization_of(described.checkpoint, config, precision)
    weights = weight_bytes(described, precision, quantize, torch.device(config.device))
    return Need(weights, _asked_cache(shape, config, precision) if shape else 0)


def _asked_cache(shape: ModelShape, config: EngineConfig, precision: str) -> int:
    """Bytes of KV blocks that there must be; without a wish, those of the least that is of use.

    Before them, and at least as many, are those of the comparison with itself.
    """
    block_bytes = shape.block_bytes(config.block_size, DTYPES[precision])
    checked = num_check_blocks(config.block_size) * block_bytes
    if config.num_blocks is not None:
        config.check_num_blocks(context_length_of(shape, config))
        return max(checked, config.num_blocks * block_bytes)
    return max(checked, _least_cache(shape, config, block_bytes))


def _least_cache(shape: ModelShape, config: EngineConfig, block_bytes: int) -> int:
    """``kv_bytes``, or what must be there at least."""
    context_length = context_length_of(shape, config)
    least = config.least_num_blocks(context_length) * block_bytes
    if config.kv_bytes is None:
        return least
    if config.kv_bytes < least:
        raise BadConfig("kv_bytes", config.kv_bytes, f"{least} or more, {config.least_cache(context_length)}")
    return config.kv_bytes


def _remedies(
    described: Described, shape: ModelShape | None, config: EngineConfig, precision: str, available: int
) -> Iterator[Remedy]:
    """Changes that make it fit, each by itself, fewest fields first; at most two."""
    found = 0
    for change in _changes(described, config, precision):
        smaller = replace(config, **change)
        now = str(change.get("precision", precision))
        try:
            needed = _need(described, shape, smaller, now)
        except (BadConfig, ModelRefused):
            continue
        if needed.total > available and shape is not None:
            room = available - needed.weights
            change = change | _smaller_cache(shape, smaller, now, room)
            if "kv_bytes" not in change and "context_length" not in change:
                continue
        elif needed.total > available:
            continue
        yield change
        found += 1
        if found == 2:
            return


def _changes(described: Described, config: EngineConfig, precision: str) -> Iterator[dict[str, Any]]:
    halves = {"precision": "bfloat16"} if precision == "float32" else {}
    stored = described.checkpoint.quantization
    is_free = config.quantize == "none" and (stored is None or stored.block is not None)
    is_fp8_smaller = fp8.multiplies_e4m3(torch.device(config.device))
    quarters = {"quantize": "fp8" if is_fp8_smaller else "int8"} if is_free else {}
    yield {}
    if quarters:
        yield quarters
    if halves:
        yield halves
    if halves and quarters:
        yield halves | quarters


def _smaller_cache(shape: ModelShape, config: EngineConfig, precision: str, room: int) -> dict[str, Any]:
    """A KV cache that fits into ``room`` bytes and is of use; empty: none is."""
    block_bytes = shape.block_bytes(config.block_size, DTYPES[precision])
    room = room // block_bytes * block_bytes
    if room <= 0 or room < num_check_blocks(config.block_size) * block_bytes:
        return {}
    if config.kv_bytes or config.num_blocks:
        least = config.least_num_blocks(context_length_of(shape, config)) * block_bytes
        if room >= least:
            return {"kv_bytes": room, "num_blocks": None} if config.num_blocks else {"kv_bytes": room}
        return {}
    return {"context_length": room // block_bytes * config.block_size} if config.context_length else {}


def _shape(described: Described) -> ModelShape | None:
    """What it attends with, found on the model without numbers; None: it does not run so; its cache is not counted."""
    try:
        return shape_of(described.model)
    except ModelRefused:
        return None
