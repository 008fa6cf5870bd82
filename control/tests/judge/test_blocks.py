"""Sessions as units: each counts once, with those that began when it did."""

import json

from serin_control.judge.blocks import MAX_DUMPED_UNITS, Blocks

FAILED = [("errors", 1.0)]
FINE = [("errors", 0.0)]


def blocks():
    """Sessions are watched for 30 s; blocks are of 15 s."""
    return Blocks(session_s=30.0, block_s=15.0)


def add(open_blocks, is_new, session, began, burdens):
    """One request; returns whether it counts."""
    unit = open_blocks.unit(is_new, session, began)
    if unit is not None:
        unit.add(burdens)
    return unit is not None


def settled(open_blocks, until, since=0.0):
    """What is finished while seconds pass."""
    found = []
    at = since
    while at < until:
        at += 1.0
        found += open_blocks.advance(at)
    return found


def test_a_session_with_a_thousand_failures_is_one_failure():
    """However often it comes back, and however long it stays."""
    some = blocks()
    found = []
    for second in range(1, 200):
        for _ in range(5):
            add(some, True, 7, float(second), FAILED)
        add(some, True, 1000 + second, float(second), FINE)
        add(some, False, 5000 + second, float(second), FINE)
        found += some.advance(float(second))
    failures = [block.new.get("errors", {}).get(1.0, 0) for block in found]
    assert sum(failures) == 1


def test_a_session_is_the_mean_of_its_first_half_minute():
    """Requests after that do not count."""
    some = blocks()
    add(some, True, 7, 1.0, FAILED)
    add(some, True, 7, 20.0, FINE)
    assert not add(some, True, 7, 40.0, FAILED)
    add(some, False, 8, 1.0, FINE)
    (block,) = settled(some, 100.0)
    assert block.new["errors"] == {0.5: 1}
    assert block.old["errors"] == {0.0: 1}


def test_a_block_waits_for_both_arms_and_for_its_sessions_to_be_seen():
    """Nothing is compared with nothing; nothing is counted before its half minute is over."""
    some = blocks()
    add(some, True, 1, 0.0, FINE)
    assert settled(some, 100.0) == []
    add(some, False, 2, 100.0, FINE)
    assert settled(some, 130.0, since=100.0) == []
    assert len(settled(some, 140.0, since=130.0)) == 1


def test_slow_requests_count_where_they_began():
    """One that ends late belongs to the block of its beginning, while that is open."""
    some = blocks()
    for session in range(10):
        add(some, session % 2 == 0, session, 1.0, FINE)
    settled(some, 20.0)
    add(some, True, 100, 2.0, FAILED)
    (block,) = settled(some, 60.0, since=20.0)
    assert block.new["errors"] == {0.0: 5, 1.0: 1}


def test_sessions_that_moved_are_compared_with_sessions_that_were_known_too():
    """An old session on the new arm is not set against fresh ones."""
    some = blocks()
    for session in range(10):
        add(some, False, session, 1.0, FINE)
    add(some, True, 99, 1.0, FINE)
    settled(some, 950.0)
    for session in range(5):
        add(some, True, session, 951.0, FINE)
        add(some, False, 5 + session, 951.0, FINE)
        add(some, False, 200 + session, 951.0, FINE)
        add(some, True, 300 + session, 951.0, FAILED)
    fresh, known = settled(some, 1100.0, since=950.0)
    assert (fresh.new["errors"], fresh.old["errors"]) == ({1.0: 5}, {0.0: 5})
    assert (known.new["errors"], known.old["errors"]) == ({0.0: 5}, {0.0: 5})


def test_a_flood_is_bounded_and_not_held_against_anybody():
    """Old sessions beyond what helps are passed over; a dump has the new arm's and every nth of the others."""
    some = blocks()
    taken = sum(add(some, False, session, 1.0, FINE) for session in range(10_000))
    assert taken == 64
    assert sum(add(some, True, 20_000 + session, 1.0, FINE) for session in range(10_000)) == 512
    assert sum(add(some, False, 40_000 + session, 1.0, FINE) for session in range(10_000)) == 2048 - 64
    ((_, _, old, new),) = some.dump()["open"]
    assert len(new) == 512
    assert [session for session, *_ in old[:2]] == [0, 2]  # not those that came first: who ends early is quick
    assert len(old) + len(new) <= MAX_DUMPED_UNITS


def test_a_busy_mesh_loses_none_of_the_new_arm_in_a_restart():
    """What is open goes on with whom it is compared with, only fewer of them."""
    some = blocks()
    for session in range(3_000):
        add(some, session % 4 == 0, session, 1.0, FAILED if session % 8 == 0 else FINE)
    again = Blocks.load(30.0, 15.0, json.loads(json.dumps(some.dump())))
    (before,), (after,) = settled(some, 60.0), settled(again, 60.0)
    assert after.new == before.new
    assert 512 < sum(after.old["errors"].values()) < sum(before.old["errors"].values())


def test_dumped_and_loaded_it_goes_on():
    """Open sessions and all."""
    some = blocks()
    for session in range(20):
        add(some, session % 3 == 0, session, 1.0 + session, FAILED if session % 6 == 0 else FINE)
    settled(some, 22.0)
    again = Blocks.load(30.0, 15.0, json.loads(json.dumps(some.dump())))
    assert not add(again, True, 3, 500.0, FAILED)
    assert settled(again, 90.0, since=22.0) == settled(some, 90.0, since=22.0)
