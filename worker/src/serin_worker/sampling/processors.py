"""What changes logits before a draw, in place and for all rows at once; a row that asks for nothing is not touched.

Knows nothing about how a token is taken from what is left.
"""

from collections.abc import Collection, Sequence

import numpy
import torch

from serin_worker.sequence import Sequence as TokenSequence


def add_bias(logits: torch.Tensor, rows: Sequence[TokenSequence]) -> None:
    """Add each row's logit_bias."""
    entries = [(i, t, b) for i, row in enumerate(rows) for t, b in row.sampling.logit_bias.items()]
    if entries:
        index, ids, bias = (list(column) for column in zip(*entries, strict=True))
        logits[index, ids] += torch.tensor(bias, dtype=logits.dtype, device=logits.device)


def mask_early_end(logits: torch.Tensor, rows: Sequence[TokenSequence], end_ids: Sequence[Collection[int]]) -> None:
    """Forbid the ids that would end a row (``end_ids``, by row) while it has fewer than its min_tokens.

    A row with a grammar has that in its mask: where the grammar leaves nothing else, it decides. Ids without a logit
    need no mask: an index that does not exist would end every request of the step, and -1 is the last id.
    """
    drawable = range(logits.shape[1])
    early = [i for i, row in enumerate(rows) if row.num_output < row.min_tokens and row.constraint is None]
    entries = [(i, t) for i in early for t in end_ids[i] if t in drawable]
    if entries:
        index, ids = (list(column) for column in zip(*entries, strict=True))
        logits[index, ids] = -torch.inf


def mask_forbidden(logits: torch.Tensor, forbidden: Sequence[torch.Tensor | None]) -> None:
    """Forbid the ids that a row's grammar does not allow; [ids], true where forbidden, or None for all allowed."""
    rows = [i for i, mask in enumerate(forbidden) if mask is not None]
    if not rows:
        return
    masks = torch.stack([mask for mask in forbidden if mask is not None]).to(logits.device)
    if len(rows) == logits.shape[0]:
        logits.masked_fill_(masks, -torch.inf)
    else:
        logits[rows] = logits[rows].masked_fill_(masks, -torch.inf)


def penalize(logits: torch.Tensor, rows: Sequence[TokenSequence]) -> None:
    """Apply repetition (prompt and output), then frequency and presence (output) penalties."""
    for i, row in enumerate(rows):
        sampling = row.sampling
        if sampling.repetition_penalty != 1:
            ids = _tensor(numpy.unique(numpy.asarray(row.token_ids, dtype=numpy.int64)), logits.device)
            seen = logits[i, ids]
            penalty = sampling.repetition_penalty
            logits[i, ids] = torch.where(seen > 0, seen / penalty, seen * penalty)
        if (sampling.frequency_penalty or sampling.presence_penalty) and row.num_output:
            output = numpy.asarray(row.token_ids[row.num_prompt :], dtype=numpy.int64)
            unique, counts = numpy.unique(output, return_counts=True)
            amount = counts * sampling.frequency_penalty + sampling.presence_penalty
            logits[i, _tensor(unique, logits.device)] -= _tensor(amount.astype(numpy.float32), logits.device)


def _tensor(array: numpy.ndarray, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(array).to(device)
