"""The drawing kernel takes the token that the torch functions take."""

import random

import pytest
import torch
from serin_worker.request import Sampling
from serin_worker.sampling import native_draw
from serin_worker.sampling.draw import gumbel_noise, take

pytestmark = pytest.mark.usefixtures("compiled_kernels")


def samplings_of(draw: random.Random, size: int) -> Sampling:
    """Random filters."""
    return Sampling(
        temperature=draw.choice((0.1, 0.7, 1.0, 2.0)),
        top_k=draw.choice((0, 0, 1, 5, 40, size // 2, size, 2 * size)),
        top_p=draw.choice((1.0, 0.99, 0.9, 0.5, 0.01)),
        min_p=draw.choice((0.0, 0.0, 0.01, 0.3)),
        seed=draw.getrandbits(64),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [1, 2, 63, 199, 5_000, 152_000])
def test_the_same_tokens_as_torch(size, dtype):
    """Hundreds of rows with every combination of filters, at any size of vocabulary."""
    draw = random.Random(size)
    num_rows = 8 if size > 10_000 else 200
    generator = torch.Generator().manual_seed(size)
    scale = torch.rand((num_rows, 1), generator=generator) * 8
    logits = (torch.randn((num_rows, size), generator=generator) * scale).to(dtype)
    samplings = [samplings_of(draw, size) for _ in range(num_rows)]
    names = [(s.seed, draw.randrange(4), draw.randrange(1000)) for s in samplings]
    index = list(range(num_rows))
    draw.shuffle(index)
    found = native_draw.take(logits, index, samplings, names).tolist()
    right = take(logits[index].float(), samplings, names).tolist()
    # A cumulated probability that meets top_p to the last bit may fall on either side.
    assert sum(a != b for a, b in zip(found, right, strict=True)) <= num_rows // 100


def test_without_filters_every_token_is_equal():
    """No filter, no rounding at an edge: 2,000 draws of 2,000 agree."""
    logits = torch.randn((2_000, 300), generator=torch.Generator().manual_seed(1)) * 2
    names = [(7, 0, position) for position in range(2_000)]
    samplings = [Sampling()] * 2_000
    found = native_draw.take(logits, range(2_000), samplings, names).tolist()
    assert found == take(logits.clone(), samplings, names).tolist()


def test_masked_tokens_are_never_drawn():
    """Minus infinity stays out, also when little else is left and when nothing is."""
    logits = torch.full((100, 500), -torch.inf)
    logits[:, 123] = -30.0
    names = [(seed, 0, 0) for seed in range(100)]
    for sampling in (Sampling(), Sampling(top_k=5), Sampling(top_p=0.9), Sampling(min_p=0.1)):
        assert set(native_draw.take(logits, range(100), [sampling] * 100, names).tolist()) == {123}
    logits[:, 123] = -torch.inf
    assert set(native_draw.take(logits, range(100), [Sampling()] * 100, names).tolist()) == {0}


def test_draws_follow_the_filtered_softmax():
    """20,000 draws after top_k: frequencies are within 4.5 standard deviations of the shares of what is left."""
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0, -4.0]]).expand(20_000, 5).contiguous()
    names = [(3, 1, position) for position in range(20_000)]
    tokens = native_draw.take(logits, range(20_000), [Sampling(top_k=3)] * 20_000, names)
    shares = torch.softmax(torch.tensor([2.0, 1.0, 0.0]), 0).tolist()
    for token, share in enumerate(shares):
        assert abs(int((tokens == token).sum()) - 20_000 * share) < 4.5 * (20_000 * share * (1 - share)) ** 0.5
    assert int((tokens > 2).sum()) == 0


def test_the_largest_possible_noise_is_accounted_for():
    """A token far below the best may still win by its noise, as far as noise can reach."""
    noise = gumbel_noise([(1, 0, 0)], 4_096, torch.device("cpu"))
    assert float(noise.max()) < 23.0
    logits = torch.zeros((1, 4_096))
    assert native_draw.take(logits, [0], [Sampling()], [(1, 0, 0)]).tolist() == [int(noise.argmax())]


@pytest.mark.usefixtures("kernel_threads")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [1, 15, 16, 33, 5_000, 152_000])
def test_the_largest(size, dtype):
    """The first of several, NaN where there is one, and nothing but minus infinity; also of rows with a stride."""
    generator = torch.Generator().manual_seed(size)
    logits = torch.randint(-9, 9, (9, size + 5), generator=generator).to(dtype)[:, :size]
    logits[1], logits[2] = -torch.inf, torch.inf
    logits[3, size // 2] = torch.nan
    logits[4, size - 1] = 50
    right, first = logits.max(dim=-1)
    values, places = (found.tolist() for found in native_draw.largest(logits))
    assert [value for value in values if value == value] == [value for value in right.tolist() if value == value]
    assert values[3] != values[3]
    assert [place for row, place in enumerate(places) if row != 3] == first[[0, 1, 2, 4, 5, 6, 7, 8]].tolist()
