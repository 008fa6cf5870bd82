"""The bets: no false alarm at any look, whatever the level does; real differences are found; intervals cover."""

import json
import math

import numpy as np
import pytest
from serin_control.judge.bets import Bets, winnings

ERROR = 0.05


def played(seed, old_shares, new_shares, num_new, num_old):
    """Bets after each block, shares given block by block."""
    rng = np.random.default_rng(seed)
    bets = Bets(0.05)
    for old_share, new_share in zip(old_shares, new_shares, strict=True):
        old, new = rng.binomial(num_old, old_share), rng.binomial(num_new, new_share)
        bets.settle(units(num_old, old), units(num_new, new))
        yield bets


def units(number, ones):
    """That many units, so many of them 1."""
    return {burden: count for burden, count in ((0.0, number - ones), (1.0, ones)) if count}


@pytest.mark.parametrize(("share", "num_new", "num_old"), [(0.05, 1, 20), (0.05, 8, 8), (0.5, 2, 4), (0.9, 4, 2)])
def test_equal_arms_seldom_look_different_however_often_one_looks(share, num_new, num_old):
    """Looked at after every block, evidence of a difference reaches 1/a in at most a of all histories."""
    num_runs, num_blocks = 100, 40
    alarms = [0, 0]
    for seed in range(num_runs):
        most = [0.0, 0.0]
        for bets in played(seed, [share] * num_blocks, [share] * num_blocks, num_new, num_old):
            most = [max(most[0], bets.evidence_above(0)), max(most[1], bets.evidence_below(0))]
        alarms = [count + (evidence >= math.log(1 / ERROR)) for count, evidence in zip(alarms, most, strict=True)]
    assert max(alarms) / num_runs <= ERROR + 3 * math.sqrt(ERROR * (1 - ERROR) / num_runs)


def test_a_level_that_drifts_is_no_difference():
    """Ten times the failures at night, and the new arm has most of its traffic then: still no alarm."""
    rng = np.random.default_rng(1)
    alarms = 0
    for _ in range(100):
        bets = Bets(0.05)
        most = 0.0
        for block in range(80):
            share, num_old, num_new = (0.02, 20, 1) if block < 40 else (0.2, 10, 10)
            bets.settle(units(num_old, rng.binomial(num_old, share)), units(num_new, rng.binomial(num_new, share)))
            most = max(most, bets.evidence_above(0))
        alarms += most >= math.log(1 / ERROR)
    assert alarms <= 12


@pytest.mark.parametrize("difference", [-0.1, 0.0, 0.03, 0.2])
def test_the_interval_holds_the_truth_at_every_look(difference):
    """Each end misses in at most its own share of histories, over all looks together."""
    missed = 0
    for seed in range(100):
        shares = [0.15] * 50
        looks = played(seed, shares, [share + difference for share in shares], 4, 16)
        intervals = [bets.interval(ERROR / 2, ERROR / 2) for bets in looks]
        missed += any(not low <= difference <= high for low, high in intervals)
    assert missed <= 12


def test_the_interval_closes_in():
    """After thousands of units it is narrow, and holds the difference that was seen."""
    *_, bets = played(3, [0.1] * 400, [0.15] * 400, 10, 40)
    low, high = bets.interval(0.01, 0.01)
    assert low <= bets.difference <= high
    assert high - low < 0.05


def test_burdens_between_0_and_1_that_vary_little_need_few_units():
    """Betting uses the spread that is there, not the widest there could be."""
    rng = np.random.default_rng(4)
    bets = Bets(0.05)
    num_units = 0
    while bets.evidence_below(1) < math.log(100):
        old, new = rng.normal(0.5, 0.05, size=8).round(2), rng.normal(0.5, 0.05, size=2).round(2)
        bets.settle(*({float(value): int((part == value).sum()) for value in set(part)} for part in (old, new)))
        num_units += 2
    assert num_units < 150


def test_a_known_old_arm_needs_no_units():
    """Pairs: each difference is one unit, compared with one half."""
    bets = Bets(0.05)
    for _ in range(40):
        bets.settle_known(0.5, {1.0: 1})
    assert bets.evidence_above(1) > math.log(1000)
    assert bets.num_new == 40


def test_no_block_has_winnings_above_1_on_average_where_the_difference_is_true():
    """The mean of the multiplier over all outcomes of a block, reckoned exactly, is at most 1."""
    differences = np.array([0.0, 0.1])
    effects = np.array([0.4, 0.05])
    for level_thought in (0.02, 0.3):
        for old_mean in (0.0, 0.2, 0.7):
            for at, difference in enumerate(differences):
                expected = sum(
                    _likelihood(old_ones, 3, old_mean)
                    * _likelihood(new_ones, 2, old_mean + difference)
                    * np.exp(_won(old_ones, new_ones, level_thought, differences, effects))[at]
                    for old_ones in range(4)
                    for new_ones in range(3)
                )
                assert (expected <= 1 + 1e-9).all()


def test_an_arm_alone_proves_nothing():
    """It only teaches its level."""
    bets = Bets(0.05)
    bets.settle({0.0: 100}, {})
    bets.settle({}, {1.0: 100})
    assert (bets.evidence_above(0), bets.evidence_below(1)) == (0.0, 0.0)
    assert (bets.num_old, bets.num_new) == (100, 100)


def test_dumped_and_loaded_it_is_the_same():
    """To the last bit."""
    *_, bets = played(5, [0.1] * 20, [0.3] * 20, 2, 9)
    again = Bets.load(0.05, json.loads(json.dumps(bets.dump())))
    for each in (bets, again):
        each.settle({0.0: 3, 0.5: 1}, {1.0: 1})
    assert again.interval(0.01, 0.02) == bets.interval(0.01, 0.02)
    assert (again.difference, again.new_mean) == (bets.difference, bets.new_mean)


def _likelihood(ones, number, share):
    return math.comb(number, ones) * share**ones * (1 - share) ** (number - ones)


def _won(old_ones, new_ones, level, differences, effects):
    old = (np.array([0.0, 1.0]), np.array([3.0 - old_ones, old_ones]))
    new = (np.array([0.0, 1.0]), np.array([2.0 - new_ones, new_ones]))
    return winnings(old, new, level, differences, effects)
