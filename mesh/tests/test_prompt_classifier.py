"""A classifier of prompts: the same in text and out of it, damage is noticed, time is bounded."""

import math
import random
import time
from array import array

import pytest
from serin_mesh.prompt_classifier import END_CHARACTERS, PREFIX, PromptClassifier, buckets_of


def some(bits: int = 10) -> PromptClassifier:
    """A classifier with weights drawn from a seed."""
    draw = random.Random(7)
    return PromptClassifier(bits, 1, 3, 0.25, 0.5, array("b", [draw.randint(-127, 127) for _ in range(2**bits)]))


def test_text_and_back():
    """Everything survives, and probabilities are the same."""
    one = some()
    again = PromptClassifier.from_text(one.to_text())
    assert again == one
    for text in ("", "What is 17 + 25?", "é\ud800"):
        assert again.probability(text) == one.probability(text)
        assert 0 <= one.probability(text) <= 1


def test_the_score_is_what_the_docstring_says():
    """The slow, obvious way: weights of different n-grams' buckets over the root of their number."""
    one, text = some(), "Count"
    buckets = buckets_of(text, 10, 1, 3)
    score = 0.25 + 0.5 * sum(one.weights[at] for at in buckets) / math.sqrt(len(buckets))
    assert one.probability(text) == pytest.approx(1 / (1 + math.exp(-score)))
    assert buckets == buckets_of("cOUNT", 10, 1, 3)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda text: "", "does not begin"),
        (lambda text: text[len(PREFIX) :], "does not begin"),
        (lambda text: PREFIX + "?", "no base64"),
        (lambda text: PREFIX, "cut or damaged"),
        (lambda text: text[:-8], "cut or damaged"),
        (lambda text: text[:40] + ("A" if text[40] != "A" else "B") + text[41:], "cut or damaged"),
    ],
)
def test_damage_is_noticed(damage, says):
    """Cut, changed, or something else altogether."""
    with pytest.raises(ValueError, match=says):
        PromptClassifier.from_text(damage(some().to_text()))


@pytest.mark.parametrize("fields", [{"bits": 20}, {"shortest": 0}, {"longest": 9}, {"bits": 9}, {"bias": math.nan}])
def test_a_classifier_that_is_none(fields):
    """Well formed, and impossible: another shape or size than its weights have."""
    one = some()
    values = {name: getattr(one, name) for name in ("bits", "shortest", "longest", "bias", "scale", "weights")}
    with pytest.raises(ValueError, match="another"):
        PromptClassifier.from_text(PromptClassifier(**(values | fields)).to_text())


def test_only_the_ends_of_a_long_prompt_are_looked_at():
    """A prompt of a megabyte takes no longer than one of a kilobyte."""
    head, tail = "a" * END_CHARACTERS, "b" * END_CHARACTERS
    assert buckets_of(head + "x" * 1_000_000 + tail, 16, 1, 4) == buckets_of(head + "y" * 5000 + tail, 16, 1, 4)
    began_at = time.process_time()
    some().probability("xyz " * 1_000_000)
    assert time.process_time() - began_at < 1.0
