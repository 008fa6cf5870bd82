"""A model folder as files: what it contains, and whether it may be loaded at all.

Looks at headers only. Knows nothing about torch or transformers.
"""

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, TypeVar

from serin_worker.errors import ModelRefused
from serin_worker.model.stored_quantization import StoredQuantization, read_quantization

T = TypeVar("T", dict[str, Any], list[Any])

_ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
_PICKLES = ("pytorch_model*", "model*.bin", "model*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")
_PRECISIONS = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_MAX_HEADER_BYTES = 100 * 2**20
_ONE_FILE = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor of a weight file."""

    file: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def num_elements(self) -> int:
        """Numbers in the tensor."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder that passed inspection."""

    folder: Path
    config: Mapping[str, Any]
    files: tuple[Path, ...]
    tensors: Mapping[str, TensorEntry]
    quantization: StoredQuantization | None = None
    """How some of its weights are held in 8 bits; None: none are."""

    @property
    def num_parameters(self) -> int:
        """Numbers in all tensors."""
        return sum(entry.num_elements for entry in self.tensors.values())

    @property
    def precision(self) -> str:
        """What most numbers that are not quantized are saved in: float32, bfloat16 or float16; else float32."""
        totals = dict.fromkeys(_PRECISIONS, 0)
        for name, entry in self.tensors.items():
            if entry.dtype in totals and not (self.quantization and self.quantization.is_scale(name)):
                totals[entry.dtype] += entry.num_elements
        return _PRECISIONS[max(totals, key=lambda dtype: totals[dtype])]

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weight files."""
        return sum(path.stat().st_size for path in self.files)


def inspect(folder: Path) -> Checkpoint:
    """Read a folder's configuration and the headers of its weight files.

    Raises:
        ModelRefused: with the file's name; it is missing, damaged, pickled, or wants to run its own code.
    """
    if not folder.is_dir():
        raise ModelRefused("not a folder; give a model folder or a hub id like 'organization/name'", str(folder))
    config = read_json(folder / "config.json", dict)
    if not config.get("model_type"):
        raise ModelRefused("names no model_type", str(folder / "config.json"))
    if "auto_map" in config:
        raise ModelRefused("asks to run its own code (auto_map), which is never done", str(folder / "config.json"))
    quantization = read_quantization(config, folder / "config.json")
    tokenizer = folder / "tokenizer_config.json"
    if tokenizer.exists() and "auto_map" in read_json(tokenizer, dict):
        raise ModelRefused("asks to run its own code (auto_map), which is never done", str(tokenizer))
    for pattern in _PICKLES:
        for path in sorted(folder.glob(pattern)):
            raise ModelRefused(
                "pickled weights can run code and are never read; convert them to safetensors and remove the file",
                str(path),
            )
    files = _weight_files(folder)
    tensors: dict[str, TensorEntry] = {}
    for path in files:
        for name, entry in _read_header(path):
            if name in tensors:
                raise ModelRefused(f"tensor {name!r} is also in {tensors[name].file}", str(path))
            tensors[name] = entry
    _check_index(folder / INDEX_NAME, tensors)
    return Checkpoint(folder, config, files, tensors, quantization)


def _weight_files(folder: Path) -> tuple[Path, ...]:
    index = folder / INDEX_NAME
    if index.exists():
        names = sorted(set(_weight_map(index).values()))
        for name in names:
            if "/" in name or not name.endswith(".safetensors"):
                raise ModelRefused(f"names a weight file that is not one: {name!r}", str(index))
        files = tuple(folder / name for name in names)
    else:
        files = tuple(sorted(folder.glob("*.safetensors")))
        if folder / _ONE_FILE not in files:
            raise ModelRefused(
                f"{_found_instead(folder, files)}; accepted: {_ONE_FILE}, or shards beside {INDEX_NAME}", str(folder)
            )
    for path in files:
        if not path.is_file():
            raise ModelRefused("weight file is missing", str(path))
    return files


def _found_instead(folder: Path, files: tuple[Path, ...]) -> str:
    if files:
        return f"has {files[0].name}{' and others' if len(files) > 1 else ''}, and no index that says what is in them"
    foreign = next(iter(sorted(folder.glob("*.gguf"))), None)
    return f"has weights as GGUF alone ({foreign.name})" if foreign else "has no weights"


def _weight_map(index: Path) -> Mapping[str, str]:
    found = read_json(index, dict).get("weight_map")
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found.values()):
        raise ModelRefused("has no weight_map", str(index))
    return found


def _check_index(index: Path, tensors: Mapping[str, TensorEntry]) -> None:
    if not index.exists():
        return
    for name, file in _weight_map(index).items():
        entry = tensors.get(name)
        if entry is None or Path(entry.file).name != file:
            raise ModelRefused(f"lacks tensor {name!r}, which {index.name} places there", str(index.parent / file))


def _read_header(path: Path) -> Iterator[tuple[str, TensorEntry]]:
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        if not 2 <= length <= min(_MAX_HEADER_BYTES, size - 8):
            raise ModelRefused("not a safetensors file, or truncated inside its header", str(path))
        try:
            header = json.loads(file.read(length))
            entries = [(name, entry) for name, entry in header.items() if name != "__metadata__"]
            end = 0
            for name, entry in entries:
                begin, stop = entry["data_offsets"]
                shape = tuple(int(n) for n in entry["shape"])
                item = _ITEM_BYTES.get(entry["dtype"])
                if item is None:
                    raise ModelRefused(f"tensor {name!r} has the unknown type {entry['dtype']}", str(path))
                if min(shape, default=0) < 0 or begin < 0 or stop - begin != prod(shape) * item:
                    raise ModelRefused(f"tensor {name!r} does not have the size of its shape", str(path))
                end = max(end, stop)
                yield name, TensorEntry(str(path), entry["dtype"], shape)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ModelRefused(f"damaged safetensors header: {error!r}", str(path)) from error
    if 8 + length + end != size:
        raise ModelRefused(f"has {size:,} bytes where its header describes {8 + length + end:,}: truncated?", str(path))


def read_json(path: Path, kind: type[T]) -> T:
    """A JSON file whose content is a ``dict`` or a ``list``.

    Raises:
        ModelRefused: it is missing, damaged or something else.
    """
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise ModelRefused("not found", str(path)) from error
    except (OSError, ValueError, RecursionError) as error:
        raise ModelRefused(f"not readable as JSON: {type(error).__name__}: {error}", str(path)) from error
    if not isinstance(value, kind):
        raise ModelRefused(f"not a JSON {'object' if kind is dict else 'list'}", str(path))
    return value
