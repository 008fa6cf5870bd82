"""Recorded decode steps compute what steps that are not recorded compute; here with the eager twin of graphs."""

import itertools
import random

import pytest
import torch
from serin_worker.attention.device_step import DeviceStep
from serin_worker.attention.layer import LayerCache, PagedAttention, StepSequences
from serin_worker.attention.torch_paged import TorchPagedAttention
from serin_worker.blocks import BlockPool
from serin_worker.bounds import Bounds
from serin_worker.engine import Engine
from serin_worker.limits import Limits
from serin_worker.model import checkpoint, loading
from serin_worker.model.causal_lm import CausalModel
from serin_worker.model.decode_graphs import DecodeGraphs, EagerRecorder
from serin_worker.request import GenerationRequest, Sampling, Stopping
from serin_worker.runner import ModelRunner
from serin_worker.testing import TINY_VOCABULARY, run_dry, tokens_of

NUM_BLOCKS = 160
MOST = 20


class TwinAttention(TorchPagedAttention):
    """Reads the step from its tensors, as kernels do, and computes it in plain torch."""

    def attend_device(
        self, cache: LayerCache, step: DeviceStep, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        """What :meth:`attend` gives for the sequences that have rows."""
        count = int((step.row_sequences >= 0).sum())
        assert step.max_new == 1
        assert step.starts.tolist() == [min(i, count) for i in range(len(step.contexts) + 1)]
        assert step.row_sequences[:count].tolist() == list(range(count))
        assert step.row_positions[:count].tolist() == (step.contexts[:count] - 1).tolist()
        assert not step.contexts[count:].any()
        if not count:
            return query.new_zeros((len(query), cache.spec.num_query_heads * cache.spec.value_dim))
        sequences = StepSequences(step.starts[: count + 1], step.contexts[:count], step.tables[:count])
        return self.attend(cache, sequences, query, key, value)


class Counting(EagerRecorder):
    """Counts what is recorded and replayed."""

    def __init__(self) -> None:
        self.num_recorded = 0
        self.num_replayed = 0

    def record(self, compute):
        """The computation, counted."""
        self.num_recorded += 1

        def replay() -> torch.Tensor:
            self.num_replayed += 1
            return compute()

        return replay


@pytest.fixture(scope="module")
def model(tiny_folder) -> CausalModel:
    """A bound model in float32."""
    found = checkpoint.inspect(tiny_folder("qwen3"))
    model = CausalModel(loading.load(loading.describe(found, "float32"), torch.device("cpu"), lambda fraction: None))
    model.bind(TwinAttention(torch.device("cpu")), NUM_BLOCKS, 16)
    return model


def engine_of(model: CausalModel, graphs: DecodeGraphs | None, *, runs_ahead: bool = False) -> Engine:
    """A fresh engine over the model."""
    bounds, limits = Bounds(400, TINY_VOCABULARY, frozenset({1}), 100), Limits(16, 24, 64, window=0)
    return Engine(ModelRunner(model, 1, graphs), BlockPool(NUM_BLOCKS), limits, bounds, runs_ahead=runs_ahead)


def answers(engine: Engine, seed: int) -> dict[str, list[int]]:
    """Tokens of requests that arrive and end at random."""
    draw = random.Random(seed)
    for number in range(30):
        prompt = [draw.randrange(TINY_VOCABULARY) for _ in range(draw.randint(1, 90))]
        sampling = Sampling(temperature=draw.choice((0.0, 1.0)), seed=number)
        stopping = Stopping(max_tokens=draw.randint(1, 20), ignore_eos=True)
        engine.add(GenerationRequest(f"r{number}", prompt, sampling, stopping))
    outputs = run_dry(engine)
    return {f"r{number}": tokens_of(outputs, f"r{number}") for number in range(30)}


@pytest.mark.parametrize("seed", range(3))
def test_recorded_steps_give_the_same_tokens(model: CausalModel, seed: int):
    """Sequences that join, end, are preempted; steps that are larger than any graph."""
    recorder = Counting()
    graphs = DecodeGraphs(model, recorder, MOST)
    right = answers(engine_of(model, None), seed)
    assert answers(engine_of(model, graphs), seed) == right
    assert recorder.num_replayed > recorder.num_recorded > 2
    for some in (graphs, None):  # tokens are read where they were drawn
        assert answers(engine_of(model, some, runs_ahead=True), seed) == right


def test_kernels_read_the_same_buffers(tiny_folder, triton_device: torch.device):
    """The attention that runs on GPUs, by its interpreter where there is none: the tokens of plain torch."""
    from serin_worker.attention.triton_paged import TritonPagedAttention

    found = checkpoint.inspect(tiny_folder("qwen3"))

    def tokens(attention: PagedAttention, device: torch.device) -> list[list[int]]:
        model = CausalModel(loading.load(loading.describe(found, "float32"), device, lambda fraction: None))
        model.bind(attention, NUM_BLOCKS, 16)
        engine = engine_of(model, DecodeGraphs(model, EagerRecorder(), 4))
        for number, prompt in enumerate(([5, 6, 7], [8] * 20)):
            engine.add(GenerationRequest(f"r{number}", prompt, Sampling(temperature=0.0), Stopping(max_tokens=4)))
        outputs = run_dry(engine)
        return [tokens_of(outputs, f"r{number}") for number in range(2)]

    right = tokens(TwinAttention(torch.device("cpu")), torch.device("cpu"))
    assert tokens(TritonPagedAttention(triton_device), triton_device) == right


def test_long_sequences_have_graphs_of_their_own(model: CausalModel):
    """A graph has room for so many blocks; the next one for twice as many. What it computes stays the same."""
    recorder = Counting()
    graphs = DecodeGraphs(model, recorder, 1)
    tables = torch.randperm(NUM_BLOCKS)[:130].int()[None].numpy()
    token, context = torch.tensor([7]).int().numpy(), torch.tensor([40]).int().numpy()
    short, long = (graphs.run(token, context, tables[:, :width]).clone() for width in (3, 130))
    assert recorder.num_recorded == 2
    assert torch.equal(short, long)


def test_recording_writes_to_no_page(model: CausalModel):
    """Recording computes, as libraries set up kernels at their first calls; sequences may be running meanwhile."""

    class Computing(EagerRecorder):
        def record(self, compute):
            compute()
            return compute

    graphs = DecodeGraphs(model, Computing(), MOST)
    answers(engine_of(model, None), 0)
    before = [(cache.keys.clone(), cache.values.clone()) for cache in model._caches]
    graphs.record(lambda fraction: None)
    after = [(cache.keys, cache.values) for cache in model._caches]
    assert all(torch.equal(a, b) for was, now in zip(before, after, strict=True) for a, b in zip(was, now, strict=True))


@pytest.mark.parametrize("multiple", [1, 2, 16])
@pytest.mark.parametrize("most", [1, 3, 64, 100, 512])
def test_there_are_few_sizes(multiple: int, most: int):
    """Up to the largest step; multiples of what keeps bits; above eight at most an eighth is padding, or seven rows."""
    sizes = DecodeGraphs(None, EagerRecorder(), most, multiple).sizes  # type: ignore[arg-type]
    assert sizes[-1] >= most
    assert len(sizes) <= 40
    assert all(size % multiple == 0 for size in sizes)
    for before, size in itertools.pairwise(sizes):
        assert before < most
        assert size - before <= max(multiple, 8 if size <= 64 else size / 4, before if size <= 8 else 0)


def test_what_is_recorded_first_is_the_largest(model: CausalModel):
    """Graphs share memory: smaller ones find that of larger ones free."""
    done: list[float] = []
    graphs = DecodeGraphs(model, EagerRecorder(), MOST)
    graphs.record(done.append)
    assert [size for size, _ in graphs._graphs] == graphs.sizes[::-1] == [24, 16, 8, 4, 2, 1]
    assert done[-1] == 1.0
    assert graphs.takes(MOST)
    assert not graphs.takes(MOST + 1)
