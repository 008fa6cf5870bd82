"""Prompt tokens beside decodes."""

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
    assert learned().allowance(4, 20) == 250
    assert learned().allowance(1, 1000) == 512


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
    pacing = Pacing(512)
    pacing.observe(1, 0, 0.001)
    pacing.observe(0, 16, 10.0)
    assert pacing.allowance(1, 1) == 4
