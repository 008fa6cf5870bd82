"""Batches: the oldest input is always in, nothing is larger than allowed, little is padding."""

import random

from serin_worker.embedding.batching import MAX_PADDING, next_batch


def test_every_input_is_computed_once_within_bounds():
    """Over random lines: all are taken, the oldest first, within tokens and padding."""
    rng = random.Random(5)
    for _ in range(50):
        waiting = [(number, rng.choice((1, 3, 8, 20, 100, 400))) for number in range(rng.randrange(1, 120))]
        taken = []
        while waiting:
            batch = next_batch(waiting, lambda one: one[1], 512)
            assert waiting[0] in batch
            lengths = [length for _, length in batch]
            num_padded = max(lengths) * len(lengths)
            assert num_padded <= 512
            assert num_padded - sum(lengths) <= MAX_PADDING * num_padded
            taken += batch
            waiting = [one for one in waiting if one not in batch]
        assert len(taken) == len(set(taken))


def test_equal_lengths_fill_a_batch():
    """As many as fit, the oldest among them."""
    assert len(next_batch([8] * 100, lambda one: one, 256)) == 32


def test_one_that_is_too_long_goes_alone():
    """It is never refused here."""
    assert next_batch([900, 3, 900], lambda one: one, 512) == [900]
