"""What a checkpoint's ``quantization_config`` says about its weights, and whether they can be served.

Two published formats are read: compressed-tensors (int8 or e4m3 weights by channel or tensor, e4m3 also by block, rows
scaled as they come) and "fp8" as DeepSeek and Qwen publish it (e4m3 by block or tensor). Whatever else there is, is
refused by its name. Looks at the configuration only; knows nothing about torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from serin_worker.errors import ModelRefused

SUPPORTED = (
    "weights in float32, bfloat16 or float16; compressed-tensors with int8 or float8 (e4m3) weights, symmetric, by "
    "channel, tensor or (float8) block, and dynamic activations of the same type; 'fp8' with dynamic activations"
)
Block = tuple[int, int]
_FORMATS = (None, "int-quantized", "float-quantized", "naive-quantized")


@dataclass(frozen=True, slots=True)
class StoredQuantization:
    """How a checkpoint holds its quantized weights.

    Attributes:
        kind: type of the numbers.
        scales: suffix of the tensors that hold scales, beside ``.weight``.
        block: (outputs, inputs) that share a scale; None: scales are for whole outputs.
    """

    kind: Literal["int8", "fp8"]
    scales: str
    block: Block | None = None

    def is_scale(self, name: str) -> bool:
        """Whether a tensor of that name holds scales."""
        return name.endswith(f".{self.scales}")

    @property
    def item(self) -> str:
        """What safetensors calls the type."""
        return "I8" if self.kind == "int8" else "F8_E4M3"


def read_quantization(config: Mapping[str, Any], path: Path) -> StoredQuantization | None:
    """What a configuration declares; None: plain weights.

    Args:
        config: config.json.
        path: where it is, for the error.

    Raises:
        ModelRefused: by the method's name, with what is supported.
    """
    text = config.get("text_config")
    for part in (config, text if isinstance(text, dict) else {}):
        found = part.get("quantization_config") or part.get("compression_config")
        if not found:
            continue
        method = found.get("quant_method") if isinstance(found, dict) else None
        try:
            match method:
                case "compressed-tensors":
                    return _compressed_tensors(found)
                case "fp8":
                    return _fine_grained(found)
                case _:
                    raise _Unsupported("this method")
        except (_Unsupported, AttributeError, TypeError, KeyError, ValueError) as error:
            why = str(error) if isinstance(error, _Unsupported) else f"what it says ({type(error).__name__}: {error})"
            name = method or "unnamed"
            raise ModelRefused(
                f"quantization_config: {name!r}: {why} is not served; accepted: {SUPPORTED}", str(path)
            ) from error
    return None


class _Unsupported(Exception):
    pass


def _compressed_tensors(found: Mapping[str, Any]) -> StoredQuantization:
    _refuse_extras(found)
    schemes = {_scheme(group, found.get("format")) for group in found["config_groups"].values()}
    if len(schemes) != 1:
        raise _Unsupported(f"a mixture of {len(schemes)} schemes")
    return schemes.pop()


def _refuse_extras(found: Mapping[str, Any]) -> None:
    if found.get("kv_cache_scheme"):
        raise _Unsupported("a quantized KV cache (kv_cache_scheme)")
    sparsity = (found.get("sparsity_config") or {}).get("format", "dense")
    if sparsity != "dense":
        raise _Unsupported(f"sparsity ({sparsity})")
    if (found.get("transform_config") or {}).get("config_groups"):
        raise _Unsupported("a transform of rows (transform_config)")
    if found.get("quantization_status", "compressed") not in ("compressed", "frozen"):
        raise _Unsupported(f"quantization_status {found['quantization_status']!r}")


def _scheme(group: Mapping[str, Any], shared_format: str | None) -> StoredQuantization:
    layout = group.get("format") or shared_format
    weights, rows = group["weights"], group.get("input_activations")
    bits, kind = weights["num_bits"], weights["type"]
    if layout not in _FORMATS or bits != 8 or kind not in ("int", "float"):
        raise _Unsupported(f"format {layout!r} with {bits} bits ({kind})")
    if rows is None:
        raise _Unsupported(f"{kind}{bits} weights with activations that are not quantized")
    if (rows["num_bits"], rows["type"]) != (bits, kind):
        raise _Unsupported(f"{kind}{bits} weights with {rows['type']}{rows['num_bits']} activations")
    if not rows.get("dynamic"):
        raise _Unsupported("activations with a fixed scale (dynamic: false)")
    if not (weights.get("symmetric", True) and rows.get("symmetric", True)):
        raise _Unsupported("asymmetric scales (symmetric: false)")
    strategy = weights.get("strategy") or "tensor"
    if strategy in ("channel", "tensor"):
        return StoredQuantization("int8" if kind == "int" else "fp8", "weight_scale")
    if strategy == "block" and kind == "float":
        return StoredQuantization("fp8", "weight_scale", _block(weights["block_structure"]))
    raise _Unsupported(f"weights with scales by {strategy}")


def _fine_grained(found: Mapping[str, Any]) -> StoredQuantization:
    if found.get("activation_scheme", "dynamic") != "dynamic":
        raise _Unsupported(f"activation_scheme {found['activation_scheme']!r}")
    for key, only in (("fmt", "e4m3"), ("scale_fmt", "float"), ("expert_dtype", "fp8")):
        if found.get(key, only) != only:
            raise _Unsupported(f"{key} {found[key]!r}")
    block = found.get("weight_block_size", (128, 128))
    return StoredQuantization("fp8", "weight_scale_inv", None if block is None else _block(block))


def _block(value: Any) -> Block:
    rows, columns = value
    if not (isinstance(rows, int) and isinstance(columns, int) and rows > 0 and columns > 0):
        raise _Unsupported(f"a block of {value!r}")
    return rows, columns
