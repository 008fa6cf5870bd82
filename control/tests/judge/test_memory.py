"""Leaks: found through an allocator's noise, and not seen where there are none."""

import json
import math
import random

import pytest
from serin_control.judge.memory import Growth
from serin_control.judge.observation import ProcessMemory

MIB = 2.0**20


def grown(seed, leak_per_request, num_samples=60, warm_up_s=60.0, at_first=0.0):
    """A process with jumps of some mebibytes, every 20 s and 100 requests."""
    rng = random.Random(seed)
    growth = Growth(warm_up_s)
    for number in range(num_samples):
        early = at_first * min(number, 2)
        resident = 500 * MIB + early + leak_per_request * 100 * number + rng.choice((0.0, 0.5, 2.0)) * MIB
        growth.add(ProcessMemory("lane", "w", 20.0 * number, int(resident), 100 * number))
    return growth


def test_a_leak_is_proven():
    """50 kB a request."""
    growth = grown(1, 50_000.0)
    assert growth.evidence_above(4 * MIB) > 10
    low, high = growth.interval(0.01, 0.01)
    assert 4 * MIB < low <= growth.median <= high


def test_jumps_are_no_leak():
    """Memory that only goes up and down is cleared; there is hardly any evidence against it."""
    alarms = 0
    for seed in range(50):
        growth = grown(seed, 0.0, num_samples=150)
        alarms += growth.evidence_above(0.0) > 4.6
    assert alarms <= 2
    assert grown(1, 0.0, num_samples=250).evidence_below(8 * MIB) > 4.6


def test_what_a_process_does_at_first_is_left_out():
    """Caches fill; that is no leak."""
    assert grown(2, 0.0, at_first=200 * MIB).median < 4 * MIB


def test_a_process_that_starts_again_starts_again():
    """Requests that count from zero are no window."""
    growth = Growth(0.0)
    for at, requests, resident in ((0, 0, 100), (60, 1000, 100), (120, 0, 900), (180, 500, 900)):
        growth.add(ProcessMemory("lane", "w", float(at), int(resident * MIB), requests))
    assert (growth.num_windows, growth.median) == (2, 0.0)


def test_nothing_known_bounds_nothing():
    """Without windows the interval is everything."""
    growth = Growth(0.0)
    assert growth.interval(0.01, 0.01) == (-math.inf, math.inf)
    assert growth.evidence_above(0.0) == 0.0


def test_dumped_and_loaded_it_is_the_same():
    """Through JSON."""
    growth = grown(3, 10_000.0)
    again = Growth.load(60.0, json.loads(json.dumps(growth.dump())))
    for each in (growth, again):
        each.add(ProcessMemory("lane", "w", 5000.0, int(900 * MIB), 50_000))
    assert again.interval(0.01, 0.01) == growth.interval(0.01, 0.01)
    assert again.median == pytest.approx(growth.median)
