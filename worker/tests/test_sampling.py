"""Sampling: draws are pure functions of their names, and processors do what their definitions say."""

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from serin_worker.errors import RequestRefused
from serin_worker.request import GenerationRequest, Sampling, Stopping
from serin_worker.sampling.draw import gumbel_noise
from serin_worker.sampling.filters import filter_logits
from serin_worker.sampling.philox import philox
from serin_worker.sampling.sampler import draw
from serin_worker.sequence import Group, Sequence

CPU = torch.device("cpu")


def row(sampling: Sampling, output: tuple[int, ...] = (), prompt: tuple[int, ...] = (1,), **stopping) -> Sequence:
    """A sequence that asks for a draw."""
    sequence = Group(GenerationRequest("r", prompt, sampling, Stopping(**stopping))).sequences[0]
    sequence.token_ids += output
    return sequence


def drawn(logits: torch.Tensor, rows: list[Sequence], end_ids: tuple[int, ...] = ()) -> list[int | None]:
    """The drawn tokens alone."""
    return draw(logits, rows, [end_ids] * len(rows)).token_ids


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_known_answers(counter, key, expected):
    """The known answers published with Random123."""
    words = philox(tuple(torch.tensor([c]) for c in counter), tuple(torch.tensor([k]) for k in key))
    assert tuple(int(word) for word in words) == expected


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 127), st.integers(0, 10**6)), min_size=1, max_size=9),
    st.integers(1, 3_000),
)
def test_noise_is_the_same_in_every_batch(names, vocabulary_size):
    """A row's noise has the same bits alone and among others, and in a larger vocabulary."""
    together = gumbel_noise(names, vocabulary_size, CPU)
    for index, name in enumerate(names):
        assert torch.equal(gumbel_noise([name], vocabulary_size + 5, CPU)[0, :vocabulary_size], together[index])


def test_noise_differs_by_every_part_of_its_name():
    """Seed (both halves), choice and position each name another stream."""
    names = [(0, 0, 0), (1, 0, 0), (1 << 32, 0, 0), (0, 1, 0), (0, 0, 1)]
    assert len({tuple(noise.tolist()) for noise in gumbel_noise(names, 8, CPU)}) == len(names)


def test_draws_follow_the_softmax():
    """20,000 positions of one seed: frequencies are within 4.5 standard deviations of the probabilities."""
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, -4.0])
    noise = gumbel_noise([(42, 0, position) for position in range(20_000)], 5, CPU)
    counts = Counter((logits + noise).argmax(-1).tolist())
    for token, probability in enumerate(torch.softmax(logits, 0).tolist()):
        deviation = (20_000 * probability * (1 - probability)) ** 0.5
        assert abs(counts[token] - 20_000 * probability) < 4.5 * deviation


def test_temperature_zero_takes_the_likeliest_and_the_first_of_equals():
    """Greedy needs no seed."""
    assert drawn(torch.tensor([[0.0, 3.0, 3.0], [5.0, 3.0, 3.0]]), [row(Sampling(temperature=0.0))] * 2) == [1, 0]


def test_rows_do_not_see_each_other():
    """A batch of every kind of row draws what each row draws alone."""
    generator = torch.Generator().manual_seed(0)
    rows = [
        row(Sampling(temperature=0.0)),
        row(Sampling(seed=5)),
        row(Sampling(seed=5, top_k=3)),
        row(Sampling(seed=6, top_p=0.4), (3, 3, 4)),
        row(Sampling(seed=7, min_p=0.2, temperature=0.7)),
        row(Sampling(seed=8, frequency_penalty=1.5, presence_penalty=-0.5), (9, 9, 9, 8)),
        row(Sampling(seed=9, repetition_penalty=1.4), (2, 7), (5, 6)),
        row(Sampling(seed=9, logit_bias={4: 3.0, 5: -100.0}, top_k=5, top_p=0.9)),
        row(Sampling(temperature=0.0), (), min_tokens=2),
    ]
    logits = torch.randn((len(rows), 2_500), generator=generator) * 3
    before = logits.clone()
    together = drawn(logits, rows, (0, 1))
    assert torch.equal(logits, before)
    assert together == [drawn(logits[i : i + 1], [one], (0, 1))[0] for i, one in enumerate(rows)]


def test_top_k_keeps_k():
    """The k likeliest tokens stay."""
    filtered = filter_logits(torch.tensor([[1.0, 4.0, 3.0, 2.0]]), [Sampling(top_k=2)])
    assert filtered.tolist() == [[-torch.inf, 4.0, 3.0, -torch.inf]]


def test_top_p_keeps_the_smallest_set_that_reaches_it():
    """Tokens are kept until their probability reaches top_p, the one that reaches it included."""
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    for top_p, kept in ((0.4, 1), (0.5, 1), (0.6, 2), (0.81, 3), (1.0, 4)):
        filtered = filter_logits(logits.clone(), [Sampling(top_p=top_p - 1e-5 if top_p < 1 else 1.0)])
        assert int((filtered > -torch.inf).sum()) == kept


def test_top_p_counts_shares_of_what_top_k_left():
    """With top_k, probabilities are of the k tokens."""
    logits = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log()
    filtered = filter_logits(logits, [Sampling(top_k=2, top_p=0.56)])
    assert int((filtered > -torch.inf).sum()) == 1


def test_min_p_is_a_share_of_the_likeliest():
    """Tokens below that share of the likeliest one's probability go."""
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    filtered = filter_logits(logits, [Sampling(min_p=0.5)])
    assert int((filtered > -torch.inf).sum()) == 2


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.floats(0.05, 0.9999), st.integers(0, 2_000))
def test_filters_over_a_large_vocabulary_equal_a_full_sort(seed, top_p, top_k):
    """The fast path over the likeliest candidates keeps exactly what sorting everything keeps."""
    logits = torch.randn((1, 5_000), generator=torch.Generator().manual_seed(seed)) * 2
    order = logits[0].sort(descending=True)
    kept = order.values[: top_k or 5_000]
    probability = torch.softmax(kept.double(), 0)
    num_kept = int(((probability.cumsum(0) - probability) < top_p).sum())
    filtered = filter_logits(logits.clone(), [Sampling(top_k=top_k, top_p=top_p)])
    assert abs(int((filtered > -torch.inf).sum()) - num_kept) <= 1
    assert filtered[0, order.indices[: num_kept - 1]].isfinite().all()


def test_penalties():
    """Frequency and presence count the output; repetition counts prompt and output."""
    logits = torch.tensor([[1.0, 2.0, 3.0, -1.0]])
    rows = [row(Sampling(temperature=0.0, frequency_penalty=0.75, presence_penalty=1.0), (2, 2), (1,))]
    assert drawn(logits, rows) == [1]  # 3.0 - 2 * 0.75 - 1.0 = 0.5
    rows = [row(Sampling(temperature=0.0, repetition_penalty=2.0), (2,), (1, 3))]
    assert drawn(logits, rows) == [2]  # 1.0, 1.0, 1.5, -2.0
    rows = [row(Sampling(temperature=0.0, repetition_penalty=2.0), (2,), (1, 2))]
    assert drawn(logits + torch.tensor([1.0, 0.0, 0.0, 0.0]), rows) == [0]  # 2.0, 1.0, 1.5, -1.0


def test_no_penalty_that_is_accepted_makes_infinities():
    """The least one, as 32 bits hold it, over logits far larger than any model's."""
    least = float(torch.tensor(0.01, dtype=torch.float32))
    sampling = Sampling(temperature=2.0, repetition_penalty=least, frequency_penalty=-2.0, logit_bias={1: 100.0})
    for logits in (torch.tensor([[1e34, 1e33, -1e34]]), torch.tensor([[-1e34, 1e33, 1e30]])):
        assert drawn(logits, [row(sampling, (0, 1, 2))]) != [None]


def test_min_tokens_masks_no_id_that_does_not_exist():
    """An end id beyond the logits ends nothing, and -1 is not the last one."""
    logits = torch.tensor([[1.0, 0.0, 2.0]])
    assert drawn(logits, [row(Sampling(temperature=0.0), min_tokens=2)], (-1, 3)) == [2]


def test_min_tokens_masks_every_end():
    """Before min_tokens no end id is drawn, whatever its logit; after, it is."""
    logits = torch.tensor([[9.0, 8.0, 1.0]])
    sampling = Sampling(temperature=0.0)
    assert drawn(logits, [row(sampling, (2,), min_tokens=2)], (0, 1)) == [2]
    assert drawn(logits, [row(sampling, (2, 2), min_tokens=2)], (0, 1)) == [0]


def test_logprobs_are_the_models_own():
    """Temperature, bias and filters do not change what is reported; alternatives come best first."""
    logits = torch.tensor([[1.0, 3.0, 2.0]])
    own = torch.log_softmax(logits, -1)[0].tolist()
    sampling = Sampling(temperature=0.3, seed=1, top_k=1, logit_bias={0: 50.0}, num_logprobs=2)
    result = draw(logits, [row(sampling)], [()])
    assert result.token_ids == [0]
    assert result.logprobs[0] is not None
    assert result.logprobs[0].logprob == pytest.approx(own[0])
    assert [token for token, _ in result.logprobs[0].alternatives] == [1, 2]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_row_that_is_not_finite_gets_no_token(bad):
    """NaN or infinity in one row leaves the others alone."""
    logits = torch.tensor([[1.0, 2.0], [bad, 0.0], [5.0, 2.0]])
    rows = [row(Sampling(temperature=0.0)), row(Sampling(seed=1)), row(Sampling(temperature=0.0))]
    assert drawn(logits, rows) == [1, None, 0]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("temperature", float("nan")),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("min_p", 1.1),
        ("frequency_penalty", 2.1),
        ("presence_penalty", float("inf")),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", 1e-45),
        ("repetition_penalty", 0.0099),
        ("repetition_penalty", 2.1),
        ("num_logprobs", 21),
        ("logit_bias", {5: 101.0}),
    ],
)
def test_values_out_of_range_are_refused_by_name(field, value):
    """The error names the parameter and what is accepted."""
    with pytest.raises(RequestRefused) as caught:
        Sampling(**{field: value})
    assert caught.value.parameter.startswith("top_logprobs" if field == "num_logprobs" else field)
    assert "accepted" in str(caught.value)
