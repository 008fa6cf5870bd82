"""How a folder's token vectors become one vector, as sentence-transformers describes it (`modules.json`).

A folder with that description is an embedding model; what the description asks for and nobody here does is refused by
name. Reads files; knows nothing about torch.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from serin_mesh.identity import digest_json

from serin_worker.errors import ModelRefused
from serin_worker.model.checkpoint import read_json

Pooling = Literal["cls", "max", "mean", "mean_sqrt_len", "weightedmean", "lasttoken"]
_MODULES = "modules.json"
_LENGTHS = "sentence_bert_config.json"
_FLAGS: dict[str, Pooling] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""In the order in which several poolings are joined."""
_ABSURD_LENGTH = 10**9
"""Tokenizers that know no longest input say a number above this."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """From token vectors to one vector.

    Attributes:
        poolings: one or more; several are joined end to end, in this order.
        normalizes: whether the vector is scaled to length 1.
        max_tokens: longest input, special ids included; None: what the model itself can take.
        hidden_size: length of the token vectors that the pooling was made for; None: it does not say.
        digest: hex, of all that is described here.
    """

    poolings: tuple[Pooling, ...]
    normalizes: bool
    max_tokens: int | None
    hidden_size: int | None
    digest: str


def is_embedding_model(folder: Path) -> bool:
    """Whether a folder says how to make one vector of a text."""
    return (folder / _MODULES).is_file()


def read_recipe(folder: Path) -> Recipe:
    """Read a folder's description.

    Raises:
        ModelRefused: naming the file: it is damaged, or asks for what is not done here.
    """
    modules = _modules(folder)
    kinds = [kind for kind, _ in modules]
    if kinds[:2] != ["Transformer", "Pooling"] or kinds[2:] not in ([], ["Normalize"]):
        raise ModelRefused(
            f"its modules are {', '.join(kinds) or 'none'}; accepted: Transformer, Pooling and perhaps Normalize",
            str(folder / _MODULES),
        )
    if modules[0][1]:
        raise ModelRefused(
            f"its transformer is in {modules[0][1]!r}; accepted: in the folder itself", str(folder / _MODULES)
        )
    file = folder / modules[1][1] / "config.json"
    pooling = read_json(file, dict)
    poolings, normalizes, max_tokens = _poolings(file, pooling), len(kinds) == 3, _max_tokens(folder)
    return Recipe(
        poolings,
        normalizes,
        max_tokens,
        hidden_size=_whole_number(file, pooling, "word_embedding_dimension", "embedding_dimension"),
        digest=digest_json({"poolings": poolings, "normalizes": normalizes, "max_tokens": max_tokens}),
    )


def _modules(folder: Path) -> list[tuple[str, str]]:
    """Kind and folder of each module, in order."""
    file = folder / _MODULES
    found = []
    entries = read_json(file, list)
    for entry in entries:
        if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("type", "path")):
            raise ModelRefused("accepted: a list of objects with a type and a path", str(file))
        package, kind, path = entry["type"].split(".")[0], entry["type"].rpartition(".")[2], entry["path"]
        if package != "sentence_transformers":
            raise ModelRefused(f"asks to run its own code ({entry['type']}), which is never done", str(file))
        if "/" in path or path.startswith("."):
            raise ModelRefused(f"path: {path!r}: accepted: the name of a folder beside it", str(file))
        found.append((kind, path))
    return found


def _poolings(file: Path, config: dict[str, Any]) -> tuple[Pooling, ...]:
    """The modes, written as flags or, by newer versions, as a name or a list of names."""
    named = config.get("pooling_mode")
    if named is not None:
        names = named if isinstance(named, list) else [named]
        unknown = [name for name in names if name not in get_args(Pooling)]
        if unknown:
            raise _unknown_pooling(file, str(unknown[0]))
        poolings = tuple(mode for mode in _FLAGS.values() if mode in names)
    else:
        for key, value in config.items():
            if key.startswith("pooling_mode_") and value and key not in _FLAGS:
                raise _unknown_pooling(file, key)
        poolings = tuple(mode for key, mode in _FLAGS.items() if config.get(key))
    if not poolings:
        raise ModelRefused(f"names no pooling; accepted: {', '.join(_FLAGS.values())}", str(file))
    if config.get("include_prompt") is False:
        raise ModelRefused(
            "include_prompt: false: prompts are part of the input here and are never left out", str(file)
        )
    return poolings


def _unknown_pooling(file: Path, name: str) -> ModelRefused:
    return ModelRefused(f"asks for the pooling {name!r}; accepted: {', '.join(_FLAGS.values())}", str(file))


def _max_tokens(folder: Path) -> int | None:
    """The longest input as the description says, else as the tokenizer does."""
    for name, key in ((_LENGTHS, "max_seq_length"), ("tokenizer_config.json", "model_max_length")):
        file = folder / name
        found = _whole_number(file, read_json(file, dict), key) if file.is_file() else None
        if found is not None and found < _ABSURD_LENGTH:
            return found
    return None


def _whole_number(file: Path, config: dict[str, Any], *keys: str) -> int | None:
    for key in keys:
        value = config.get(key)
        if value is None:
            continue
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # tokenizers write "no limit" as 1e30
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ModelRefused(f"{key}: {value!r}: accepted: a whole number from 1", str(file))
        return value
    return None
