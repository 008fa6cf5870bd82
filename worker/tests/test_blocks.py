"""The block pool."""

import pytest
from serin_worker.blocks import BlockPool
from serin_worker.errors import OutOfBlocks

A, B = b"namespace-a", b"namespace-b"


def test_allocation_ends_at_the_pool():
    """More blocks than there are cannot be taken, and nothing is taken by trying."""
    pool = BlockPool(3)
    pool.allocate(2)
    with pytest.raises(OutOfBlocks, match="2 blocks asked for, 1 of 3 free"):
        pool.allocate(2)
    assert pool.num_free == 1


def test_a_freed_prefix_can_be_found_until_its_block_is_reused():
    """Freed blocks keep their prefix; the one freed first is reused first, and a sequence's tail before its head."""
    pool = BlockPool(4)
    first, second = pool.allocate(2), pool.allocate(2)
    pool.publish(A, first, [b"1", b"2"])
    pool.publish(A, second, [b"3", b"4"])
    pool.release(first)
    pool.release(second)
    assert pool.num_free == 4
    assert pool.match([b"1", b"2"]) == first
    pool.allocate(1)
    assert pool.match([b"1", b"2"]) == first[:1]
    assert pool.match([b"3", b"4"]) == second


def test_match_stops_at_the_first_gap():
    """A prefix is a run from the first block on."""
    pool = BlockPool(3)
    blocks = pool.allocate(3)
    pool.publish(A, blocks, [b"1", b"2", b"3"])
    assert pool.match([b"1", b"x", b"3"]) == blocks[:1]


def test_shared_blocks_are_freed_by_their_last_holder():
    """References count."""
    pool = BlockPool(1)
    blocks = pool.allocate(1)
    pool.share(blocks)
    assert pool.is_shared(blocks[0])
    pool.release(blocks)
    assert pool.num_free == 0
    pool.release(blocks)
    assert pool.num_free == 1


def test_purge_forgets_one_namespace_only():
    """A purge removes a namespace's prefixes, held or not, and leaves others and all holders alone."""
    pool = BlockPool(4)
    held, freed, other = pool.allocate(1), pool.allocate(1), pool.allocate(1)
    pool.publish(A, held, [b"1"])
    pool.publish(A, freed, [b"2"])
    pool.publish(B, other, [b"3"])
    pool.release(freed)
    assert pool.purge(A) == 2
    assert pool.match([b"1"]) == []
    assert pool.match([b"2"]) == []
    assert pool.match([b"3"]) == other
    assert pool.num_free == 2
    pool.release(held)
    pool.release(other)
    assert pool.num_free == 4


def test_the_first_block_of_a_key_keeps_it():
    """Two sequences that computed the same block do not fight over its key."""
    pool = BlockPool(2)
    first, second = pool.allocate(1), pool.allocate(1)
    pool.publish(A, first, [b"1"])
    pool.publish(A, second, [b"1"])
    assert pool.match([b"1"]) == first
    assert pool.num_cached == 1


def test_the_log_adds_up_to_what_is_cached():
    """Stored and removed events, applied in order, give the set of keys; numbers have no gap."""
    pool = BlockPool(2)
    pool.publish(A, blocks := pool.allocate(2), [b"1", b"2"])
    pool.release(blocks)
    pool.allocate(1)
    events = pool.log.since(0)
    assert events is not None
    assert [event.number for event in events] == [1, 2]
    assert [(event.kind, event.keys) for event in events] == [("stored", (b"1", b"2")), ("removed", (b"2",))]
    assert pool.log.snapshot() == (2, frozenset({b"1"}))
