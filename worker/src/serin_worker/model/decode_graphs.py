"""Decode steps as recorded graphs: one launch a step, where hundreds of small ones take longer than their work.

A graph is recorded for each of some sizes (sequences, and blocks of the longest) and replayed on buffers that are
filled anew before it. Knows nothing about requests or schedules.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy
import torch

from serin_worker.attention.device_step import ALIGNMENT, DeviceStep
from serin_worker.model.causal_lm import CausalModel
from serin_worker.rounding import power_of_two

Compute = Callable[[], torch.Tensor]
FEW, PARTS = 8, 8
"""Above so many sequences sizes are multiples of an eighth of the next power of two: so much is padding at most."""
FIRST_WIDTH = 64
"""Blocks of the longest sequence that the smallest graphs have room for; then twice as many each time."""


class Recorder(Protocol):
    """Turns a computation on fixed tensors into one that can be repeated at little cost."""

    def record(self, compute: Compute) -> Compute:
        """What repeats ``compute`` on what its tensors hold by then; its result is the same tensor each time."""
        ...


class CudaRecorder:
    """CUDA graphs, which share one pool of memory: only one of them runs at a time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, compute: Compute) -> Compute:
        """Run it twice, as libraries choose and set up kernels at their first calls, then record it."""
        stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            compute()
            compute()
        torch.cuda.current_stream(self._device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            result = compute()

        def replay() -> torch.Tensor:
            graph.replay()
            return result

        return replay


class EagerRecorder:
    """Computes anew each time: what tests of sizes and buffers compare with, and what a graph must equal."""

    def record(self, compute: Compute) -> Compute:
        """The computation itself."""
        return compute


class DecodeGraphs:
    """Steps of one token for each of several sequences.

    Args:
        model: bound to its pages, with an attention that takes a :class:`DeviceStep`.
        recorder: of the model's device.
        most: sequences of the largest graph; larger steps are not taken.
        row_multiple: in whose multiples of rows a row's bits do not depend on its batch.
    """

    def __init__(self, model: CausalModel, recorder: Recorder, most: int, row_multiple: int = 1) -> None:
        self._model = model
        self._recorder = recorder
        self.sizes = list(_sizes(most, row_multiple))
        """Sequences of the graphs there may be, ascending."""
        self._most = most
        self._graphs: dict[tuple[int, int], _Graph] = {}

    def takes(self, num_sequences: int) -> bool:
        """Whether steps of so many sequences are recorded."""
        return 0 < num_sequences <= self._most

    def record(self, progress: Callable[[float], None]) -> None:
        """Record what is likely to be needed, the largest first: smaller ones then find its memory free."""
        for done, size in enumerate(reversed(self.sizes), 1):
            self._graph(size, FIRST_WIDTH)
            progress(done / len(self.sizes))

    def run(
        self,
        token_ids: numpy.ndarray,
        contexts: numpy.ndarray,
        tables: numpy.ndarray,
        on_device: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Logits [n, vocabulary] of n sequences' next tokens. They hold until the next step of any size.

        Args:
            token_ids: [n], the last of each sequence.
            contexts: [n], its length, that token included.
            tables: [n, any], its blocks.
            on_device: [n], takes the place of ``token_ids``, which the host does not know yet.
        """
        num_sequences, width = tables.shape
        size = self.sizes[bisect_left(self.sizes, num_sequences)]
        graph = self._graph(size, max(FIRST_WIDTH, power_of_two(width)))
        graph.fill(token_ids, contexts, tables, on_device)
        return graph.replay()[:num_sequences]

    def _graph(self, size: int, width: int) -> "_Graph":
        graph = self._graphs.get((size, width))
        if graph is None:
            graph = self._graphs[size, width] = _Graph(self._model, self._recorder, size, width)
        return graph


@dataclass(slots=True)
class _Inputs:
    """Views of one buffer, so that one copy fills all of them."""

    token_ids: torch.Tensor
    starts: torch.Tensor
    contexts: torch.Tensor
    row_sequences: torch.Tensor
    row_positions: torch.Tensor
    tables: torch.Tensor

    @classmethod
    def of(cls, buffer: torch.Tensor, size: int, width: int) -> "_Inputs":
        room = _room(size)
        token_ids, contexts, row_sequences, row_positions = buffer[: 4 * room].view(4, room)[:, :size]
        starts = buffer[4 * room :][: size + 1]
        tables = buffer[5 * room + ALIGNMENT :].view(size, width)
        return cls(token_ids, starts, contexts, row_sequences, row_positions, tables)

    @staticmethod
    def length(size: int, width: int) -> int:
        """Numbers in the buffer."""
        return 5 * _room(size) + ALIGNMENT + size * width


class _Graph:
    """One size: its buffers, and what replays it."""

    def __init__(self, model: CausalModel, recorder: Recorder, size: int, width: int) -> None:
        device = model.device
        length, is_on_cuda = _Inputs.length(size, width), device.type == "cuda"
        # Two of them: while the device may still read one, the next step is written down in the other.
        self._hosts = [torch.zeros(length, dtype=torch.int32, pin_memory=is_on_cuda) for _ in range(2)]
        self._device = self._hosts[0].to(device)
        self._filled = [_Inputs.of(host, size, width) for host in self._hosts]
        self._read = read = _Inputs.of(self._device, size, width)
        step = DeviceStep(read.starts, read.contexts, read.tables, read.row_sequences, read.row_positions, 1, size)
        rows = torch.arange(size, device=device)
        # Recording computes, maybe between two steps of others: with padding alone it writes to nobody's pages.
        nobody = numpy.zeros(0, dtype=numpy.int32)
        self.fill(nobody, nobody, nobody.reshape(0, 1))
        self._compute = recorder.record(lambda: model.forward(read.token_ids, read.row_positions, step, rows))

    def fill(
        self,
        token_ids: numpy.ndarray,
        contexts: numpy.ndarray,
        tables: numpy.ndarray,
        on_device: torch.Tensor | None = None,
    ) -> None:
        """Say what the next replay computes; of two steps that follow each other one at most is on its way yet."""
        count, width = tables.shape
        self._hosts.reverse()
        self._filled.reverse()
        filled = self._filled[0]
        for buffer, numbers, rest in (
            (filled.token_ids, token_ids, 0),
            (filled.contexts, contexts, 0),
            (filled.starts, numpy.arange(count), count),
            (filled.row_sequences, numpy.arange(count), -1),
            (filled.row_positions, contexts - 1, 0),
        ):
            buffer[count:] = rest
            buffer.numpy()[:count] = numbers
        filled.tables.numpy()[:count, :width] = tables
        self._device.copy_(self._hosts[0], non_blocking=True)
        if on_device is not None:
            self._read.token_ids[:count].copy_(on_device)

    def replay(self) -> torch.Tensor:
        """Compute it: logits [size, vocabulary]."""
        return self._compute()


def _room(size: int) -> int:
    return size + -size % ALIGNMENT


def _sizes(most: int, row_multiple: int) -> Iterator[int]:
    """1, 2, 4, 8, then multiples of an eighth of the next power of two; the last one is ``most`` or a little more."""
    size = row_multiple
    while True:
        yield size
        if size >= most:
            return
        size += max(row_multiple, size if size < FEW else max(FEW, power_of_two(size + 1) // PARTS))
