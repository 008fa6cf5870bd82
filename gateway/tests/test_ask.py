"""The ranges of an ask, and what a caller is told who is outside of one."""

import dataclasses
import re

import pytest
from serin_gateway import ask as module
from serin_gateway.ask import Ask, Sampling, check
from serin_mesh.errors import MeshError

GOOD = Ask("small", ["hi"])


def asked(**changes) -> Ask:
    """A good ask but for this; what is not its own is of its sampling."""
    own = {name: value for name, value in changes.items() if name in Ask.__dataclass_fields__}
    sampling = Sampling(**{name: value for name, value in changes.items() if name not in own})
    return dataclasses.replace(GOOD, sampling=sampling, **own)


REFUSED = [
    ({"model": ""}, "model: '' is not accepted; accepted: a model's name"),
    ({"inputs": ["a"] * 129}, "inputs: 129 prompts is not accepted; accepted: 1 to 128"),
    ({"temperature": 2.5}, "temperature: 2.5 is not accepted; accepted: 0 to 2"),
    ({"top_p": 0.0}, "top_p: 0.0 is not accepted; accepted: above 0, at most 1"),
    ({"top_k": -1}, "top_k: -1 is not accepted; accepted: 0 (all) to 2147483647"),
    ({"min_p": 1.5}, "min_p: 1.5 is not accepted; accepted: 0 to 1"),
    ({"frequency_penalty": 3.0}, "frequency_penalty: 3.0 is not accepted; accepted: -2 to 2"),
    ({"presence_penalty": -3.0}, "presence_penalty: -3.0 is not accepted; accepted: -2 to 2"),
    ({"repetition_penalty": 1e-45}, "repetition_penalty: 1e-45 is not accepted; accepted: 0.01 to 2"),
    (
        {"logit_bias": dict.fromkeys(range(1025), 1.0)},
        "logit_bias: 1025 entries is not accepted; accepted: at most 1024",
    ),
    ({"logit_bias": {-1: 1.0}}, "logit_bias: [-1] is not accepted; accepted: token ids as names"),
    ({"logit_bias": {5: 101.0}}, "logit_bias: {5: 101.0} is not accepted; accepted: values -100 to 100"),
    ({"seed": 2**64}, "seed: 18446744073709551616 is not accepted; accepted: an integer of 64 bits"),
    ({"max_tokens": 0}, "max_tokens: 0 is not accepted; accepted: 1 to 2147483647"),
    ({"max_tokens": 4, "min_tokens": 5}, "min_tokens: 5 is not accepted; accepted: 0 to max_tokens"),
    ({"stop_token_ids": range(65)}, "stop_token_ids: 65 ids is not accepted; accepted: at most 64"),
    ({"stop_token_ids": [-1]}, "stop_token_ids: [-1] is not accepted; accepted: token ids"),
    ({"top_logprobs": 21}, "top_logprobs: 21 is not accepted; accepted: 0 to 20"),
    ({"choice_count": 129}, "choice_count: 129 is not accepted; accepted: 1 to 128"),
    (
        {"inputs": ["a", "b"], "choice_count": 65},
        "choice_count: 130 answers is not accepted; accepted: at most 128 in all",
    ),
    ({"stop_strings": list("abcde")}, "stop_strings: 5 strings is not accepted; accepted: at most 4"),
    ({"stop_strings": ["a", ""]}, "stop_strings: '' is not accepted; accepted: strings that are not empty"),
    (
        {"stop_strings": ["a", "\u00e9" * 513]},
        "stop_strings: 1026 bytes is not accepted; accepted: strings of at most 1024 bytes",
    ),
    ({"priority": 101}, "priority: 101 is not accepted; accepted: -100 to 100"),
    (
        {"allow_cached_answer": True},
        "allow_cached_answer: True is not accepted; accepted: with temperature 0 only; "
        "other answers differ each time, and none is kept",
    ),
    ({"cache_salt": "\u00e9" * 65}, "cache_salt: 130 bytes is not accepted; accepted: at most 128 bytes"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED, ids=lambda value: repr(value)[:40])
def test_who_is_out_of_range_hears_of_the_own_value(changes: dict, message: str):
    """The parameter, the value as it was given or how much of it there is, and the range."""
    with pytest.raises(MeshError) as refusal:
        check(asked(**changes))
    assert refusal.value.message == message
    for quoted in re.findall(r"'([^']*)' is not", message):
        assert quoted in str(changes), "what is in quotes is the caller's own text"


def test_every_range_has_its_case_above():
    """A new one belongs into the table, in the order in which they are looked at."""
    ranges = [(name, accepted) for name, _, _, accepted in module._findings(GOOD)]
    told = [re.fullmatch(r"(\w+): .* is not accepted; accepted: (.*)", message).groups() for _, message in REFUSED]
    assert told == ranges
    assert check(GOOD) is GOOD
