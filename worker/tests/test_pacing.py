"""Prompt tokens beside decodes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serin_worker.pacing import Pacing


def learned() -> Pacing:
    """Decodes of 50 ms, 2 ms a prompt token."""
    pacing = Pacing(512)
    pacing.observe(4, 0, 0.05)
    pacing.observe(0, 500, 1.0)
    return pacing


def test_everything_is_allowed_until_something_is_known():
    """The first prompts are not held up by guesses, nor are any when nothing decodes."""
    assert Pacing(512).allowance(4, 1) == 512
    assert learned().allowance(0, 1) == 512


def test_a_long_prompt_takes_less_long_than_the_decodes():
    """One prompt beside four answers: a step takes one and a half times as long, so that few take more than twice."""
    assert learned().allowance(4, 1) == 12


def test_a_crowd_that_waits_may_take_more():
    """With many waiting for each that runs, filling the batch is worth more than its pace."""
    assert learned().allowance(4, 20) == 252
    assert learned().allowance(1, 1000) == 511


def test_mixed_steps_teach_what_the_prompt_added():
    """The decodes' share of a mixed step is not blamed on the prompt."""
    pacing = Pacing(512)
    pacing.observe(4, 0, 0.05)
    pacing.observe(4, 100, 0.25)
    assert pacing.allowance(4, 1) == 12


def test_one_step_that_was_held_up_changes_nothing():
    """A decode that another process held up does not let prompts take more, nor a prompt's chunk less."""
    pacing = learned()
    for _ in range(4):
        pacing.observe(4, 0, 0.05)
        pacing.observe(4, 12, 0.074)
    pacing.observe(4, 0, 5.0)
    pacing.observe(4, 12, 5.0)
    assert pacing.allowance(4, 1) == 12


def test_now_and_then_decodes_run_alone():
    """What decodes take is looked at again while a long prompt arrives; a crowd is not held up for it."""
    pacing = learned()
    for _ in range(16):
        assert pacing.allowance(4, 1) > 0
        pacing.observe(4, 12, 0.074)
    assert pacing.allowance(4, 1) == 0
    assert pacing.allowance(4, 20) > 0
    pacing.observe(4, 0, 0.05)
    assert pacing.allowance(4, 1) == 12


def test_a_step_always_makes_progress():
    """However slow prompts are, some of their tokens go along."""
    for num_decoding in (1, 12, 13, 16):
        pacing = Pacing(512)
        pacing.observe(num_decoding, 0, 0.001)
        pacing.observe(0, 16, 10.0)
        assert pacing.allowance(num_decoding, 1) == 4


def run(pacing: Pacing, num_steps: int, added_s, num_decoding: int = 8) -> list[int]:
    """Prompt tokens of steps beside decodes of 100 ms, where a prompt's tiles and tokens add so many seconds."""
    taken = []
    for _ in range(num_steps):
        num_tokens = pacing.allowance(num_decoding, 1)
        tiles = (num_decoding + num_tokens + 15) // 16 - (num_decoding + 15) // 16
        pacing.observe(num_decoding, num_tokens, 0.1 + (added_s(tiles, num_tokens) if num_tokens else 0.0))
        taken.append(num_tokens)
    return taken


def fresh() -> Pacing:
    """Decodes of 100 ms; prompts alone at 2 ms a token."""
    pacing = Pacing(512)
    pacing.observe(8, 0, 0.1)
    pacing.observe(0, 500, 1.0)
    return pacing


def test_small_chunks_of_a_long_prompt_are_left():
    """What reads a context costs the same for 8 tokens as for 40: the step takes as many as half its time allows."""
    taken = run(fresh(), 100, lambda tiles, _: 0.015 + 0.015 * tiles)
    assert max(taken) == 40
    assert taken[-10:].count(40) >= 8


def test_tiles_that_cost_too_much_are_tried_seldom():
    """A second tile makes the step twice as long here; the tokens that fill the first one cost a tenth."""
    taken = run(fresh(), 300, lambda tiles, _: 0.01 + 0.1 * tiles)
    assert taken.count(8) > 250
    assert sum(1 for count in taken if count > 8) <= 6


def test_costs_that_grow_with_the_context_are_followed():
    """As each token gets dearer the chunk shrinks; steps take half as long again as decodes, not less and not more."""
    pacing, lengths, counts = fresh(), [], []
    for step in range(200):
        cost = 0.0005 + 0.00005 * step
        (count,) = run(pacing, 1, lambda _, tokens, cost=cost: cost * tokens)
        if count:
            lengths.append(cost * count / 0.1)
            counts.append(count)
    assert all(length < 0.85 for length in lengths[20:])
    assert sum(lengths[20:]) / len(lengths[20:]) > 0.3
    assert counts[20] >= 24
    assert counts[-1] == 4


@pytest.mark.parametrize("num_decoding", [2, 3, 15, 16, 17, 32])
def test_tiles_are_not_filled_where_each_token_costs(num_decoding):
    """Without matrix tiles a tile's other rows are not free: as many tokens go along as take half as long."""
    pacing = Pacing(512)
    pacing.observe(num_decoding, 0, 0.05)
    pacing.observe(0, 100, 0.5)
    for _ in range(100):
        count = pacing.allowance(num_decoding, 1)
        pacing.observe(num_decoding, count, 0.05 + 0.005 * count)
        assert count in (0, 4, 5)


def test_decodes_that_come_and_go_do_not_let_prompts_run_free():
    """What prompts cost is not forgotten with what decodes did: no step takes three times as long after a change."""
    pacing = Pacing(512)
    pacing.observe(0, 500, 0.5)
    worst = 0.0
    for step in range(300):
        num_decoding = 4 if step // 20 % 2 else 6
        count = pacing.allowance(num_decoding, 1)
        seconds = 0.1 + (0.02 + 0.004 * count if count else 0.0)
        pacing.observe(num_decoding, count, seconds)
        worst = max(worst, seconds) if step >= 20 else worst
    assert worst <= 0.2


@given(
    st.lists(
        st.tuples(st.integers(0, 64), st.integers(0, 3), st.integers(0, 64), st.floats(0, 2)), min_size=1, max_size=80
    )
)
def test_any_history_is_answered(history):
    """Never more than a step holds; nothing only where a step of decodes alone is due, which comes within 17 steps."""
    pacing, num_without = Pacing(512), 0
    for num_decoding, num_behind, kept, seconds in history:
        count = pacing.allowance(num_decoding, num_behind)
        assert count == 0 or 4 <= count <= 512
        num_without = num_without + 1 if count == 0 else 0
        assert num_without <= 1
        pacing.observe(num_decoding, min(count, kept), seconds)


def test_a_crowd_that_has_come_in_is_looked_at_anew():
    """After a few steps with half as many decodes again, one has them alone; what prompts added before is forgotten."""
    pacing = fresh()
    assert run(pacing, 20, lambda tiles, _: 0.01 + 0.02 * tiles)[-1] > 0
    taken = run(pacing, 10, lambda tiles, _: 0.2 * tiles, num_decoding=12)
    assert 0 in taken[:5]
    assert set(taken[5:]) <= {4, 20}


def test_what_nearly_fitted_is_tried_again():
    """A tile that was dear once, since something else was, is not left alone until it is forgotten."""
    costs = [0.055] * 3 + [0.03] * 60  # of a second tile; of each more 0.1
    pacing = fresh()
    taken = run(pacing, 60, lambda tiles, _: 0.005 + (costs.pop(0) + 0.1 * (tiles - 1) if tiles else 0.0))
    assert 24 in taken[20:40]
