"""Training batches: reproducible rows whose conversations do not see each other."""

from itertools import islice

import torch
from serin_worker.demo.batches import training_batches
from serin_worker.demo.model import build_model
from serin_worker.demo.tokenizer import TOKEN_IDS, TURN_END


def _first_batch(seed=0):
    return next(training_batches(seed, num_rows=4, row_length=256))


def test_a_seed_gives_the_same_batches():
    """Ids, positions, targets and weights all repeat."""
    for one, two in zip(islice(training_batches(1, 2, 128), 3), islice(training_batches(1, 2, 128), 3), strict=True):
        assert torch.equal(one.ids, two.ids)
        assert torch.equal(one.positions, two.positions)
        assert torch.equal(one.targets, two.targets)
        assert torch.equal(one.weights, two.weights)
    assert not torch.equal(_first_batch(0).ids, _first_batch(1).ids)


def test_targets_are_the_next_ids():
    """Each learned place is paired with what follows it in its row."""
    batch = _first_batch()
    shifted = batch.ids[:, 1:][batch.learned[:, :-1]]
    inside = batch.targets[batch.learned.nonzero()[:, 1] < batch.ids.shape[1] - 1]
    assert torch.equal(shifted, inside)
    assert (batch.targets == TOKEN_IDS[TURN_END]).sum() >= 4


def test_conversations_in_one_row_do_not_see_each_other():
    """The second conversation of a row gets the states it has alone."""
    batch = _first_batch()
    row = next(row for row in range(4) if (batch.positions[row] == 0).sum() >= 3)
    _, start, end, *_ = (batch.positions[row] == 0).nonzero().flatten().tolist()
    model = build_model(0).eval()
    here = slice(row, row + 1)
    with torch.inference_mode():
        together = model(input_ids=batch.ids[here], position_ids=batch.positions[here], use_cache=False).logits
        alone = model(input_ids=batch.ids[here, start:end], use_cache=False).logits
    torch.testing.assert_close(together[:, start:end], alone, atol=1e-5, rtol=1e-4)
