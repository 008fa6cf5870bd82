"""A model's weights into memory, by transformers' own loader: safetensors only, never custom code.

Knows nothing about attention's pages or requests.
"""

import warnings
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_MAPPING_NAMES
from transformers.utils import logging as _transformers_logging

from serin_worker.attention import interface
from serin_worker.errors import ModelRefused
from serin_worker.model import skeleton, stored_linear
from serin_worker.model.checkpoint import Checkpoint
from serin_worker.model.memory import is_out_of_memory

transformers_logging: Any = _transformers_logging  # its functions carry no types

FLOATING = ("F64", "F32", "BF16", "F16")
"""What weights may be stored in."""

DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True, slots=True)
class Family:
    """What is made of a checkpoint.

    Attributes:
        factory: transformers' class that makes it.
        known: model types that it can be made of.
        what: its name, behind "not".
        attention: function that its layers call; None: transformers' own choice.
        is_headless: only the body is wanted; heads, which make something of its last vectors, may be there or not.
    """

    factory: Any
    known: Container[str]
    what: str
    attention: str | None = None
    is_headless: bool = False


GENERATING = Family(
    AutoModelForCausalLM, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, "a causal language model", attention=interface.NAME
)
ENCODING = Family(AutoModel, MODEL_MAPPING_NAMES, "a model", is_headless=True)


@dataclass(frozen=True, slots=True)
class Described:
    """A checkpoint and the model that it describes.

    Attributes:
        checkpoint: the folder, inspected.
        family: what is made of it.
        config: its configuration as transformers reads it.
        dtype: of all weights but quantized ones.
        model: its modules and parameters, without memory for numbers.
    """

    checkpoint: Checkpoint
    family: Family
    config: Any
    dtype: torch.dtype
    model: PreTrainedModel


def describe(checkpoint: Checkpoint, precision: str, family: Family = GENERATING) -> Described:
    """What a checked folder describes, by default a language model with our attention in place; no weight is read.

    Args:
        checkpoint: the folder, inspected.
        precision: dtype of all weights but quantized ones, a key of DTYPES.
        family: what is made of it.

    Raises:
        ModelRefused: the architecture is not supported, or the configuration contradicts itself or its tensors.
    """
    model_type = str(checkpoint.config["model_type"])
    if model_type not in family.known:
        raise ModelRefused(
            f"model_type {model_type!r} is not {family.what} that transformers knows",
            str(checkpoint.folder / "config.json"),
        )
    interface.register()
    dtype = DTYPES[precision]
    with _progress_of(None):
        config = skeleton.read_config(checkpoint)
        model = skeleton.build(checkpoint, config, dtype, family.factory, family.attention)
    _check_dtypes(checkpoint, model)
    return Described(checkpoint, family, config, dtype, model)


def load(
    described: Described, device: torch.device, progress: Callable[[float], None] | None = None
) -> PreTrainedModel:
    """Load what a folder describes, ready for evaluation.

    Weights that are kept as they are stored stay mapped from their files until something replaces them.

    Args:
        described: the folder and the model to make of it.
        device: where weights go.
        progress: called with the fraction of weights in place.

    Raises:
        ModelRefused: tensors are missing or do not fit the configuration.
        MemoryError, OSError, RuntimeError: memory does not suffice (:func:`memory.is_out_of_memory`).
    """
    checkpoint, family, expected = described.checkpoint, described.family, described.model
    if checkpoint.quantization is not None:
        described.config.quantization_config = stored_linear.configuration(checkpoint)
    try:
        with _progress_of(progress), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded: Any = family.factory.from_pretrained(
                checkpoint.folder,
                config=described.config,
                dtype=described.dtype,
                attn_implementation=family.attention,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
    except skeleton.LOADER_ERRORS as error:
        if is_out_of_memory(error):
            raise
        raise ModelRefused(
            f"transformers does not load it: {skeleton.one_line(error)}", _weights(checkpoint)
        ) from error
    model, info = loaded
    if family.is_headless:
        info = _without_heads(checkpoint, expected, info)
    _check_loaded(checkpoint, info)
    _check_unexpected(checkpoint, expected, info)
    if checkpoint.quantization is not None and checkpoint.quantization.block is not None:
        stored_linear.dequantize(model, described.dtype)
    ready: PreTrainedModel = model.to(device).eval().requires_grad_(False)
    return ready


def _check_dtypes(checkpoint: Checkpoint, expected: PreTrainedModel) -> None:
    """Weights are floating point numbers; others are read only where the model keeps them so itself."""
    whole = {name for name, tensor in expected.state_dict().items() if not tensor.is_floating_point()}
    stored = checkpoint.quantization.item if checkpoint.quantization else None
    for name, entry in sorted(checkpoint.tensors.items()):
        if entry.dtype in (*FLOATING, stored) or skeleton.ignores(expected, name):
            continue
        if not {name, f"{expected.base_model_prefix}.{name}"} & whole:
            raise ModelRefused(
                f"tensor {name!r} is stored as {entry.dtype}; accepted: {', '.join(FLOATING)}", entry.file
            )


def _weights(checkpoint: Checkpoint) -> str:
    return str(checkpoint.files[0]) if len(checkpoint.files) == 1 else str(checkpoint.folder)


def _check_loaded(checkpoint: Checkpoint, info: dict[str, Any]) -> None:
    weights = _weights(checkpoint)
    for entry in sorted(info.get("mismatched_keys") or (), key=str):
        name, found, expected = entry
        place = checkpoint.tensors[name].file if name in checkpoint.tensors else weights
        raise ModelRefused(
            f"tensor {name!r} has shape {tuple(found)} where the configuration asks for {tuple(expected)}", place
        )
    missing = sorted(info.get("missing_keys") or ())
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelRefused(f"lacks tensor {missing[0]!r}{more}", weights)
    if info.get("error_msgs"):
        raise ModelRefused(f"transformers does not load it: {info['error_msgs']}", weights)


def _without_heads(checkpoint: Checkpoint, expected: PreTrainedModel, info: dict[str, Any]) -> dict[str, Any]:
    """What loading said, but for heads: those of a checkpoint that has them, and a pooler that it lacks."""
    missing = {name for name in info.get("missing_keys") or () if not name.startswith("pooler.")}
    unexpected = set(info.get("unexpected_keys") or ())
    body = f"{expected.base_model_prefix}."
    if any(name.startswith(body) for name in checkpoint.tensors):
        unexpected = {name for name in unexpected if name.startswith(body)}
    return {**info, "missing_keys": missing, "unexpected_keys": unexpected}


def _check_unexpected(checkpoint: Checkpoint, expected: PreTrainedModel, info: dict[str, Any]) -> None:
    unexpected = sorted(name for name in info.get("unexpected_keys") or () if not skeleton.ignores(expected, name))
    if unexpected:
        name, more = unexpected[0], f" (and {len(unexpected) - 1} more)" if len(unexpected) > 1 else ""
        place = checkpoint.tensors[name].file if name in checkpoint.tensors else _weights(checkpoint)
        raise ModelRefused(f"tensor {name!r}{more} has no place in the model that config.json describes", place)


@contextmanager
def _progress_of(progress: Callable[[float], None] | None) -> Iterator[None]:
    """Turn transformers' own progress bar into calls; say nothing on the terminal."""
    was_enabled = transformers_logging.is_progress_bar_enabled()
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    set_hook = getattr(transformers_logging, "set_tqdm_hook", None)
    previous = set_hook(_counting(progress)) if set_hook and progress else None
    try:
        yield
    finally:
        if set_hook and progress:
            set_hook(previous)
        transformers_logging.set_verbosity(verbosity)
        if was_enabled:
            transformers_logging.enable_progress_bar()


def _counting(progress: Callable[[float], None]) -> Callable[..., Any]:
    def hook(factory: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        items = args[0] if args else None
        if items is None or not hasattr(items, "__len__"):
            return factory(*args, **kwargs)
        return _counted(items, progress)

    return hook


def _counted(items: Any, progress: Callable[[float], None]) -> Iterator[Any]:
    total = max(len(items), 1)
    for number, item in enumerate(items, start=1):
        yield item
        progress(number / total)
