"""A model without its weights: its configuration checked, its modules built where tensors have shapes and no numbers.

What config.json gets wrong is found here, before memory is spent. Knows nothing about weight files' contents.
"""

import re
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from serin_worker.errors import ModelRefused
from serin_worker.model import stored_linear
from serin_worker.model.checkpoint import Checkpoint

LOADER_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RuntimeError,
    ArithmeticError,
    AssertionError,
    ImportError,
    MemoryError,
    StrictDataclassError,
    SafetensorError,
)
"""What transformers raises over a folder that it cannot make a model of."""

_COUNTS = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
)
_HARMLESS = (r"rotary_emb\.inv_freq$", r"(^|\.)position_ids$")


def read_config(checkpoint: Checkpoint) -> Any:
    """The folder's configuration as transformers reads it.

    Raises:
        ModelRefused: config.json cannot describe a model; the message says why, in one line.
    """
    try:
        config = AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=False, local_files_only=True)
        for part in (config, config.get_text_config()):
            if hasattr(part, "quantization_config"):
                del part.quantization_config  # read already, and not by transformers
        _check_counts(checkpoint, config.get_text_config())
    except LOADER_ERRORS as error:  # also of reading a value: some configurations hold one for each layer, and say so
        kind, cause = checkpoint.config["model_type"], f"{type(error).__name__}: {one_line(error)}"
        raise _refused(checkpoint, f"model_type {kind!r} cannot be read: {cause}") from error
    return config


def build(
    checkpoint: Checkpoint,
    config: Any,
    dtype: torch.dtype,
    factory: Any = AutoModelForCausalLM,
    attention: str | None = None,
) -> PreTrainedModel:
    """The model that a configuration describes, without memory for its weights.

    Args:
        checkpoint: the folder, inspected.
        config: its configuration as transformers reads it.
        dtype: of all weights but quantized ones.
        factory: transformers' own.
        attention: name of the function that its layers call; None: transformers' own choice.

    Raises:
        ModelRefused: the configuration contradicts itself.
    """
    try:
        with torch.device("meta"):
            model: PreTrainedModel = factory.from_config(config, dtype=dtype, attn_implementation=attention)
    except LOADER_ERRORS as error:
        text = config.get_text_config()
        padding, size = getattr(text, "pad_token_id", None), getattr(text, "vocab_size", None)
        if isinstance(padding, int) and isinstance(size, int) and padding >= size:
            cause = f"vocab_size: {size}: too small, pad_token_id is {padding}"
        else:
            cause = f"describes no model that can be built: {one_line(error)}"
        raise _refused(checkpoint, cause) from error
    if checkpoint.quantization is not None:
        stored_linear.prepare_skeleton(model, checkpoint)
    return model


def ignores(model: PreTrainedModel, name: str) -> bool:
    """Whether the model's architecture knows that checkpoints hold this tensor and does not want it."""
    patterns = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()
    return any(re.search(pattern, name) for pattern in (*_HARMLESS, *patterns))


def one_line(error: BaseException) -> str:
    """What an error says, without line breaks; its kind, where that is needed to understand it."""
    text = " ".join(str(error).split())
    bare = isinstance(error, (LookupError, ArithmeticError, AssertionError)) or not text
    return f"{type(error).__name__}: {text}".rstrip(": ") if bare and "must" not in text else text


def _check_counts(checkpoint: Checkpoint, config: PreTrainedConfig) -> None:
    for key in _COUNTS:
        value = getattr(config, key, None)
        if isinstance(value, int) and value < 1:
            raise _refused(checkpoint, f"{key}: {value}: accepted: a whole number from 1")
    num_layers, num_tensors = config.num_hidden_layers, len(checkpoint.tensors)
    if num_layers > num_tensors:
        raise _refused(checkpoint, f"num_hidden_layers: {num_layers}: the weights hold only {num_tensors} tensors")


def _refused(checkpoint: Checkpoint, cause: str) -> ModelRefused:
    return ModelRefused(cause, str(checkpoint.folder / "config.json"))
