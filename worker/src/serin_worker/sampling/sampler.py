"""One token for every row of logits, and what is reported about it.

Knows nothing about blocks, schedules or where logits come from.
"""

import functools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import isfinite
from types import ModuleType

import torch

from serin_worker.native.triton_runtime import has_triton
from serin_worker.outputs import TokenLogprobs
from serin_worker.request import Sampling
from serin_worker.sampling import native_draw
from serin_worker.sampling.draw import take
from serin_worker.sampling.logprobs import Logprobs, logprobs_of, reported
from serin_worker.sampling.processors import add_bias, mask_early_end, mask_forbidden, penalize
from serin_worker.sampling.to_host import Arrival, begin
from serin_worker.sequence import Sequence as TokenSequence


@dataclass(frozen=True, slots=True)
class Drawn:
    """A token for each row; None where the logits were not finite."""

    token_ids: list[int | None]
    logprobs: list[TokenLogprobs | None]


class Drawing:
    """Tokens that are drawn where the logits are, on their way to the host.

    Args:
        on_device: [rows] the tokens, integers, where the logits are.
        arrival: of each row's largest logit, its token, and what is told of some rows.
        told: rows whose log-probabilities are told, and how many alternatives each asks for.
    """

    def __init__(self, on_device: torch.Tensor, arrival: Arrival, told: Sequence[tuple[int, int]]) -> None:
        self.on_device = on_device
        self._arrival = arrival
        self._told = told

    def result(self) -> Drawn:
        """Wait for them."""
        best, ids, *told = self._arrival()
        finite = map(isfinite, best.tolist())
        token_ids = [token if is_finite else None for token, is_finite in zip(ids.tolist(), finite, strict=True)]
        logprobs: list[TokenLogprobs | None] = [None] * len(token_ids)
        if self._told:
            rows, counts = zip(*self._told, strict=True)
            for row, one in zip(rows, reported(Logprobs(*told), counts), strict=True):
                logprobs[row] = None if token_ids[row] is None else one
        return Drawn(token_ids, logprobs)


def draw(
    logits: torch.Tensor,
    rows: Sequence[TokenSequence],
    end_ids: Sequence[Collection[int]],
    forbidden: Sequence[torch.Tensor | None] = (),
) -> Drawn:
    """Draw the next token of each sequence, and wait for it; for the rest see :func:`begin_draw`."""
    return begin_draw(logits, rows, end_ids, forbidden).result()


def begin_draw(
    logits: torch.Tensor,
    rows: Sequence[TokenSequence],
    end_ids: Sequence[Collection[int]],
    forbidden: Sequence[torch.Tensor | None] = (),
) -> Drawing:
    """Have the next token of each sequence drawn.

    Args:
        logits: [rows, vocabulary], any float dtype.
        rows: the sequences, in the same order.
        end_ids: ids that end each of them.
        forbidden: ids that each may not draw, true or false [vocabulary]; None: it may draw any. Empty: all may.
    """
    processed = _process(logits, rows, end_ids, forbidden)
    names = [(row.sampling.seed, row.choice_index, row.num_output) for row in rows]
    best, ids = chosen(processed, [row.sampling for row in rows], names)
    told = [(i, row.sampling.num_logprobs) for i, row in enumerate(rows) if row.sampling.num_logprobs is not None]
    report: Sequence[torch.Tensor] = ()
    if told:
        index, counts = (list(column) for column in zip(*told, strict=True))
        report = logprobs_of(logits[index], ids[index], max(counts))
    return Drawing(ids, begin([best, ids, *report]), told)


def chosen(
    logits: torch.Tensor, samplings: Sequence[Sampling], names: Sequence[tuple[int, int, int]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each row's largest logit, NaN if any is, and its token: the first place of it, or what is drawn under its name.

    Args:
        logits: [rows, vocabulary], processed.
        samplings: of each row.
        names: (seed, choice, position) of each row's draw.

    Returns:
        [rows] in a float type and [rows] in an integer type, where the logits are.
    """
    device = logits.device
    drawing = [i for i, sampling in enumerate(samplings) if not sampling.is_greedy]
    if triton_draw := _on_gpu(device):
        best, ids = triton_draw.take(logits, samplings, names)
        drawing = [i for i in drawing if samplings[i].has_filters]
    else:
        best, ids = native_draw.largest(logits)
    if not drawing:
        return best, ids
    drawn = [samplings[i] for i in drawing], [names[i] for i in drawing]
    if native_draw.is_available(device):
        tokens = native_draw.take(logits, drawing, *drawn)
    else:
        whole = len(drawing) == len(samplings)
        tokens = take((logits if whole else logits[drawing]).float(), *drawn)
    if len(drawing) == len(samplings):
        return best, tokens
    ids[drawing] = tokens.to(ids.dtype)
    return best, ids


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


@functools.cache
def _on_gpu(device: torch.device) -> ModuleType | None:
    """Triton's kernels, where they run."""
    if not has_triton(device):
        return None
    from serin_worker.sampling import triton_draw

    return triton_draw
