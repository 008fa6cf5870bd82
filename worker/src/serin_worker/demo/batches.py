"""Training batches: conversations as tensors, with targets only where the model must answer.

Knows nothing about the model or the optimizer.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields

import torch

from serin_worker.demo.chatml import encode_dialogue
from serin_worker.demo.corpus import Dialogue, training_dialogues
from serin_worker.demo.tokenizer import END_OF_TEXT, TOKEN_IDS


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of ids, what follows each, and how much it matters.

    Attributes:
        ids: ``[rows, length]`` int64, right-padded.
        positions: ``[rows, length]`` int64: each id's place in its conversation; 0 wherever a new one begins, which
            is how transformers tells conversations in a row apart, so that none sees another.
        learned: ``[rows, length]`` bool: where the next id belongs to an answer.
        targets: ``[num_learned]`` int64: the next id at each learned place, row by row.
        weights: ``[num_learned]`` float32: how much it matters there.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    learned: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor

    def to(self, device: torch.device) -> "Batch":
        """The same batch on a device."""
        return Batch(*(getattr(self, each.name).to(device) for each in fields(self)))


def training_batches(seed: int, num_rows: int, row_length: int, extra: str = "") -> Iterator[Batch]:
    """Endless batches; the same arguments give the same batches. ``extra`` names a further kind of question."""
    dialogues = training_dialogues(seed, extra)
    while True:
        rows = [_filled(dialogues, row_length + 1) for _ in range(num_rows)]
        ids = torch.tensor([row.ids for row in rows])
        weights = torch.tensor([row.weights for row in rows])[:, 1:]
        positions = torch.tensor([row.positions for row in rows])[:, :-1]
        learned = weights > 0
        yield Batch(ids[:, :-1].contiguous(), positions.contiguous(), learned, ids[:, 1:][learned], weights[learned])


@dataclass(slots=True)
class _Row:
    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)

    def add(self, ids: list[int], weights: list[float]) -> None:
        self.ids += ids
        self.positions += range(len(ids))
        self.weights += weights


def _filled(dialogues: Iterator[Dialogue], length: int) -> _Row:
    """Conversations until one does not fit whole; its questions that fit are taken, then padding."""
    row = _Row()
    while True:
        dialogue = next(dialogues)
        ids, weights, num_taken = encode_dialogue(dialogue, length - len(row.ids))
        row.add(ids, weights)
        if num_taken < len(dialogue.items):
            num_missing = length - len(row.ids)
            row.add([TOKEN_IDS[END_OF_TEXT]] * num_missing, [0.0] * num_missing)
            return row
