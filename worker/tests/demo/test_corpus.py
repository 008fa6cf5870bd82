"""The corpus: reproducible, rightly answered, and split before a question is worded."""

import json
import re
from itertools import islice
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serin_worker.demo.corpus import EXTRA, MEASURED, corpus_digest, held_out_items, training_dialogues
from serin_worker.demo.item import HELD_OUT_SHARE, is_held_out


def _training_items(seed, num_dialogues=3000):
    return [item for dialogue in islice(training_dialogues(seed), num_dialogues) for item in dialogue.items]


def _question(item):
    return item.messages[-1]["content"], item.answer


def test_a_seed_gives_the_same_dialogues():
    """Two generators of one seed agree; another seed gives others."""
    first, again, other = (list(islice(training_dialogues(seed), 50)) for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_the_digest_is_stable_within_a_run():
    """The digest depends on nothing but the corpus."""
    assert corpus_digest(20) == corpus_digest(20)
    assert corpus_digest(20) != corpus_digest(21)


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32))
def test_no_seed_carries_a_held_out_item_into_training(seed):
    """Whatever the seed, training draws only from its side of the split."""
    assert not any(item.held_out for item in _training_items(seed, 100))


def test_training_and_test_share_no_entity_and_no_question():
    """Entities are disjoint, and so are the worded questions."""
    trained, tested = _training_items(1), held_out_items(1200)
    assert not {item.entity for item in trained} & {item.entity for item in tested}
    assert not {_question(item) for item in trained} & {_question(item) for item in tested}


def test_held_out_facts_are_taught_in_other_words():
    """A fact cannot be guessed: each tested one is asked in training, in another wording."""
    taught = {item.entity.rsplit("|", 1)[0] for item in _training_items(2, 6000) if item.kind == "facts"}
    tested = {item.entity.rsplit("|", 1)[0] for item in held_out_items(600) if item.kind == "facts"}
    assert tested <= taught


def test_held_out_questions_are_fixed_different_and_even_over_kinds():
    """The list is the same each time, has no doubles, and asks every kind equally often."""
    items = held_out_items(120)
    assert items == held_out_items(120)
    assert len({json.dumps([list(item.messages), list(item.tools)]) for item in items}) == len(items)
    assert [sum(item.kind == kind.name for item in items) for kind in MEASURED] == [20] * 6


def test_a_kind_that_runs_out_gives_all_it_has():
    """Asking for more held-out facts than there are ends, with each of them once."""
    facts = [item for item in held_out_items(3000) if item.kind == "facts"]
    assert 80 < len(facts) < 500
    assert len({item.entity for item in facts}) == len(facts)


@pytest.mark.parametrize("kind", [*MEASURED, *EXTRA.values()], ids=lambda kind: kind.name)
def test_every_kind_draws_both_sides(kind):
    """A kind that held out nothing, or everything, would measure nothing."""
    random = Random(3)
    share = sum(kind.draw(random).held_out for _ in range(4000)) / 4000
    assert 0.02 < share < 0.25


@given(st.text())
def test_the_split_depends_on_the_entity_alone(entity):
    """Asking twice gives the same side."""
    assert is_held_out(entity) == is_held_out(entity)


def test_the_split_takes_its_share():
    """About a tenth of many entities is held out."""
    share = sum(is_held_out(f"entity {n}") for n in range(20_000)) / 20_000
    assert share == pytest.approx(HELD_OUT_SHARE, abs=0.01)


def test_sums_and_differences_are_right():
    """Answers agree with arithmetic done here from the question's own text."""
    seen = set()
    for item in _training_items(4, 1000):
        text = item.messages[-1]["content"]
        if item.kind != "arithmetic":
            continue
        a, b = map(int, re.findall(r"\d+", text))
        if re.search(r"\+|plus|[Aa]dd", text):
            seen.add("sum")
            assert int(item.answer) == a + b
        elif re.search(r"-|minus", text):
            seen.add("difference")
            assert int(item.answer) == a - b
        else:
            seen.add("larger")
            assert int(item.answer) == max(a, b)
    assert seen == {"sum", "difference", "larger"}


def test_json_answers_parse_and_name_the_person():
    """Every JSON answer is valid and about the person in the question."""
    records = [item for item in held_out_items(600) if item.kind == "json"]
    for item in records:
        assert json.loads(item.answer)["name"] in item.messages[-1]["content"]
    assert records


def test_tool_calls_name_an_offered_function():
    """A call is valid JSON, of a function on offer, with the argument that the question names."""
    calls = [item for item in held_out_items(600) if item.answer.startswith("<tool_call>")]
    for item in calls:
        call = json.loads(item.answer.removeprefix("<tool_call>\n").removesuffix("\n</tool_call>"))
        assert call["name"] in {tool["function"]["name"] for tool in item.tools}
        assert next(iter(call["arguments"].values())) in item.messages[-1]["content"]
    assert calls


def test_an_extra_kind_changes_nothing_for_those_who_do_not_ask_for_it():
    """What the committed models were taught and measured on stays; with it there is more, and another digest."""
    assert not any(item.kind in EXTRA for item in _training_items(1, 500))
    assert corpus_digest(20) == corpus_digest(20, extra="")
    assert corpus_digest(20, extra="errands") != corpus_digest(20)
    assert [item for item in held_out_items(140, extra="errands") if item.kind != "errands"] == held_out_items(120)


def test_errands_are_two_calls_and_never_about_a_held_out_subject():
    """Both tools are on offer, both subjects asked for; training sees neither side's held-out ones."""
    dialogues = islice(training_dialogues(5, "errands"), 1500)
    trained = [item for dialogue in dialogues for item in dialogue.items if item.kind == "errands"]
    tested = [item for item in held_out_items(140, extra="errands") if item.kind == "errands"]
    assert len(trained) > 100
    assert not any(is_held_out(entity) for item in trained for entity in item.entity.split("; "))
    assert all(any(is_held_out(entity) for entity in item.entity.split("; ")) for item in tested)
    for item in (item for item in [*trained, *tested] if item.answer.startswith("<tool_call>")):
        texts = item.answer.removeprefix("<tool_call>").removesuffix("</tool_call>").split("</tool_call>\n<tool_call>")
        calls = [json.loads(text) for text in texts]
        assert len(calls) == 2
        assert {call["name"] for call in calls} <= {tool["function"]["name"] for tool in item.tools}
        assert all(value in item.messages[0]["content"] for call in calls for value in call["arguments"].values())
