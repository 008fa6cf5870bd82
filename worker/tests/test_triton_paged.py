"""Paged attention by Triton, beyond what it shares with the others: steps on the device, long contexts, compilation."""

import itertools
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from serin_worker import startup
from serin_worker.attention.device_step import DeviceStep
from serin_worker.attention.layer import LayerSpec, StepSequences
from serin_worker.attention.tiling import Tile, Tiling, tiling_of
from serin_worker.attention.torch_paged import TorchPagedAttention
from serin_worker.config import EngineConfig
from serin_worker.native.triton_runtime import has_triton
from serin_worker.request import GenerationRequest, Sampling, Stopping
from serin_worker.startup import choose_attention
from serin_worker.testing import run_dry, tokens_of

BLOCK = 16
SMALL = Tile(num_rows=64, num_keys=16, num_warps=4, num_stages=2)
SPEC = LayerSpec(2, 2, 16, 16, 0.25)


@pytest.fixture
def triton_paged(triton_device):
    """Makes the attention, where its kernels can run."""
    from serin_worker.attention.triton_paged import TritonPagedAttention

    return lambda **options: TritonPagedAttention(triton_device, **options)


def a_step(chunks, tables):
    """Of (context, new rows)."""
    starts = torch.tensor([0, *(count for _, count in chunks)]).cumsum(0).int()
    contexts = torch.tensor([context for context, _ in chunks], dtype=torch.int32)
    return StepSequences(starts, contexts, torch.tensor(tables, dtype=torch.int32))


def some_rows(count, spec, device, dtype=torch.float32, seed=0):
    """Queries, keys and values."""
    generator = torch.Generator().manual_seed(seed)
    shapes = (
        (spec.num_query_heads, spec.key_dim),
        (spec.num_kv_heads, spec.key_dim),
        (spec.num_kv_heads, spec.value_dim),
    )
    return [torch.randn((count, *shape), generator=generator).to(device, dtype) for shape in shapes]


def test_a_step_is_told_row_by_row():
    """Sequences and positions of rows, padding included, in int32 that begin where allocated tensors do."""
    step = DeviceStep.of(a_step([(7, 3), (0, 0), (5, 1)], [[1, 2, 3], [0, 0, 0], [4, 5, 0]]), 6, torch.device("cpu"))
    assert step.row_sequences.tolist() == [0, 0, 0, 2, -1, -1]
    assert step.row_positions.tolist() == [4, 5, 6, 4, 0, 0]
    assert (step.starts.tolist(), step.contexts.tolist()) == ([0, 3, 3, 4], [7, 0, 5])
    assert step.tables.tolist() == [[1, 2, 3], [0, 0, 0], [4, 5, 0]]
    assert (step.max_new, step.num_padded) == (3, 6)
    tensors = (step.starts, step.contexts, step.tables, step.row_sequences, step.row_positions)
    assert all(tensor.dtype == torch.int32 and tensor.data_ptr() % 16 == 0 for tensor in tensors)
    assert len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == 1


def test_a_step_goes_to_the_device_once(triton_paged):
    """The first layer takes it there, the others find it."""
    attention = triton_paged(tiling=Tiling(SMALL, SMALL, 16, splits_prompts=True))
    caches = [attention.allocate(SPEC, 1, BLOCK, torch.float32) for _ in range(2)]
    step = a_step([(1, 1)], [[0]])
    rows = some_rows(1, SPEC, caches[0].keys.device)
    first = attention.attend(caches[0], step, *rows)
    on_device = step.on_device
    assert on_device is not None
    assert torch.equal(attention.attend(caches[1], step, *rows), first)
    assert step.on_device is on_device


def test_a_refilled_step_is_the_other_step(triton_paged):
    """As a graph's replays do it: shapes stay, and what lay in the output's memory before does not matter."""
    attention = triton_paged(tiling=Tiling(SMALL, SMALL, 16, splits_prompts=True))
    cache, other = (attention.allocate(SPEC, 6, BLOCK, torch.float32) for _ in range(2))
    device = cache.keys.device
    tables = [[3, 1, 0], [2, 5, 0], [0, 0, 0]]
    for pages in (cache, other):
        attention.attend(pages, a_step([(18, 18), (3, 3)], tables[:2]), *some_rows(21, SPEC, device, seed=1))
    held = DeviceStep.of(a_step([(1, 1), (0, 0), (0, 0)], [[4, 0, 0], [0, 0, 0], [0, 0, 0]]), 4, device)
    rows = some_rows(4, SPEC, device, seed=2)
    attention.attend_device(cache, held, *rows)
    step = a_step([(19, 1), (4, 1), (0, 0)], tables)
    filled = DeviceStep.of(step, 4, device)
    for name in ("starts", "contexts", "tables", "row_sequences", "row_positions"):
        getattr(held, name).copy_(getattr(filled, name))
    found = attention.attend_device(cache, held, *rows)
    assert torch.equal(found, attention.attend(other, step, *rows))
    assert found[:2].abs().sum(1).gt(0).all()
    assert found[2:].abs().sum() == 0


@pytest.mark.parametrize("splits_prompts", [True, False])
def test_long_contexts_have_longer_splits(triton_paged, splits_prompts):
    """Beyond sixteen splits, for prompts with and without them: as the torch twin says, to the bit where promised."""
    tile = SMALL._replace(num_rows=256)
    attention = triton_paged(tiling=Tiling(tile, tile, 16, splits_prompts=splits_prompts))
    spec, length = LayerSpec(1, 1, 16, 16, 0.25), 290
    tables = [list(range(19))]
    rows = some_rows(length, spec, torch.device("cpu"))
    twin = TorchPagedAttention(torch.device("cpu"))
    right = twin.attend(twin.allocate(spec, 19, BLOCK, torch.float32), a_step([(length, length)], tables), *rows)
    cache = attention.allocate(spec, 19, BLOCK, torch.float32)
    on_device = [tensor.to(cache.keys.device) for tensor in rows]
    prompt = attention.attend(cache, a_step([(length, length)], tables), *on_device)
    decode = attention.attend(cache, a_step([(length, 1)], tables), *(tensor[-1:] for tensor in on_device))
    torch.testing.assert_close(prompt.cpu(), right, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(decode.cpu(), right[-1:], rtol=1e-5, atol=1e-6)
    if splits_prompts:
        assert torch.equal(decode[0], prompt[-1])


def test_splits_grow_with_their_position(triton_paged):
    """They cover all keys, each is a multiple of the first, and a context of 128,000 has few."""
    triton_paged()
    from serin_worker.attention.triton_paged import count_splits
    from serin_worker.attention.triton_softmax import split_start

    starts = [split_start.fn(split, 256) for split in range(57)]
    sizes = [second - first for first, second in itertools.pairwise(starts)]
    assert sizes == [256] * 16 + [256 << octave for octave in range(1, 6) for _ in range(8)]
    assert [count_splits(length, 256) for length in (0, 1, 256, 257, 4096, 4097, 131072)] == [0, 1, 1, 2, 16, 17, 56]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("invariant", [True, False])
def test_tilings_fit_layers(dtype, invariant):
    """Tiles have room for a group's heads, and splits are whole tiles, whatever the heads."""
    for dims in (16, 64, 80, 128, 192, 256, 512):
        for group in (1, 5, 16, 71):
            tiling = tiling_of(LayerSpec(group, 1, dims, dims, 1.0), dtype, invariant=invariant)
            for tile in (tiling.prompts, tiling.decodes):
                assert tile.num_rows >= group
                assert tiling.first_split % tile.num_keys == 0
            assert not invariant or tiling.prompts == tiling.decodes


@pytest.mark.parametrize("invariant", [True, False])
def test_its_own_tiles_compute_the_same(triton_paged, invariant):
    """What a device would run, with sixteen heads to a key head and pages of another size."""
    attention = triton_paged(invariant=invariant)
    spec = LayerSpec(16, 1, 16, 16, 0.25)
    twin = TorchPagedAttention(torch.device("cpu"))
    rows = some_rows(9, spec, torch.device("cpu"), torch.float16)
    right = twin.attend(twin.allocate(spec, 2, 12, torch.float16), a_step([(9, 9)], [[1]]), *rows)
    cache = attention.allocate(spec, 2, 12, torch.float16)
    on_device = [tensor.to(cache.keys.device) for tensor in rows]
    found = attention.attend(cache, a_step([(9, 9)], [[1]]), *on_device)
    last = attention.attend(cache, a_step([(9, 1)], [[1]]), *(tensor[-1:] for tensor in on_device))
    torch.testing.assert_close(torch.cat([found, last]).cpu(), torch.cat([right, right[-1:]]), rtol=2e-3, atol=2e-3)


@pytest.mark.usefixtures("triton_device")
def test_a_gpu_is_given_kernels_that_say_they_never_ran(caplog, monkeypatch):
    """Whoever starts a model there is told what to expect."""
    monkeypatch.setattr(startup, "has_triton", lambda device: True)
    with caplog.at_level(logging.WARNING):
        assert choose_attention(torch.device("cuda"), BLOCK).layout == "triton-v1"
    assert "have run on no device yet" in caplog.text


def test_a_gpu_without_triton_is_given_torch_and_told_what_to_install(caplog, monkeypatch):
    """In one line."""
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "serin_worker.native.triton_trial", raising=False)
    has_triton.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert choose_attention(torch.device("cuda"), BLOCK).layout == "torch-v1"
    has_triton.cache_clear()
    assert "pip install 'serin-worker[cuda]'" in caplog.text
    assert len(caplog.records) == 1


@pytest.mark.long
def test_a_model_runs_as_with_torch(triton_paged, tiny_folder, monkeypatch):
    """Compared with its own attention and, bit for bit, with itself at its start; then the same greedy answers."""
    folder = str(tiny_folder("mistral"))
    answers = []
    for attention in (triton_paged(), TorchPagedAttention(torch.device("cpu"))):
        monkeypatch.setattr(startup, "choose_attention", lambda *_, found=attention, **__: found)
        config = EngineConfig(precision="float32", numerics="invariant", num_blocks=16)
        engine, about = startup.load_engine(folder, config)
        assert (about.attention, about.numerics) == (attention.layout, "invariant")
        for name, prompt in (("long", list(range(3, 33))), ("short", [5, 6])):
            engine.add(GenerationRequest(name, prompt, Sampling(temperature=0.0), Stopping(max_tokens=6)))
        answers.append({name: tokens_of(outputs) for name, outputs in run_dry(engine).items()})
    assert answers[0] == answers[1]


@pytest.mark.long
@pytest.mark.usefixtures("triton_device")
def test_kernels_compile_for_a_device(tmp_path):
    """By Triton's own compiler, which takes less of the language than its interpreter; prompts and decodes alike."""
    program = Path(__file__).with_name("compile_triton.py")
    environment = {"PATH": "/usr/bin:/bin", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, str(program)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
