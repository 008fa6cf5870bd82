"""Which ids a benchmark may use: ordinary ones, that every tokenizer of the model knows."""

import json
from collections.abc import Sequence
from pathlib import Path

MARKS_OF_SPACE = "Ġ▁"
"""A space, as byte-level vocabularies and SentencePiece write it."""


def ordinary_ids(folder: Path) -> Sequence[int]:
    """Ids of a model folder's vocabulary that are text, each by itself: no half characters, nothing special."""
    vocabulary = json.loads((folder / "tokenizer.json").read_bytes())["model"]["vocab"]
    words = sorted(at for piece, at in vocabulary.items() if _is_text(piece))
    return words[len(words) // 8 :][:6000]  # the first ones are single letters, the last ones rare


def _is_text(piece: str) -> bool:
    letters = piece.lstrip(MARKS_OF_SPACE)
    return bool(letters) and letters.isascii() and letters.isalnum()
