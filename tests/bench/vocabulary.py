"""Which ids a benchmark may use: ordinary ones, that every tokenizer of the model knows."""

import json
from pathlib import Path


def ordinary_ids(folder: Path) -> range:
    """Ids of a model folder's vocabulary that are neither special nor rare."""
    size = len(json.loads((folder / "tokenizer.json").read_bytes())["model"]["vocab"])
    return range(min(1000, size // 2), min(7000, size))
