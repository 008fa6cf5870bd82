"""A model whose two versions hold different vocabularies: ids of one mean nothing to the other.

Knows the tiny model, nothing about the mesh.
"""

import json
from pathlib import Path

from harness.tiny_model import write_tiny_model

PAIR = "pair"
"""Name of the model."""


def write_pair(folder: Path) -> dict[str, Path]:
    """Write versions ``a`` and ``b``; in ``b`` two tokens have changed places."""
    versions = {version: write_tiny_model(folder / version) for version in ("a", "b")}
    path = versions["b"] / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["q"], vocabulary["z"] = vocabulary["z"], vocabulary["q"]
    path.write_text(json.dumps(tokenizer), encoding="utf-8")
    return versions


def pair_declaration(versions: dict[str, Path], weights: dict[str, int]) -> str:
    """A `serin.yaml` with one worker and one tokenizer of each version."""
    declared = "\n".join(
        f"      {version}: {{path: {path}, weight: {weights[version]}}}" for version, path in versions.items()
    )
    return f"""\
models:
  {PAIR}:
    precision: float32
    numerics: invariant
    context_length: 512
    kv_blocks: 512
    versions:
{declared}
"""
