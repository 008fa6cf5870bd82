"""Each batch of each life of a gateway counts once."""

from serin_control.observations.ledger import MAX_LIVES, BatchLedger


def test_a_batch_counts_once():
    """Again, or one from before: not new; a gap (the gateway dropped some) is no reason to wait."""
    ledger = BatchLedger()
    assert [batch for batch in (1, 1, 2, 1, 5, 4, 6) if ledger.take("g", 1, batch)] == [1, 2, 5, 6]


def test_lives_are_apart():
    """A restarted gateway begins anew, and so does another one."""
    ledger = BatchLedger()
    assert all(ledger.take(gateway, epoch, 1) for gateway, epoch in (("g", 1), ("g", 2), ("h", 1)))
    assert not ledger.take("g", 1, 1)


def test_what_is_remembered_is_bounded():
    """The life that was silent longest goes first."""
    ledger = BatchLedger()
    ledger.take("first", 0, 1)
    for number in range(MAX_LIVES):
        ledger.take("g", number, 1)
        ledger.take("busy", 0, number + 1)
    assert not ledger.take("busy", 0, 1)
    assert not ledger.take("g", MAX_LIVES - 1, 1)
    assert ledger.take("first", 0, 1)
