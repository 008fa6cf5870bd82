"""Paged attention: the compiled kernel and its torch twin against plain softmax, and bit for bit."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from serin_worker.attention.layer import LayerCache, LayerSpec, PagedAttention, StepSequences
from serin_worker.attention.native import NativePagedAttention
from serin_worker.attention.torch_paged import TorchPagedAttention
from serin_worker.native.library import KernelUnavailable, build

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


@pytest.fixture(scope="module", params=["native", "torch"])
def attention(request: pytest.FixtureRequest) -> PagedAttention:
    """Both implementations, one after the other."""
    if request.param == "torch":
        return TorchPagedAttention(torch.device("cpu"))
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
        cache.sinks = sinks
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
            out = attention.attend(cache, StepSequences(starts, contexts, self.tables[chosen].contiguous()), *rows)
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


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", SPECS)
def test_equals_plain_softmax(attention, name, dtype):
    """Every head layout, window and softcap gives what the definition gives."""
    conversation = Conversation(SPECS[name], LENGTHS, dtype)
    for sequence, rows in enumerate(conversation.run(attention, AT_ONCE)):
        right = conversation.expected(sequence)
        assert (rows.double() - right).norm() / right.norm() < TOLERANCE[dtype]


def test_sinks(attention):
    """A learned logit takes its share of the softmax and adds nothing."""
    sinks = torch.randn(6, generator=torch.Generator().manual_seed(3))
    conversation = Conversation(SPECS["uneven"], LENGTHS, torch.float32)
    for sequence, rows in enumerate(conversation.run(attention, AT_ONCE, sinks)):
        right = conversation.expected(sequence, sinks)
        assert (rows.double() - right).norm() / right.norm() < 2e-6


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", SPECS)
def test_a_decoded_row_is_bit_for_bit_the_prefilled_row(attention, name, dtype):
    """Token by token, alone, gives the same bits as all prompts at once."""
    conversation = Conversation(SPECS[name], LENGTHS, dtype)
    together, apart = conversation.run(attention, AT_ONCE), conversation.run(attention, ONE_BY_ONE)
    assert all(torch.equal(a, b) for a, b in zip(together, apart, strict=True))


@settings(max_examples=25)
@given(draw=st.randoms(use_true_random=True))
def test_any_chunking_and_batching_gives_the_same_bits(attention, draw):
    """However the rows are cut into steps, and whoever shares them."""
    spec, dtype = SPECS[draw.choice(sorted(SPECS))], draw.choice(list(TOLERANCE))
    lengths = [draw.randint(1, 90) for _ in range(draw.randint(1, 5))]
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


def test_padding_rows_give_zeros(attention):
    """Rows after the last sequence are answered, with zeros."""
    spec = SPECS["plain"]
    cache = attention.allocate(spec, 1, BLOCK, torch.float32)
    step = StepSequences(*(torch.tensor(x, dtype=torch.int32) for x in ([0, 3], [3], [[0]])))
    rows = (torch.randn(16, spec.num_query_heads, 16), torch.randn(16, 2, 16), torch.randn(16, 2, 16))
    out = attention.attend(cache, step, *rows)
    assert out.shape == (16, spec.num_query_heads * 16)
    assert out[3:].abs().sum() == 0
    assert out[:3].abs().sum() > 0


def test_copied_blocks_are_equal(attention):
    """A copy holds what its source held."""
    conversation = Conversation(SPECS["plain"], [20], torch.bfloat16)
    cache = attention.allocate(conversation.spec, 4, BLOCK, torch.bfloat16)
    step = StepSequences(*(torch.tensor(x, dtype=torch.int32) for x in ([0, 20], [20], [[0, 1]])))
    first = attention.attend(cache, step, *conversation.rows[0])
    attention.copy_blocks(cache, [0, 1], [2, 3])
    last = StepSequences(*(torch.tensor(x, dtype=torch.int32) for x in ([0, 1], [20], [[2, 3]])))
    again = attention.attend(cache, last, *(rows[-1:] for rows in conversation.rows[0]))
    assert torch.equal(again[0], first[-1])


def test_without_a_compiler_it_says_so(tmp_path, monkeypatch):
    """A machine without a compiler gets a clear answer, which selects the torch twin."""
    monkeypatch.setenv("CXX", str(tmp_path / "no-such-compiler"))
    with pytest.raises(KernelUnavailable, match="no-such-compiler does not run"):
        build(tmp_path)


def test_a_broken_build_leaves_nothing_behind(tmp_path, monkeypatch):
    """A compiler that fails is reported with its own words, and the next start tries again."""
    fake = tmp_path / "cxx"
    fake.write_text('#!/bin/sh\n[ "$1" = --version ] && exit 0\necho "no such flag" >&2\nexit 1\n')
    fake.chmod(0o755)
    monkeypatch.setenv("CXX", str(fake))
    with pytest.raises(KernelUnavailable, match="no such flag"):
        build(tmp_path / "kernels")
    assert list((tmp_path / "kernels").iterdir()) == []


def test_other_block_sizes_are_left_to_torch():
    """The kernel works in tiles of 16 keys and says so."""
    with pytest.raises(KernelUnavailable, match="not a multiple of 16"):
        NativePagedAttention(12)


def test_kernels_are_built_once_by_whoever_comes_first(tmp_path, monkeypatch):
    """Of threads or processes that need them at the same time the others wait, and take what was built."""
    compiler = tmp_path / "compiler"
    compiler.write_text(
        f"""#!/bin/sh
case "$*" in
  --version) echo 1; exit;;
  *-shared*) echo linked >> {tmp_path}/links; sleep 0.3;;
esac
while [ $# -gt 1 ]; do [ "$1" = -o ] && echo made > "$2"; shift; done
"""
    )
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    with ThreadPoolExecutor(4) as at_once:
        built = list(at_once.map(build, [tmp_path / "kernels"] * 4))
    assert {path.read_text() for path in built} == {"made\n"}
    assert (tmp_path / "links").read_text() == "linked\n"
