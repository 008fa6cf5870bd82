"""One token for every row of logits, and what is reported about it.

Knows nothing about blocks, schedules or where logits come from.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import isfinite

import torch

from serin_worker.outputs import TokenLogprobs
from serin_worker.sampling import native_draw
from serin_worker.sampling.draw import take
from serin_worker.sampling.logprobs import token_logprobs
from serin_worker.sampling.processors import add_bias, mask_early_end, mask_forbidden, penalize
from serin_worker.sequence import Sequence as TokenSequence


@dataclass(frozen=True, slots=True)
class Drawn:
    """A token for each row; None where the logits were not finite."""

    token_ids: list[int | None]
    logprobs: list[TokenLogprobs | None]


def draw(
    logits: torch.Tensor,
    rows: Sequence[TokenSequence],
    end_ids: Sequence[Collection[int]],
    forbidden: Sequence[torch.Tensor | None] = (),
) -> Drawn:
    """Draw the next token of each sequence.

    Args:
        logits: [rows, vocabulary], any float dtype.
        rows: the sequences, in the same order.
        end_ids: ids that end each of them.
        forbidden: ids that each may not draw, true or false [vocabulary]; None: it may draw any. Empty: all may.
    """
    processed = _process(logits, rows, end_ids, forbidden)
    best, ids = native_draw.largest(processed)
    drawing = [i for i, row in enumerate(rows) if not row.sampling.is_greedy]
    if drawing:
        for i, token in zip(drawing, _take(processed, drawing, [rows[i] for i in drawing]), strict=True):
            ids[i] = token
    token_ids = [token if isfinite(value) else None for token, value in zip(ids, best, strict=True)]
    return Drawn(token_ids, _report(logits, rows, token_ids))


def _process(
    logits: torch.Tensor,
    rows: Sequence[TokenSequence],
    end_ids: Sequence[Collection[int]],
    forbidden: Sequence[torch.Tensor | None],
) -> torch.Tensor:
    """Logits in float32 after bias, masks and penalties; the input itself where nothing changes."""
    is_biased = any(row.sampling.logit_bias for row in rows)
    is_early = any(row.num_output < row.min_tokens for row in rows)
    is_penalized = any(row.sampling.has_penalties for row in rows)
    if not (is_biased or is_early or is_penalized or forbidden):
        return logits
    processed = logits.float()
    if processed is logits:
        processed = logits.clone()
    if is_biased:
        add_bias(processed, rows)
    if is_early:
        mask_early_end(processed, rows, end_ids)
    if is_penalized:
        penalize(processed, rows)
    mask_forbidden(processed, forbidden)
    return processed


def _take(logits: torch.Tensor, index: Sequence[int], rows: Sequence[TokenSequence]) -> list[int]:
    samplings = [row.sampling for row in rows]
    names = [(row.sampling.seed, row.choice_index, row.num_output) for row in rows]
    if native_draw.is_available(logits.device):
        return native_draw.take(logits, index, samplings, names)
    chosen = logits.float() if len(index) == logits.shape[0] else logits[list(index)].float()
    return take(chosen, samplings, names)


def _report(
    logits: torch.Tensor, rows: Sequence[TokenSequence], token_ids: Sequence[int | None]
) -> list[TokenLogprobs | None]:
    reported: list[TokenLogprobs | None] = [None] * len(rows)
    wanted = [
        (i, token, rows[i].sampling.num_logprobs or 0)
        for i, token in enumerate(token_ids)
        if token is not None and rows[i].sampling.num_logprobs is not None
    ]
    if wanted:
        index, ids, counts = zip(*wanted, strict=True)
        for i, logprobs in zip(index, token_logprobs(logits[list(index)], ids, counts), strict=True):
            reported[i] = logprobs
    return reported
