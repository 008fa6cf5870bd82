"""A mesh that serves the demo model by several workers, so that some may be harmed. Knows only its declaration."""

import json
import shutil
from pathlib import Path

from safetensors.numpy import load_file, save_file

SMALL = "small"
NUM_WORKERS = 3
DRAIN_GRACE_S = 0.2
"""An answer of a second outlives it."""
NO_NUMBER = "\x7f"
"""A character that no answer holds, and that the flawed model computes no numbers from."""
_DEMO_MODEL = Path(__file__).resolve().parents[2] / "deploy" / "models" / "small" / "v2"


def write_flawed_model(folder: Path) -> Path:
    """A copy of the demo model in which one byte's vector is no number; returns the folder."""
    shutil.copytree(_DEMO_MODEL, folder, ignore=shutil.ignore_patterns("manifest.json"))
    weights = load_file(folder / "model.safetensors")
    vectors = weights["model.embed_tokens.weight"]
    weights["lm_head.weight"] = vectors.copy()  # of its own: each logit is a product with a vector of it
    vectors[ord(NO_NUMBER)] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    return folder


def crowd_of(model: Path, kv_blocks: int = 1024) -> str:
    """Its `serin.yaml`."""
    return f"""\
models:
  {SMALL}:
    path: {model}
    precision: float32
    numerics: invariant
    kv_blocks: {kv_blocks}
    workers: {NUM_WORKERS}
"""


def environment() -> dict[str, str]:
    """Its environment."""
    return {"SERIN_DRAIN_GRACE_S": str(DRAIN_GRACE_S)}
