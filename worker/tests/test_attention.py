"""Paged attention: compiled kernels, Triton's and their torch twin against plain softmax, and bit for bit."""

import itertools
import shutil
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from serin_worker.attention.layer import LayerCache, LayerSpec, PagedAttention, StepSequences
from serin_worker.attention.native import NativePagedAttention
from serin_worker.attention.tiling import Tile, Tiling
from serin_worker.attention.torch_paged import TorchPagedAttention
from serin_worker.native.library import KernelUnavailable

BLOCK = 16
SPECS = {
    "plain": LayerSpec(4, 2, 16, 16, 0.25),
    "wide": LayerSpec(16, 8, 128, 128, 128**-0.5),
    "windowed": LayerSpec(8, 8, 64, 64, 0.125, window=7),
    "uneven": LayerSpec(6, 2, 24, 40, 0.2, window=21, softcap=3.0),
    "odd-tiles": LayerSpec(12, 2, 64, 40, 0.125, window=37, softcap=3.0),
    "one-head": LayerSpec(5, 1, 32, 32, 0.2),
}
TOLERANCE = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 6e-3}


SMALL = Tile(num_rows=64, num_keys=32, num_warps=4, num_stages=2)
"""So that short contexts have many tiles and splits."""

INTERPRETED = dict(zip(SPECS, itertools.cycle(TOLERANCE), strict=False))
"""Triton's interpreter takes milliseconds for a tile: each layer in one type here, and in all by the long tests."""
CASES = [
    pytest.param(kind, name, dtype, marks=[pytest.mark.long] if kind == "triton" and INTERPRETED[name] != dtype else [])
    for kind in ("native", "torch", "triton")
    for name in SPECS
    for dtype in TOLERANCE
]
each_case = pytest.mark.parametrize(("attention", "name", "dtype"), CASES, indirect=["attention"])


@pytest.fixture(scope="module", params=["native", "torch", "triton"])
def attention(request: pytest.FixtureRequest) -> PagedAttention:
    """All implementations, one after the other."""
    if request.param == "torch":
        return TorchPagedAttention(torch.device("cpu"))
    if request.param == "triton":
        device = request.getfixturevalue("triton_device")
        from serin_worker.attention.triton_paged import TritonPagedAttention

        return TritonPagedAttention(device, tiling=Tiling(SMALL, SMALL, 32, splits_prompts=True))
    if shutil.which("g++") is None:
        pytest.skip("no compiler")
    return NativePagedAttention(BLOCK)


class Conversation:
    """Random queries, keys and values of some sequences, fed to an attention in steps."""

    def __init__(self, spec: LayerSpec, lengths: list[int], dtype: torch.dtype, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.spec, self.lengths, self.dtype = spec, lengths, dtype
        heads = (
            (spec.num_query_heads, spec.key_dim),
            (spec.num_kv_heads, spec.key_dim),
            (spec.num_kv_heads, spec.value_dim),
        )
        self.rows = [
            tuple(torch.randn((length, *head), generator=generator).to(dtype) for head in heads) for length in lengths
        ]
        numbers = iter(torch.randperm(sum(-(-n // BLOCK) for n in lengths), generator=generator).tolist())
        self.num_blocks = sum(-(-n // BLOCK) for n in lengths)
        tables = [[next(numbers) for _ in range(-(-n // BLOCK))] for n in lengths]
        widest = max(len(table) for table in tables)
        self.tables = torch.tensor([table + [0] * (widest - len(table)) for table in tables], dtype=torch.int32)

    def run(
        self, attention: PagedAttention, steps: list[list[tuple[int, int]]], sinks: torch.Tensor | None = None
    ) -> list[torch.Tensor]:
        """Feed steps of (sequence, number of rows); returns each sequence's output rows."""
        cache: LayerCache = attention.allocate(self.spec, self.num_blocks, BLOCK, self.dtype)
        device = cache.keys.device
        cache.sinks = None if sinks is None else sinks.to(device)
        # What an earlier owner left behind must not matter, be it NaN.
        cache.keys.fill_(torch.nan)
        cache.values.fill_(torch.nan)
        done = [0] * len(self.lengths)
        outputs: list[list[torch.Tensor]] = [[] for _ in self.lengths]
        for step in steps:
            chosen = [s for s, _ in step]
            starts = torch.tensor([0, *(n for _, n in step)]).cumsum(0).int()
            contexts = torch.tensor([done[s] + n for s, n in step], dtype=torch.int32)
            rows = [torch.cat([self.rows[s][i][done[s] : done[s] + n] for s, n in step]) for i in range(3)]
            sequences = StepSequences(starts, contexts, self.tables[chosen].contiguous())
            out = attention.attend(cache, sequences, *(tensor.to(device) for tensor in rows)).cpu()
            for (s, n), first in zip(step, starts.tolist(), strict=False):
                outputs[s].append(out[first : first + n])
                done[s] += n
        return [torch.cat(parts) if parts else torch.empty(0) for parts in outputs]

    def expected(self, sequence: int, sinks: torch.Tensor | None = None) -> torch.Tensor:
        """Softmax attention written down plainly, in double precision."""
        spec = self.spec
        query, key, value = (rows.double().transpose(0, 1) for rows in self.rows[sequence])
        group = spec.num_query_heads // spec.num_kv_heads
        scores = query @ key.repeat_interleave(group, 0).transpose(1, 2) * spec.scale
        if spec.softcap:
            scores = spec.softcap * torch.tanh(scores / spec.softcap)
        length = query.shape[1]
        distance = torch.arange(length)[:, None] - torch.arange(length)[None]
        seen = (distance >= 0) & ((distance < spec.window) if spec.window else torch.tensor(True))
        scores = scores.masked_fill(~seen, -torch.inf)
        if sinks is not None:
            scores = torch.cat([scores, sinks.double()[:, None, None].expand(-1, length, 1)], -1)
        weights = torch.softmax(scores, -1)[..., :length]
        return (weights @ value.repeat_interleave(group, 0)).transpose(0, 1).reshape(length, -1)


LENGTHS = [150, 33, 1, 16, 70]
AT_ONCE = [list(enumerate(LENGTHS))]
ONE_BY_ONE = [[(s, 1)] for s, length in enumerate(LENGTHS) for _ in range(length)]
SHORT_LENGTHS = [34, 1, 5]
SHORT_AT_ONCE = [list(enumerate(SHORT_LENGTHS))]
SHORT_STEPS = [[(0, 31), (2, 4)], [(0, 2), (1, 1)], [(2, 1), (0, 1)]]
"""Prompts, decodes, and both in one step."""


def is_interpreted(attention):
    """Whether long contexts would take too long."""
    return attention.layout.startswith("triton")


@pytest.fixture(scope="module")
def at_once():
    """A conversation of a layer in a type, and its outputs if all is computed in one step; computed once."""
    found = {}

    def run(attention, name, dtype):
        key = (attention.layout, name, dtype)
        if key not in found:
            spec = SPECS[name]
            if is_interpreted(attention) and spec.num_query_heads > 6:
                spec = replace(spec, num_query_heads=spec.num_query_heads // spec.num_kv_heads, num_kv_heads=1)
            conversation = Conversation(spec, SHORT_LENGTHS if is_interpreted(attention) else LENGTHS, dtype)
            steps = SHORT_AT_ONCE if is_interpreted(attention) else AT_ONCE
            found[key] = conversation, conversation.run(attention, steps)
        return found[key]

    return run


@each_case
def test_equals_plain_softmax(attention, name, dtype, at_once):
    """Every head layout, window and softcap gives what the definition gives."""
    conversation, outputs = at_once(attention, name, dtype)
    for sequence, rows in enumerate(outputs):
        right = conversation.expected(sequence)
        assert (rows.double() - right).norm() / right.norm() < TOLERANCE[dtype]


def test_sinks(attention):
    """A learned logit takes its share of the softmax and adds nothing."""
    sinks = torch.randn(6, generator=torch.Generator().manual_seed(3))
    conversation = Conversation(SPECS["uneven"], [33, 1], torch.float32)
    apart = conversation.run(attention, [[(0, 32), (1, 1)], [(0, 1)]], sinks)
    for sequence, rows in enumerate(conversation.run(attention, [[(0, 33), (1, 1)]], sinks)):
        assert torch.equal(rows, apart[sequence])
        right = conversation.expected(sequence, sinks)
        assert (rows.double() - right).norm() / right.norm() < 2e-6


@each_case
def test_a_decoded_row_is_bit_for_bit_the_prefilled_row(attention, name, dtype, at_once):
    """Token by token, alone, gives the same bits as all prompts at once."""
    conversation, together = at_once(attention, name, dtype)
    apart = conversation.run(attention, SHORT_STEPS if is_interpreted(attention) else ONE_BY_ONE)
    assert all(torch.equal(a, b) for a, b in zip(together, apart, strict=True))


def check_chunking(attention, draw, names, longest, most):
    """Cut sequences into steps as ``draw`` says, and compare with all of them in one step."""
    spec, dtype = SPECS[draw.choice(names)], draw.choice(list(TOLERANCE))
    lengths = [draw.randint(1, longest) for _ in range(draw.randint(1, most))]
    left, steps = list(lengths), []
    while any(left):
        step = [(s, min(n, draw.choice((0, 1, 1, 5, 17, 64)))) for s, n in enumerate(left)]
        step = [(s, n) for s, n in step if n]
        draw.shuffle(step)
        for s, n in step:
            left[s] -= n
        steps += [step] if step else []
    conversation = Conversation(spec, lengths, dtype)
    together = conversation.run(attention, [list(enumerate(lengths))])
    assert all(torch.equal(a, b) for a, b in zip(together, conversation.run(attention, steps), strict=True))


@pytest.mark.parametrize("attention", ["native", "torch"], indirect=True)
@settings(max_examples=25)
@given(draw=st.randoms(use_true_random=True))
def test_any_chunking_and_batching_gives_the_same_bits(attention, draw):
    """However the rows are cut into steps, and whoever shares them."""
    check_chunking(attention, draw, sorted(SPECS), longest=90, most=5)


@pytest.mark.parametrize("attention", ["triton"], indirect=True)
@settings(max_examples=1)
@given(draw=st.randoms(use_true_random=True))
def test_any_chunking_and_batching_gives_the_same_bits_by_the_interpreter(attention, draw):
    """The same, of layers with few heads and of short contexts."""
    check_chunking(attention, draw, ["one-head", "plain"], longest=20, most=3)


LONG_LENGTHS = [530, 270]
LONG_STEPS = [[(0, 200)], [(0, 57), (1, 256)], [(1, 1), (0, 1)], [(0, 200), (1, 13)], [(0, 72)]]


@pytest.mark.parametrize(
    ("attention", "name", "dtype"),
    [("torch", "uneven", torch.float32), *itertools.product(["native"], ["plain", "wide", "uneven"], TOLERANCE)],
    indirect=["attention"],
)
@pytest.mark.parametrize("window", [0, 300])
def test_scores_that_rise_over_long_contexts(attention, name, dtype, window):
    """Each maximum is far above what was summed before it: the sums follow, to the bit wherever steps are cut."""
    spec = replace(SPECS[name], window=window)
    conversation = Conversation(spec, LONG_LENGTHS, dtype)
    for _, key, _ in conversation.rows:
        key *= torch.linspace(0.1, 6, len(key))[:, None, None]
    together = conversation.run(attention, [list(enumerate(LONG_LENGTHS))])
    apart = conversation.run(attention, LONG_STEPS)
    assert all(torch.equal(a, b) for a, b in zip(together, apart, strict=True))
    for sequence, rows in enumerate(together):
        right = conversation.expected(sequence)
        assert (rows.double() - right).norm() / right.norm() < 3 * TOLERANCE[dtype]


@pytest.mark.parametrize("attention", ["native", "torch"], indirect=True)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_row_that_is_no_number_stays_alone(attention, dtype):
    """A query of NaN gives NaN; what is computed beside it does not notice."""
    conversation = Conversation(SPECS["wide"], [40], dtype)
    (right,) = conversation.run(attention, [[(0, 40)]])
    query, _, _ = conversation.rows[0]
    bits = torch.int32 if dtype == torch.float32 else torch.int16
    query.view(bits)[17] = torch.iinfo(bits).max  # a NaN whose last bits are set too
    (rows,) = conversation.run(attention, [[(0, 40)]])
    assert rows[17].isnan().all()
    others = torch.arange(40) != 17
    assert torch.equal(rows[others], right[others])


def test_what_left_the_window_is_not_read(attention):
    """A block that no later row sees may belong to another sequence by now, whose numbers may be NaN."""
    spec = SPECS["uneven"]
    conversation = Conversation(spec, [40], torch.float32)
    cache = attention.allocate(spec, 3, BLOCK, torch.float32)
    rows = [tensor.to(cache.keys.device) for tensor in conversation.rows[0]]

    def attend(count, context, table, rows):
        step = StepSequences(*(torch.tensor(x, dtype=torch.int32) for x in ([0, count], [context], [table])))
        return attention.attend(cache, step, *rows)

    attend(39, 39, [0, 1, 2], [tensor[:39] for tensor in rows])
    attend(16, 16, [0, 0, 0], [torch.full_like(tensor[:16], torch.nan) for tensor in rows])
    last = attend(1, 40, [0, 1, 2], [tensor[39:] for tensor in rows])
    torch.testing.assert_close(last.cpu().double(), conversation.expected(0)[39:], rtol=1e-4, atol=1e-5)


def test_padding_rows_give_zeros(attention):
    """Rows after the last sequence are answered, with zeros."""
    spec = SPECS["plain"]
    cache = attention.allocate(spec, 1, BLOCK, torch.float32)
    step = StepSequences(*(torch.tensor(x, dtype=torch.int32) for x in ([0, 3], [3], [[0]])))
    rows = (torch.randn(16, spec.num_query_heads, 16), torch.randn(16, 2, 16), torch.randn(16, 2, 16))
    out = attention.attend(cache, step, *(tensor.to(cache.keys.device) for tensor in rows))
    assert out.shape == (16, spec.num_query_heads * 16)
    assert out[3:].abs().sum() == 0
    assert out[:3].abs().sum() > 0


def test_copied_blocks_are_equal(attention):
    """A copy holds what its source held."""
    conversation = Conversation(SPECS["plain"], [20], torch.bfloat16)
    cache = attention.allocate(conversation.spec, 4, BLOCK, torch.bfloat16)
    step = StepSequences(*(torch.tensor(x, dtype=torch.int32) for x in ([0, 20], [20], [[0, 1]])))
    rows = [tensor.to(cache.keys.device) for tensor in conversation.rows[0]]
    first = attention.attend(cache, step, *rows)
    attention.copy_blocks(cache, [0, 1], [2, 3])
    last = StepSequences(*(torch.tensor(x, dtype=torch.int32) for x in ([0, 1], [20], [[2, 3]])))
    again = attention.attend(cache, last, *(tensor[-1:] for tensor in rows))
    assert torch.equal(again[0], first[-1])


def test_other_block_sizes_are_left_to_torch():
    """The kernel works in tiles of 16 keys and says so."""
    with pytest.raises(KernelUnavailable, match="not a multiple of 16"):
        NativePagedAttention(12)
