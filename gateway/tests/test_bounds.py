"""What a request can use at a model before its tokens are counted: true bounds, and no looser than its context."""

import dataclasses

import pytest
from serin_gateway import bounds
from serin_gateway.ask import Sampling, TokenPrompt
from serin_gateway.ledger.price import Price
from serin_gateway.testing import small_catalog, small_lane

PRICE = Price(input=1000, output=5000)  # nano-units for a token: 1 and 5


def model(*contexts: int, default_max_tokens: int = 0):
    """A model with a lane of each context."""
    lanes = [
        dataclasses.replace(small_lane(f"lane-{n}"), context_length=context, price=PRICE)
        for n, context in enumerate(contexts)
    ]
    return dataclasses.replace(small_catalog(*lanes).models[0], default_max_tokens=default_max_tokens)


@pytest.mark.parametrize("choice_count", [1, 3])
@pytest.mark.parametrize("max_tokens", [None, 1, 4, 30])
def test_bounds_hold_whatever_the_tokens_turn_out_to_be(max_tokens: int | None, choice_count: int):
    """Of every length that a prompt of ten bytes can have, on each lane; the most is one that can really be used."""
    sampling, served = Sampling(max_tokens=max_tokens, choice_count=choice_count), model(8, 20)
    most, least = (of(served, ["x" * 10], sampling) for of in (bounds.most, bounds.least))
    possible = [
        bounds.amount(served, length, choice_count * min(context - length, bounds.max_tokens(sampling, served)))
        for context in (8, 20)
        for length in range(1, min(11 + 1, context))
    ]
    assert (max(one.tokens for one in possible), max(one.nano for one in possible)) == (most.tokens, most.nano)
    assert all(one.holds(least) for one in possible)


def test_what_is_asked_for_is_reserved_else_the_models_default_else_its_context():
    """``max_tokens`` absent reserves no more than an answer can have."""
    asked = [Sampling(max_tokens=5), Sampling(), Sampling(max_tokens=10_000)]
    most = [bounds.most(model(1024, default_max_tokens=256), [TokenPrompt([1] * 10)], one).tokens for one in asked]
    assert most == [10 + 5, 10 + 256, 1024]
    assert bounds.most(model(1024), [TokenPrompt([1] * 10)], Sampling()).tokens == 1024


def test_ids_are_counted_already():
    """Then there is nothing loose about their bound; several prompts add up, and vectors have no answer."""
    served, prompts = model(64), [TokenPrompt([1] * 7), TokenPrompt([2] * 9)]
    for sampling, tokens in ((Sampling(max_tokens=3, choice_count=2), 28), (Sampling(choice_count=0), 16)):
        both = [of(served, prompts, sampling).tokens for of in (bounds.most, bounds.least)]
        assert both == [tokens, tokens]
    texts = [bounds.most(served, ["x" * count], Sampling(choice_count=0)).tokens for count in (1, 10, 100)]
    assert texts == [2, 11, 64]
