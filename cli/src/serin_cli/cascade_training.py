"""Trains a classifier of prompts from examples: which of them a first model answers wrong.

Logistic regression by AdaGrad (Duchi, Hazan and Singer 2011), seeded, in plain Python: some thousand examples take
seconds. A part of the examples, chosen by their own text, is held apart and measures what was learned. Knows nothing
about files or cascades.
"""

import hashlib
import math
import random
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from serin_mesh.prompt_classifier import PromptClassifier, buckets_of

BITS, SHORTEST, LONGEST = 12, 1, 3
EPOCHS = 8
RATE = 0.3
DECAY = 1e-4
HELD_APART = 0.2
MIN_EXAMPLES = 50


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt's last turn, and whether the larger model should answer it."""

    text: str
    escalate: bool


@dataclass(frozen=True, slots=True)
class Point:
    """What a threshold does to the examples held apart: shares, 0 to 1.

    Attributes:
        escalated: of all, those above the threshold.
        caught: of those that should be escalated, those that are.
    """

    above: float
    escalated: float
    caught: float


@dataclass(frozen=True, slots=True)
class Trained:
    """A classifier and how well it does.

    Attributes:
        num_learned, num_held: examples that it learned from, and that measured it.
        auc: probability that one that should be escalated scores above one that should not; 0.5 is chance.
    """

    classifier: PromptClassifier
    num_learned: int
    num_held: int
    auc: float
    points: Sequence[Point]


def train(examples: Sequence[Example], seed: int = 0) -> Trained:
    """A classifier of these examples; the same ones and the same seed give the same classifier.

    Raises:
        ValueError: too few, or all alike.
    """
    held = [one for one in examples if _is_held(one.text)]
    learned = [one for one in examples if not _is_held(one.text)]
    for part, name in ((learned, "to learn from"), (held, "held apart")):
        kinds = {one.escalate for one in part}
        if len(examples) < MIN_EXAMPLES or len(kinds) < 2:
            raise ValueError(
                f"{len(examples)} examples, {len(part)} of them {name}; accepted: at least {MIN_EXAMPLES}, "
                "of both kinds in each part"
            )
    classifier = _fit(learned, seed)
    scores = [(classifier.probability(one.text), one.escalate) for one in held]
    return Trained(classifier, len(learned), len(held), _auc(scores), [_point(scores, n / 20) for n in range(1, 20)])


def _is_held(text: str) -> bool:
    """By the text's own digest: an example that is there twice is never on both sides."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) < HELD_APART * 2**64


def _fit(examples: Sequence[Example], seed: int) -> PromptClassifier:
    rows = [(buckets_of(one.text, BITS, SHORTEST, LONGEST), 1.0 if one.escalate else 0.0) for one in examples]
    weights, squares = [0.0] * 2**BITS, [1e-6] * 2**BITS
    bias, bias_square = 0.0, 1e-6
    order = random.Random(seed)
    for _ in range(EPOCHS):
        order.shuffle(rows)
        for buckets, wanted in rows:
            share = 1.0 / math.sqrt(max(1, len(buckets)))
            score = bias + share * math.fsum(weights[at] for at in buckets)
            error = 1.0 / (1.0 + math.exp(-max(-60.0, min(60.0, score)))) - wanted
            bias_square += error * error
            bias -= RATE * error / math.sqrt(bias_square)
            for at in buckets:
                slope = share * error + DECAY * weights[at]
                squares[at] += slope * slope
                weights[at] -= RATE * slope / math.sqrt(squares[at])
    scale = max(max(map(abs, weights)) / 127, 1e-9)
    return PromptClassifier(BITS, SHORTEST, LONGEST, bias, scale, array("b", [round(one / scale) for one in weights]))


def _auc(scores: Sequence[tuple[float, bool]]) -> float:
    """By ranks (Mann and Whitney 1947), ties in half."""
    wins = total = 0.0
    yes = [score for score, is_yes in scores if is_yes]
    no = [score for score, is_yes in scores if not is_yes]
    for one in yes:
        for other in no:
            total += 1
            wins += 1.0 if one > other else 0.5 if one == other else 0.0
    return wins / total


def _point(scores: Sequence[tuple[float, bool]], above: float) -> Point:
    chosen = [is_yes for score, is_yes in scores if score > above]
    return Point(above, len(chosen) / len(scores), sum(chosen) / sum(is_yes for _, is_yes in scores))
