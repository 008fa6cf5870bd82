"""Grammars with the real library, the demo model and its vocabulary: valid, invariant, and nobody else's trouble."""

import asyncio
import functools
import json
import random
import weakref
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from llguidance import LLMatcher
from serin_worker.config import EngineConfig
from serin_worker.engine import Engine
from serin_worker.errors import GrammarOverrun, GrammarRefused, GrammarsUnsupported, RequestRefused
from serin_worker.grammars.constraint import Constraint
from serin_worker.grammars.masks import MaskMaker, MaskOrder
from serin_worker.grammars.opening import Grammars, no_grammars
from serin_worker.grammars.vocabulary import GrammarVocabulary
from serin_worker.outputs import ChoiceFinished, Failed, Output, Summary
from serin_worker.request import GenerationRequest, PriorOutput, Sampling, Stopping
from serin_worker.startup import load_engine
from serin_worker.testing import run_dry, tokens_of

DEMO = Path(__file__).resolve().parents[2] / "deploy" / "models" / "small" / "v2"
NUM_IDS = 265
END_ID = 258
PROMPT = list(b"Write JSON: name Ada, age 36.")
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "kind": {"enum": ["person", "place"]},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 4}, "maxItems": 3},
        "size": {
            "type": "object",
            "properties": {"value": {"type": "integer", "minimum": 0, "maximum": 999}, "exact": {"type": "boolean"}},
            "required": ["value", "exact"],
            "additionalProperties": False,
        },
    },
    "required": ["name", "kind", "tags", "size"],
    "additionalProperties": False,
}
COMPACT = {"whitespace_pattern": "[ ]"}
JSON = LLMatcher.grammar_from_json_schema(SCHEMA, overrides=COMPACT)
RUNAWAY = LLMatcher.grammar_from_regex("(a?){1500}a{1500}")
"""One mask of it takes half a second, and the library's own limits do not notice."""


def regex(pattern: str) -> str:
    """A grammar for a pattern."""
    return LLMatcher.grammar_from_regex(pattern)


@functools.cache
def vocabulary() -> GrammarVocabulary:
    """The demo model's."""
    return GrammarVocabulary(DEMO, NUM_IDS, {END_ID})


def constrained(request: GenerationRequest) -> GenerationRequest:
    """The request with its grammar opened, as the service does it."""
    if not request.grammar:
        return request
    return replace(request, constraints=asyncio.run(Grammars(vocabulary).open(request)))


@functools.cache
def engine_of(num_blocks: int = 64, max_num_batched_tokens: int = 512, max_num_sequences: int = 8) -> Engine:
    """An engine over the demo model."""
    config = EngineConfig(
        numerics="invariant",
        num_threads=1,
        num_blocks=num_blocks,
        max_num_batched_tokens=max_num_batched_tokens,
        max_num_sequences=max_num_sequences,
    )
    return load_engine(str(DEMO), config)[0]


def ask(grammar: str, name: str = "r", prompt=PROMPT, num_choices: int = 1, prior=(), **options) -> GenerationRequest:
    """A request; options are those of sampling and stopping."""
    names = ("max_tokens", "min_tokens", "stop_ids", "ignore_eos")
    stopping = {name: options.pop(name) for name in names if name in options}
    return GenerationRequest(
        name,
        prompt,
        Sampling(**{"temperature": 0.0, **options}),
        Stopping(**{"max_tokens": 300, **stopping}),
        num_choices=num_choices,
        prior=prior,
        grammar=grammar,
        namespace=b"n" * 16,
    )


def answer(request: GenerationRequest, engine: Engine | None = None) -> list[Output]:
    """What becomes of one request alone."""
    engine = engine or engine_of()
    engine.add(constrained(request))
    return run_dry(engine)[request.request_id]


def text_of(outputs: list[Output], choice_index: int = 0) -> str:
    """The text of a choice; the demo model's ids are bytes."""
    return bytes(i for i in tokens_of(outputs, choice_index) if i < 256).decode()


def ends_of(outputs: list[Output]) -> list[tuple]:
    """How each choice ended."""
    return [(o.choice_index, o.reason, o.stop_id) for o in outputs if isinstance(o, ChoiceFinished)]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 2.0},
        {"temperature": 1.0, "top_p": 0.5, "repetition_penalty": 1.5, "frequency_penalty": 1.0},
        {"temperature": 1.5, "logit_bias": {ord("x"): 40.0, ord("{"): -100.0}, "num_logprobs": 3},
        {"temperature": 0.7, "top_k": 3, "min_tokens": 290},
    ],
    ids=["greedy", "hot", "penalties", "bias and logprobs", "min_tokens"],
)
def test_every_answer_follows_the_schema(options):
    """Whatever else shapes the draw, each of several choices is valid and ends where it is complete."""
    outputs = answer(ask(JSON, num_choices=4, seed=11, **options))
    for index in range(4):
        jsonschema.validate(json.loads(text_of(outputs, index)), SCHEMA)
    assert {reason for _, reason, _ in ends_of(outputs)} == {"stop"}
    assert len(ends_of(outputs)) == 4
    assert isinstance(outputs[-1], Summary)


def test_log_probabilities_are_of_the_models_own_distribution():
    """As without a grammar: what the model itself thought of the token, and of the ones it would rather have taken."""
    free = answer(ask(regex(r"(?s:.)*"), num_logprobs=2, max_tokens=1))
    forced = answer(ask(regex("Q"), num_logprobs=2, max_tokens=1))
    assert text_of(forced) == "Q"
    (taken,), (best,) = forced[1].logprobs, free[1].logprobs
    assert taken.alternatives == best.alternatives
    assert taken.logprob < taken.alternatives[1][1]


def test_the_model_ends_only_where_the_grammar_accepts():
    """A model that wants to end at once may not; where the grammar accepts it may, and where all is said it does."""
    eager = {"logit_bias": {END_ID: 100.0}}
    assert text_of(answer(ask(regex("[a-z]{3,9}"), **eager))).isalpha()
    outputs = answer(ask(regex("[a-z]{3,9}"), **eager))
    assert len(text_of(outputs)) == 3
    assert ends_of(outputs) == [(0, "stop", END_ID)]
    later = answer(ask(regex("[a-z]{3,9}"), min_tokens=5, **eager))
    assert len(text_of(later)) == 5
    never = answer(ask(regex("[a-z]{3,9}"), ignore_eos=True, **eager))
    assert (len(text_of(never)), ends_of(never)) == (9, [(0, "stop", None)])
    complete = answer(ask(regex("yes|no"), min_tokens=50))
    assert text_of(complete) in ("yes", "no")
    assert ends_of(complete) == [(0, "stop", None)]
    cut = answer(ask(regex("[a-z]{30}"), max_tokens=7))
    assert (len(text_of(cut)), ends_of(cut)) == (7, [(0, "length", None)])
    exact = answer(ask(regex("[a-z]{7}"), max_tokens=7))
    assert ends_of(exact) == [(0, "stop", None)]
    by_id = answer(ask(regex("[a-y]{2}z[a-y]{9}"), stop_ids=frozenset({ord("z")}), max_tokens=20))
    assert (len(text_of(by_id)), ends_of(by_id)) == (3, [(0, "stop", ord("z"))])
    nothing = answer(ask(regex(""), ignore_eos=True))
    assert (text_of(nothing), ends_of(nothing)) == ("", [(0, "stop", None)])


def test_the_same_tokens_alone_in_a_crowd_preempted_and_resumed():
    """numerics: invariant holds with grammars, to the last token and log-probability, from any cut."""
    draw = random.Random(5)
    roomy, cramped = engine_of(), engine_of(num_blocks=16, max_num_batched_tokens=19, max_num_sequences=6)
    requests = [
        ask(
            draw.choice((JSON, regex("[a-z ]{20,60}"), "")),
            f"r{number}",
            prompt=PROMPT[: draw.choice((5, 17, 29))],
            num_choices=draw.choice((1, 2)),
            temperature=draw.choice((0.0, 1.0, 1.7)),
            seed=number,
            num_logprobs=1,
            max_tokens=48,
            frequency_penalty=draw.choice((0.0, 0.5)),
        )
        for number in range(10)
    ]
    right = {request.request_id: answer(request, roomy) for request in requests}
    for request in requests:
        prior = []
        for index in range(request.num_choices):
            tokens = tokens_of(right[request.request_id], index)
            prior.append(PriorOutput(index, tokens[: draw.randrange(len(tokens) + 1)]))
        cramped.add(constrained(replace(request, prior=prior if draw.random() < 0.6 else ())))
    before = cramped.counts.num_preemptions
    found = run_dry(cramped)
    assert cramped.counts.num_preemptions > before
    for request in requests:
        whole, part = right[request.request_id], found[request.request_id]
        for index in range(request.num_choices):
            tokens = tokens_of(part, index)
            assert tokens == tokens_of(whole, index)[len(tokens_of(whole, index)) - len(tokens) :]
        assert sorted(ends_of(part)) == sorted(ends_of(whole))


def test_a_grammar_that_takes_too_long_fails_alone():
    """One mask takes too long: its request ends with that reason; the others' answers are what they are without it."""
    engine = engine_of()
    alone = [answer(ask(grammar, "good", max_tokens=40)) for grammar in (JSON, "")]
    overruns = engine.counts.num_grammar_overruns
    engine.add(constrained(ask(JSON, "json", max_tokens=40)))
    engine.add(constrained(ask(RUNAWAY, "runaway")))
    engine.add(ask("", "plain", max_tokens=40))
    outputs = run_dry(engine)
    (failed,) = [output for output in outputs["runaway"] if isinstance(output, Failed)]
    assert isinstance(failed.error, GrammarOverrun)
    assert engine.counts.num_grammar_overruns == overruns + 1
    assert tokens_of(outputs["json"]) == tokens_of(alone[0])
    assert tokens_of(outputs["plain"]) == tokens_of(alone[1])
    assert engine.pool.usage == 0
    assert engine.counts.num_not_finite == 0


def test_masks_behind_one_that_overruns_are_made_by_another_thread():
    """In order, each with its own outcome."""
    maker = MaskMaker(budget_s=0.02)
    orders = [MaskOrder(Constraint(grammar, vocabulary())) for grammar in (regex("a"), RUNAWAY, regex("b"), RUNAWAY)]
    first, second, third, fourth = maker.begin(orders).collect()
    assert [NUM_IDS - int(mask.sum()) for mask in (first, third)] == [1, 1]
    assert not first[ord("a")]
    assert not third[ord("b")]
    assert isinstance(second, GrammarOverrun)
    assert isinstance(fourth, GrammarOverrun)
    (again,) = maker.begin(orders[:1]).collect()
    assert (again == first).all()


@pytest.mark.parametrize("grammar", [JSON, regex("(ab|a)*c"), regex(r"[\x{80}-\x{10ffff}]{3}")])
def test_a_matcher_that_catches_up_has_the_masks_of_one_that_was_there(grammar):
    """Token by token, replayed at once, and forked: one mask."""
    draw = random.Random(3)
    there, taken = Constraint(grammar, vocabulary()), []
    while not there.is_complete and len(taken) < 40:
        mask = there.allowed()
        caught_up = Constraint(grammar, vocabulary())
        caught_up.take(taken)
        assert (caught_up.allowed() == mask).all()
        assert (there.fork().allowed() == mask).all()
        allowed = [int(i) for i in mask.nonzero()[0] if i != END_ID]
        if not allowed:
            break
        taken.append(draw.choice(allowed))
        there.take(taken[-1:])


def test_special_tokens_are_never_text():
    """No grammar lets a model write a control token where its text could stand."""
    open_ended = Constraint(regex(r"(?s:.)*"), vocabulary())
    assert [i for i in range(256, NUM_IDS) if open_ended.allowed()[i]] == [END_ID, *range(259, NUM_IDS)]
    open_ended.take(list(b"<|im_start|"))
    assert open_ended.allowed()[ord(">")]


def test_a_request_that_ends_frees_its_grammar():
    """Cancelled or done: nothing keeps the matchers."""
    engine = engine_of()
    for is_cancelled in (True, False):
        request = constrained(ask(JSON, "gone", num_choices=2, max_tokens=20))
        kept = [weakref.ref(constraint) for constraint in request.constraints.values()]
        engine.add(request)
        del request
        engine.step()
        engine.step()
        assert all(ref() is not None for ref in kept)
        if is_cancelled:
            engine.abort("gone")
        run_dry(engine)
        assert [ref() for ref in kept] == [None, None]
        assert not engine._constrained


def test_prior_output_that_completed_a_grammar_is_an_answer():
    """The worker before was lost between the last token and saying so."""
    outputs = answer(ask(regex("yes|no"), prior=[PriorOutput(0, list(b"yes"))]))
    assert ends_of(outputs) == [(0, "stop", None)]
    assert tokens_of(outputs) == []


async def test_what_cannot_be_opened_says_why():
    """Damaged, unsupported, too slow, prior output that does not follow."""
    grammars = Grammars(vocabulary)
    with pytest.raises(GrammarRefused, match="unclosed"):
        await grammars.open(ask(regex("(a")))
    with pytest.raises(GrammarsUnsupported):
        await no_grammars().open(ask(JSON))
    with pytest.raises(RequestRefused, match="do not follow"):
        await grammars.open(ask(regex("yes"), prior=[PriorOutput(0, list(b"no"))]))
    slow = LLMatcher.grammar_from_json_schema({"type": "integer", "multipleOf": 99991}, overrides=COMPACT)
    with pytest.raises(GrammarOverrun, match="opening"):
        await Grammars(vocabulary, open_s=0.05).open(ask(slow))
    assert set(await grammars.open(ask(JSON, num_choices=3, prior=[PriorOutput(1, (), is_finished=True)]))) == {0, 2}


def test_a_vocabulary_of_words_follows_too(tiny_folder):
    """Ids are words with a space before them; an id beyond the tokenizer's is never allowed, nor an end id needed."""
    words = GrammarVocabulary(tiny_folder("qwen3"), 250, ())
    constraint = Constraint('%llguidance {"no_forcing": true}\nstart: /( w1?[0-9])+/', words)
    assert [int(i) for i in constraint.allowed().nonzero()[0]] == list(range(20))
    constraint.take([7, 19])
    assert not constraint.is_complete
