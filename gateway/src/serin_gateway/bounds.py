"""What a request can use at a model before its tokens are counted: at most, and at least.

A prompt has no more tokens than bytes, and at least one; prompt and answer fit the context together. Knows nothing
about tokenizers, nor about limits of callers.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import reduce

from serin_gateway.ask import Input, Sampling, TokenPrompt, token_bound
from serin_gateway.catalog import ServedModel
from serin_gateway.limits.limiter import NOTHING, Amount

UNKNOWN_CONTEXT = 2**31


def max_tokens(sampling: Sampling, model: ServedModel) -> int:
    """Most tokens of one answer: what was asked, else the model's default, and never more than its context."""
    longest = model.context_length or UNKNOWN_CONTEXT
    if sampling.max_tokens is not None:
        return min(sampling.max_tokens, longest)
    return min(model.default_max_tokens or longest, longest)


def amount(model: ServedModel, prompt_tokens: int, completion_tokens: int) -> Amount:
    """Tokens, and what they cost at most: nothing of them cached, on the dearest lane."""
    return Amount(prompt_tokens + completion_tokens, model.highest_price.cost(prompt_tokens, 0, completion_tokens))


def most(model: ServedModel, inputs: Iterable[Input], sampling: Sampling) -> Amount:
    """The most that all prompts and their answers can use."""
    context = model.context_length or UNKNOWN_CONTEXT
    longest = context - _room(sampling, model)
    full = max(1, context - max_tokens(sampling, model))  # from here on a longer prompt leaves less for each answer
    bounds = [min(token_bound(one), longest) for one in inputs]
    return sum(
        (_between(Amount.at_least, model, sampling, context, min(bound, full), bound) for bound in bounds), NOTHING
    )


def least(model: ServedModel, inputs: Sequence[Input], sampling: Sampling) -> Amount:
    """The least that has to be reserved for all prompts and their answers, whatever their tokens turn out to be."""
    if not sampling.choice_count:
        return amount(model, sum(_shortest(one) for one in inputs), 0)
    context = model.shortest_context or UNKNOWN_CONTEXT
    fullest = context - _room(sampling, model)
    found = NOTHING
    for one in inputs:
        shortest = min(_shortest(one), fullest)
        longest = shortest if isinstance(one, TokenPrompt) else fullest
        found += _between(Amount.at_most, model, sampling, context, shortest, longest)
    return found


def _between(
    chosen: Callable[[Amount, Amount], Amount], model: ServedModel, sampling: Sampling, context: int, *lengths: int
) -> Amount:
    """The most or the least of a prompt and its answers, which is at one of these lengths of the prompt."""
    limit, count = max_tokens(sampling, model), sampling.choice_count
    return reduce(chosen, [amount(model, length, count * min(limit, context - length)) for length in lengths])


def _room(sampling: Sampling, model: ServedModel) -> int:
    """Tokens that a prompt leaves free at least: none, where it is only scored or embedded."""
    return 1 if sampling.choice_count and max_tokens(sampling, model) else 0


def _shortest(one: Input) -> int:
    return len(one.token_ids) if isinstance(one, TokenPrompt) else 1
