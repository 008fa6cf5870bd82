"""A finished model as a folder: weights, tokenizer, configuration, and a card that says what was made and how.

Knows nothing about training or evaluation beyond the figures it is handed.
"""

import json
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import transformers
from serin_mesh.identity import vocabulary_digest
from transformers import Qwen3ForCausalLM

from serin_worker.demo.accuracy import Accuracy
from serin_worker.demo.corpus import corpus_digest
from serin_worker.demo.tokenizer import build_tokenizer
from serin_worker.demo.training import Recipe

MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Made:
    """What was made, how and how well: the version, its recipe, where it ran, its last loss, its measured accuracy."""

    version: str
    recipe: Recipe
    device: str
    loss: float
    accuracy: Accuracy


def write_folder(folder: Path, model: Qwen3ForCausalLM, made: Made) -> None:
    """Write everything a server needs, and ``manifest.json``.

    The folder is made if it is not there; files of the same names are replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    manifest: dict[str, object] = {
        "family": made.recipe.family,
        "version": made.version,
        "num_parameters": model.num_parameters(),
        "vocabulary_digest": vocabulary_digest(folder),
        "corpus_digest": corpus_digest(extra=made.recipe.extra_kind),
        "recipe": asdict(made.recipe),
        "final_loss": round(made.loss, 4),
        "num_questions": sum(made.accuracy.num_asked.values()),
        "accuracy": round(made.accuracy.overall, 4),
        "accuracy_by_kind": {kind: round(share, 4) for kind, share in made.accuracy.by_kind.items()},
        "made_with": {
            "device": made.device,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "threads": torch.get_num_threads(),
            "machine": platform.machine(),
            "instructions": torch.backends.cpu.get_cpu_capability(),
        },
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
