"""Refusals are guessed from how an answer begins."""

import pytest
from serin_gateway.refusals import is_refusal


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I’m really sorry, I cannot do this.",
        "Unfortunately I won't write that.",
        "As an AI language model, I have no opinion.",
        "I must decline.",
        "Hmm. I am not able to share this.",
    ],
)
def test_common_openings_count_as_refusals(text):
    """Straight and curly apostrophes, with words before them."""
    assert is_refusal(text) is True


@pytest.mark.parametrize("text", ["The capital is Lima.", "I can help. Sorry is a word.", "4", "I'm a canary."[:3]])
def test_answers_do_not(text):
    """Words alone are no refusal; what has no letters a to z is not known."""
    assert is_refusal(text) is (None if text == "4" else False)


def test_only_the_beginning_counts():
    """A refusal told about later is a story, not a refusal; nothing at all is not known."""
    assert is_refusal("a" * 200 + " I cannot") is False
    assert is_refusal("") is None
