"""The run of a step: a plan becomes tensors, goes through the model, and comes back as logits.

Knows nothing about why work was planned or what is done with the logits.
"""

from dataclasses import dataclass

import numpy
import torch

from serin_worker.attention.layer import StepSequences
from serin_worker.batch import StepPlan, Work
from serin_worker.flight import TokensAhead
from serin_worker.model.causal_lm import CausalModel
from serin_worker.model.decode_graphs import DecodeGraphs
from serin_worker.rounding import power_of_two

NUM_SIZES = 8
"""Sizes of a step for each doubling of its rows; up to twice as many rows every size is one of its own."""


@dataclass(frozen=True, slots=True)
class StepLogits:
    """Logits [rows, vocabulary], and which rows belong to each piece of work."""

    logits: torch.Tensor
    rows: list[tuple[Work, slice]]


def joined(pieces: list[StepLogits]) -> StepLogits:
    """Several steps' logits as those of one."""
    rows: list[tuple[Work, slice]] = []
    num_rows = 0
    for piece in pieces:
        rows += [(work, slice(num_rows + part.start, num_rows + part.stop)) for work, part in piece.rows]
        num_rows += len(piece.logits)
    return StepLogits(torch.cat([piece.logits for piece in pieces]) if pieces else torch.empty((0, 0)), rows)


class ModelRunner:
    """Runs plans on a bound model.

    Steps are padded to one of a few sizes, by less than an eighth of their rows. CPU kernels are built anew for every
    size they meet, and kept: some 400 KB for each of 512 sizes, which from outside looks like a leak of 50 MB for every
    1,000 requests, and takes time.

    Args:
        model: bound to its pages.
        row_multiple: a power of two in whose multiples a row's bits do not depend on its batch.
        graphs: recorded decode steps, if there are any.
    """

    def __init__(self, model: CausalModel, row_multiple: int = 1, graphs: DecodeGraphs | None = None) -> None:
        self._model = model
        self._row_multiple = row_multiple
        self._graphs = graphs

    @property
    def num_moves(self) -> int:
        """Layers computed so far."""
        return self._model.num_layers_run

    def run(self, plan: StepPlan, ahead: TokensAhead | None = None) -> StepLogits:
        """Copy blocks, compute the planned tokens; the logits that were asked for hold until the next run.

        Args:
            plan: the step.
            ahead: of a plan of decodes, the tokens that it reads: the step that drew them is still on its way.
        """
        if plan.copies:
            self._model.copy_blocks(plan.copies)
        last = None if ahead is None else ahead.read_by(plan)
        if self._graphs is not None and plan.is_decode and self._graphs.takes(len(plan.work)):
            return self._replay(self._graphs, plan, last)
        token_ids, positions, sequences = self._pack(plan)
        if last is not None:
            token_ids[: len(last)] = last
        wanted: list[int] = []
        rows: list[tuple[Work, slice]] = []
        end = 0
        for work in plan.work:
            end += work.num_tokens
            num_rows = work.num_scored or int(bool(work.drawn))
            if num_rows:
                rows.append((work, slice(len(wanted), len(wanted) + num_rows)))
                wanted += range(end - num_rows, end)
        padded = self._pad(len(wanted)) if wanted else self._row_multiple
        index = torch.tensor(wanted + [0] * (padded - len(wanted)), device=self._model.device)
        logits = self._model.forward(token_ids, positions, sequences, index)
        return StepLogits(logits[: len(wanted)], rows)

    def _replay(self, graphs: DecodeGraphs, plan: StepPlan, last: torch.Tensor | None) -> StepLogits:
        contexts = numpy.array([work.start + 1 for work in plan.work], dtype=numpy.int32)
        token_ids = numpy.array([work.sequence.token_ids[work.start] for work in plan.work], dtype=numpy.int32)
        logits = graphs.run(token_ids, contexts, _tables(plan), last)
        return StepLogits(logits, [(work, slice(i, i + 1)) for i, work in enumerate(plan.work)])

    def _pack(self, plan: StepPlan) -> tuple[torch.Tensor, torch.Tensor, StepSequences]:
        num_rows = plan.num_tokens
        token_ids = numpy.zeros(self._pad(num_rows), dtype=numpy.int64)
        positions = numpy.zeros(self._pad(num_rows), dtype=numpy.int64)
        num_work = len(plan.work)
        starts = numpy.zeros(num_work + 1, dtype=numpy.int32)
        contexts = numpy.empty(num_work, dtype=numpy.int32)
        tables = _tables(plan)
        row = 0
        for i, work in enumerate(plan.work):
            first, last, end = work.start, work.start + work.num_tokens, row + work.num_tokens
            if work.num_tokens == 1:
                token_ids[row] = work.sequence.token_ids[first]
                positions[row] = first
            else:
                token_ids[row:end] = work.sequence.token_ids[first:last]
                positions[row:end] = numpy.arange(first, last)
            contexts[i] = last
            starts[i + 1] = row = end
        sequences = StepSequences(*(torch.from_numpy(array) for array in (starts, contexts, tables)))
        device = self._model.device
        return torch.from_numpy(token_ids).to(device), torch.from_numpy(positions).to(device), sequences

    def _pad(self, num_rows: int) -> int:
        step = max(self._row_multiple, power_of_two(num_rows) // (2 * NUM_SIZES))
        return -(-num_rows // step) * step


def _tables(plan: StepPlan) -> numpy.ndarray:
    """[work, most blocks] each sequence's blocks."""
    tables = numpy.zeros((len(plan.work), max(len(work.sequence.blocks) for work in plan.work)), dtype=numpy.int32)
    for i, work in enumerate(plan.work):
        # What is gone is before every window: whatever block stands there is not looked at.
        tables[i, work.sequence.num_gone : len(work.sequence.blocks)] = work.sequence.held
    return tables
