"""Casual questions: only their look changes, never what is asked or answered."""

from random import Random

from serin_worker.demo.casual import OPENINGS, casually
from serin_worker.demo.corpus import held_out_items


def test_only_the_first_letter_and_the_last_mark_may_change():
    """The rest of the question, the answer and the side of the split stay."""
    random = Random(0)
    looks = set()
    for item in held_out_items(600):
        casual = casually(item, random)
        before, after = item.messages[-1]["content"], casual.messages[-1]["content"]
        lowered = before[0].lower() + before[1:]
        assert after in {before, lowered, before.rstrip("?."), lowered.rstrip("?.")}
        assert (casual.answer, casual.entity, casual.held_out) == (item.answer, item.entity, item.held_out)
        looks.add((after[0] != before[0], after[-1] != before[-1]))
    assert looks == {(False, False), (False, True), (True, False), (True, True)}


def test_a_question_that_begins_with_a_name_is_left_alone():
    """A name is copied into the answer, so it must be spelt as given."""
    random = Random(0)
    named = [item for item in held_out_items(600) if not item.messages[-1]["content"].startswith(OPENINGS)]
    assert named
    assert all(casually(item, random) == item for item in named for _ in range(20))
