"""Equal requests of one namespace have one key; anything that may change the answer changes it."""

import itertools

import pytest
from cache_requests import key
from serin.cache.v1 import cache_pb2
from serin.generation.v1 import sampling_pb2, tokens_pb2
from serin_cache_svc.wire import read_key
from serin_mesh.errors import MeshError

SECRET = b"s" * 32


def digest(**changes):
    """The key of a request."""
    return read_key(key(**changes)).digest(SECRET)


def media(digest_byte, length=2):
    """A prompt around an image."""
    image = tokens_pb2.MediaRun(digest=bytes([digest_byte]) * 16, kind="image", length=length)
    return [tokens_pb2.Segment(media=image), tokens_pb2.Segment(tokens=tokens_pb2.TokenRun(token_ids=[7]))]


CHANGES = [
    {},
    {"cache_group": "other"},
    {"cache_salt": "x"},
    {"kv_digest": "kv2"},
    {"vocabulary_digest": "v2"},
    {"prompt": [tokens_pb2.Segment(tokens=tokens_pb2.TokenRun(token_ids=[1, 2, 4]))]},
    {"prompt": media(1)},
    {"prompt": media(2)},
    {"prompt": media(1, length=3)},
    {"grammar": sampling_pb2.Grammar(kind=sampling_pb2.GRAMMAR_KIND_REGEX, text="a")},
    {"grammar": sampling_pb2.Grammar(kind=sampling_pb2.GRAMMAR_KIND_EBNF, text="a")},
    {"stop_strings": ["a"]},
    {"stop_strings": ["a", "b"]},
    {"temperature": 0.5, "seed": 1},
    {"temperature": 0.5, "seed": 2},
    {"top_p": 0.5},
    {"top_k": 1},
    {"min_p": 0.5},
    {"frequency_penalty": 1.0},
    {"presence_penalty": 1.0},
    {"repetition_penalty": 1.5},
    {"logit_bias": {1: 1.0}},
    {"logit_bias": {1: 2.0}},
    {"max_tokens": 5},
    {"max_tokens": 6},
    {"min_tokens": 1},
    {"stop_token_ids": [1]},
    {"ignore_eos": True},
    {"top_logprobs": 0},
    {"top_logprobs": 1},
    {"choice_count": 2},
]


def test_every_difference_makes_another_key():
    """No two of these requests share an answer."""
    digests = [digest(**change) for change in CHANGES]
    for (a, one), (b, two) in itertools.combinations(zip(CHANGES, digests, strict=True), 2):
        assert one != two, (a, b)


def test_every_field_of_the_contract_is_covered():
    """A field that the contract gains fails here until somebody has thought about it."""
    covered = {name for change in CHANGES for name in change}
    assert covered >= {field.name for field in sampling_pb2.SamplingParameters.DESCRIPTOR.fields} - {"temperature"}
    assert covered | {"sampling"} >= {field.name for field in cache_pb2.AnswerKey.DESCRIPTOR.fields}


@pytest.mark.parametrize(
    "change",
    [
        {"top_p": 1.0},
        {"repetition_penalty": 1.0},
        {"choice_count": 1},
        {"seed": 5},
        {
            "prompt": [
                tokens_pb2.Segment(tokens=tokens_pb2.TokenRun(token_ids=[1])),
                tokens_pb2.Segment(tokens=tokens_pb2.TokenRun(token_ids=[2, 3])),
            ]
        },
    ],
)
def test_what_changes_nothing_keeps_the_key(change):
    """A default said aloud, a seed where nothing is drawn, and another cut of the prompt are the same request."""
    assert digest(**change) == digest()


def test_order_does_not_matter_where_it_means_nothing():
    """Biases and stop ids are sets."""
    assert digest(stop_token_ids=[1, 2]) == digest(stop_token_ids=[2, 1, 1])
    assert digest(logit_bias={1: 1.0, 2: 2.0}) == digest(logit_bias={2: 2.0, 1: 1.0})


@pytest.mark.parametrize(
    ("change", "deterministic"),
    [({}, True), ({"temperature": 1.0}, False), ({"temperature": 1.0, "seed": 0}, True)],
)
def test_deterministic_is_greedy_or_seeded(change, deterministic):
    """Absent temperature means 1, which draws; a seed of 0 is a seed."""
    assert read_key(key(**change)).is_deterministic is deterministic


def test_absent_temperature_draws():
    """The default is to draw."""
    request = key()
    request.sampling.ClearField("temperature")
    assert not read_key(request).is_deterministic


@pytest.mark.parametrize(
    ("change", "parameter"),
    [
        ({"prompt": []}, "key.prompt"),
        ({"prompt": [tokens_pb2.Segment()]}, "key.prompt[0]"),
        ({"prompt": media(1, length=0)}, "key.prompt[0].media"),
        ({"cache_salt": "x" * 129}, "key.cache_salt"),
    ],
)
def test_bad_fields_are_named(change, parameter):
    """What cannot be a request is refused by its field's name."""
    with pytest.raises(MeshError) as refused:
        read_key(key(**change))
    assert refused.value.metadata["parameter"] == parameter
