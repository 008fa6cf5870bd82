"""Where a prompt goes."""

import random
from collections import Counter

import pytest
from serin_gateway.placement import LEFT_ALONE_S, MAX_LOST_IN_A_ROW, Placement
from serin_gateway.testing import MemoryLoads, small_catalog, small_lane
from serin_mesh.errors import MeshError, Reason

LANE = small_lane(num_workers=4)
FIRST = LANE.workers[0]


def spread(placement: Placement, prompt: int, cached: dict[str, int], num: int = 400) -> Counter[str]:
    """How often each worker is chosen."""
    return Counter(placement.choose(LANE, prompt, cached).instance for _ in range(num))


def test_equal_workers_share():
    """At random, each about as often."""
    assert min(spread(Placement(random.Random(1)), 100, {}).values()) > 60


def test_the_holder_of_a_long_prefix_is_chosen():
    """Work saved decides when it is worth it, and does not when it is small."""
    placement = Placement(random.Random(2))
    assert set(spread(placement, 1000, {FIRST.endpoint: 900})) == {FIRST.instance}
    assert len(spread(placement, 1000, {FIRST.endpoint: 16})) == 4


def test_a_busy_holder_is_passed_over():
    """Enough running there, and computing the prefix elsewhere is cheaper; afterwards it is chosen again."""
    placement = Placement(random.Random(3))
    with placement.running(FIRST, 0, num_choices=8):
        assert FIRST.instance not in spread(placement, 300, {FIRST.endpoint: 290})
    assert set(spread(placement, 300, {FIRST.endpoint: 290})) == {FIRST.instance}


def test_waiting_prefills_count_until_they_are_done():
    """A long prompt stands before others only while it is computed."""
    placement = Placement(random.Random(4))
    with placement.running(FIRST, 5000, num_choices=0) as work:
        assert placement.cost(FIRST, 10) == 5010
        work.prefilled()
        work.prefilled()
        assert placement.cost(FIRST, 10) == 10
    assert placement.cost(FIRST, 10) == 10


def test_what_others_placed_counts_too():
    """A worker reports more than this gateway knows of."""

    class Reported:
        def num_sequences(self, endpoint):
            return 10 if endpoint == FIRST.endpoint else 0

        def is_silent(self, endpoint):
            return False

    placement = Placement(random.Random(6), loads=Reported())
    assert FIRST.instance not in spread(placement, 100, {})
    with placement.running(FIRST, 0, num_choices=3):
        assert placement.cost(FIRST, 0) == placement.cost(LANE.workers[1], 0) + 10 * 64 + 4096


def test_workers_that_failed_are_avoided():
    """And when none is left, that is said."""
    placement = Placement(random.Random(5))
    others = [worker.endpoint for worker in LANE.workers[1:]]
    assert placement.choose(LANE, 10, {}, avoid=others) is FIRST
    with pytest.raises(MeshError) as refusal:
        placement.choose(LANE, 10, {}, avoid=[worker.endpoint for worker in LANE.workers])
    assert refusal.value.reason is Reason.NOT_READY


def test_a_silent_worker_gets_nothing():
    """Even where it is the cheapest, or the only one left."""

    class Reported:
        def num_sequences(self, endpoint):
            return 0

        def is_silent(self, endpoint):
            return endpoint == FIRST.endpoint

    placement = Placement(random.Random(7), loads=Reported())
    assert FIRST.instance not in spread(placement, 1000, {FIRST.endpoint: 1000})
    with pytest.raises(MeshError) as refusal:
        placement.choose(LANE, 10, {}, avoid=[worker.endpoint for worker in LANE.workers[1:]])
    assert refusal.value.reason is Reason.NOT_READY


def test_a_model_whose_workers_are_all_silent_is_not_ready():
    """Whatever the control plane knew of them last."""
    loads = MemoryLoads()
    placement = Placement(random.Random(7), loads=loads)
    lane = small_lane(num_workers=2)
    model = small_catalog(lane).find("small")
    loads.silent = {lane.workers[0].endpoint}
    assert placement.serves(model)
    loads.silent = {worker.endpoint for worker in lane.workers}
    assert not placement.serves(model)
    assert not placement.serves(small_catalog(small_lane(num_workers=0)).find("small"))


def test_workers_of_another_numerics_class_come_last():
    """Unknown ones count as alike; others are taken when nobody else is left."""
    placement = Placement(random.Random(8))
    for worker in LANE.workers[:2]:
        placement.learn(worker, "other")
    alike = {placement.choose(LANE, 10, {}, numerics_class="mine").instance for _ in range(50)}
    assert alike == {worker.instance for worker in LANE.workers[2:]}
    rest = [worker.endpoint for worker in LANE.workers[2:]]
    assert placement.choose(LANE, 10, {}, rest, numerics_class="mine") in LANE.workers[:2]


def test_a_worker_that_only_fails_is_left_alone_for_a_moment():
    """It would have the least to do, always; one that begins a prompt, or is the only one, gets the next."""
    now = [100.0]
    placement = Placement(random.Random(5), clock=lambda: now[0])
    for _ in range(MAX_LOST_IN_A_ROW - 1):
        placement.lost(FIRST)
    placement.learn(FIRST, "a")  # it began one in between
    placement.lost(FIRST)
    assert len(spread(placement, 100, {})) == 4
    for _ in range(MAX_LOST_IN_A_ROW):
        placement.lost(FIRST)
    assert FIRST.instance not in spread(placement, 1000, {FIRST.endpoint: 1000})
    others = [worker.endpoint for worker in LANE.workers[1:]]
    assert placement.choose(LANE, 100, {}, others) is FIRST
    now[0] += LEFT_ALONE_S
    assert set(spread(placement, 1000, {FIRST.endpoint: 1000})) == {FIRST.instance}
