"""Triton's kernels take the token that the torch functions take, and the results of a step come by one copy."""

import random

import pytest
import torch
from serin_worker.request import Sampling
from serin_worker.sampling import sampler
from serin_worker.sampling.draw import gumbel_noise, take
from serin_worker.sampling.to_host import begin_copy

triton_draw = pytest.importorskip("serin_worker.sampling.triton_draw", reason="Triton is missing")
triton_kernels = pytest.importorskip("serin_worker.sampling.triton_kernels", reason="Triton is missing")


@pytest.fixture
def tile(monkeypatch):
    """Another tile, so that few logits make several programs, or many rows few."""
    return lambda size: monkeypatch.setattr(triton_draw, "TILE", size)


def logits_of(num_rows, size, dtype, device):
    """Random rows, some flat and some steep."""
    generator = torch.Generator().manual_seed(size)
    scale = torch.rand((num_rows, 1), generator=generator) * 8
    return (torch.randn((num_rows, size), generator=generator) * scale).to(device, dtype)


def names_of(num_rows, draw):
    """Of as many draws."""
    return [(draw.getrandbits(64), draw.randrange(4), draw.randrange(1000)) for _ in range(num_rows)]


@pytest.mark.parametrize(
    ("num_rows", "size", "block", "dtype"),
    [
        (2_000, 300, 1 << 18, torch.float32),
        (9, 300, 128, torch.bfloat16),
        (3, 1, 4, torch.float32),
        (3, 9_001, 4096, torch.float16),
    ],
)
def test_the_same_tokens_as_torch(num_rows, size, block, dtype, tile, triton_device):
    """Every row, in one tile or several, at any temperature, with the first place of the largest for greedy rows."""
    tile(block)
    draw = random.Random(size)
    logits = logits_of(num_rows, size, dtype, triton_device)
    logits[:, size // 3] = -torch.inf if size > 1 else 0.0
    samplings = [Sampling(temperature=draw.choice((0.0, 0.01, 0.7, 1.0, 2.0))) for _ in range(num_rows)]
    names = names_of(num_rows, draw)
    best, found = triton_draw.take(logits, samplings, names)
    values, places = logits.float().max(dim=-1)
    assert torch.equal(best, values)
    drawn = [i for i, sampling in enumerate(samplings) if not sampling.is_greedy]
    right = places.clone()
    right[drawn] = take(logits[drawn].float(), [samplings[i] for i in drawn], [names[i] for i in drawn])
    assert found.tolist() == right.tolist()


def test_noise_is_that_of_the_torch_functions(tile, triton_device):
    """Each token's, not only what wins: in a row of one token that may be drawn, its score is its noise."""
    tile(4 * 512)
    size = 501
    names = [(2**63 + 5, 3, 77)] * 64
    logits = torch.full((64, size), -torch.inf, device=triton_device)
    places = torch.arange(64, device=triton_device) * 7
    logits[torch.arange(64), places] = 0.0
    best = torch.zeros((64, 1, 4), dtype=torch.int32, device=triton_device)
    table = triton_draw.table_of([Sampling()] * 64, names, triton_device)
    triton_kernels.choose_kernel[(16, 1)](
        logits, table, best, 64, size, size=size, draws=True, purpose=0, num_tile_rows=4, block=512
    )
    right = gumbel_noise(names[:1], size, triton_device)[0, places]
    assert torch.equal(best[:, 0, 3].long(), places)
    assert torch.equal(best[:, 0, 2].view(torch.float32), right)


def test_the_largest(tile, triton_device):
    """The first of several, NaN where there is one, and nothing but minus infinity; also of rows with a stride."""
    tile(64)
    logits = torch.randint(-9, 9, (9, 205), generator=torch.Generator().manual_seed(0)).float()[:, :201]
    logits[1], logits[2] = -torch.inf, torch.inf
    logits[3, 100] = torch.nan
    logits[4, 200] = 50
    right, first = logits.max(dim=-1)
    values, places = (found.cpu() for found in triton_draw.largest(logits.to(triton_device)))
    torch.testing.assert_close(values, right, equal_nan=True, rtol=0, atol=0)
    others = [0, 1, 2, 4, 5, 6, 7, 8]
    assert places[others].tolist() == first[others].tolist()
    assert 0 <= int(places[3]) < 201


def test_what_must_not_be_drawn_never_is(tile, triton_device):
    """Minus infinity stays out, whole tiles of it too, and where nothing is left it is the first token."""
    tile(256)
    logits = torch.full((6, 300), -torch.inf, device=triton_device)
    logits[:3, 123] = -30.0
    _, found = triton_draw.take(logits, [Sampling()] * 6, [(seed, 0, 0) for seed in range(6)])
    assert found.tolist() == [123] * 3 + [0] * 3


def test_a_step_takes_filtered_and_greedy_rows_too(tile, triton_device, monkeypatch):
    """Rows with filters are drawn by torch from what is left, the others by the kernels."""
    tile(1024)
    draw = random.Random(0)
    logits = logits_of(12, 200, torch.float32, triton_device)
    samplings = [Sampling(temperature=0.0), Sampling(), Sampling(top_k=3), Sampling(top_p=0.5)] * 3
    names = names_of(12, draw)
    right = logits.argmax(dim=-1)
    drawn = [i for i in range(12) if i % 4]
    right[drawn] = take(logits[drawn], [samplings[i] for i in drawn], [names[i] for i in drawn])
    monkeypatch.setattr(sampler, "_on_gpu", lambda _: triton_draw)
    monkeypatch.setattr(sampler.native_draw, "is_available", lambda _: False)
    best, ids = sampler.chosen(logits, samplings, names)
    assert torch.equal(best, logits.amax(dim=-1))
    assert ids.tolist() == right.tolist()


def test_results_come_by_one_copy(monkeypatch, triton_device):
    """Numbers and ids of several shapes, with their bits, an empty one included."""
    given = [
        torch.tensor([1.5, -0.0, torch.inf], device=triton_device),
        torch.tensor([[7, -1], [2**31 - 1, 0]], dtype=torch.int32, device=triton_device).t(),
        torch.empty((3, 0), device=triton_device),
    ]
    copies = []
    own = torch.Tensor.copy_
    monkeypatch.setattr(torch.Tensor, "copy_", lambda *given, **how: copies.append(given) or own(*given, **how))
    found = begin_copy(given)()
    monkeypatch.undo()
    assert len(copies) == 1
    for one, other in zip(given, found, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one.cpu(), other)
