"""What is usual of a latency, stratum by stratum."""

import json
import math

import pytest
from serin_control.judge.strata import MAX_STRATA, MIN_TAUGHT, Strata, bucket


def test_a_value_is_compared_with_what_is_usual_of_its_stratum():
    """Slow where everything is slow is not slow."""
    strata = Strata()
    for _ in range(100):
        strata.compare(1, 0.1, teach=True)
        strata.compare(2, 1.0, teach=True)
    assert strata.compare(1, 0.2, teach=False) == pytest.approx(math.log(2))
    assert strata.compare(2, 1.0, teach=False) == pytest.approx(0.0)


def test_a_stratum_that_was_hardly_seen_says_nothing():
    """Until it was taught often enough; values of the new lane never teach."""
    strata = Strata()
    for _ in range(MIN_TAUGHT):
        assert strata.compare(1, 5.0, teach=False) is None
        assert strata.compare(1, 0.1, teach=True) is None
    assert strata.compare(1, 0.1, teach=False) == pytest.approx(0.0)


def test_what_is_usual_follows_the_times():
    """What was so a thousand values ago is forgotten."""
    strata = Strata()
    for value in [0.1] * 1000 + [0.2] * 3000:
        strata.compare(1, value, teach=True)
    assert strata.compare(1, 0.2, teach=False) == pytest.approx(0.0, abs=0.01)


def test_strata_are_bounded():
    """Further ones are not learned."""
    strata = Strata()
    for stratum in range(MAX_STRATA + 100):
        strata.compare(stratum, 1.0, teach=True)
    assert len(strata.dump()) == MAX_STRATA
    assert Strata.load(json.loads(json.dumps(strata.dump()))).dump() == strata.dump()


def test_buckets_grow_with_the_count():
    """Small counts alone, large ones with their like; never falling."""
    assert [bucket(count, 4) for count in range(6)] == [0, 1, 2, 3, 4, 6]
    buckets = [bucket(count, 2) for count in range(100_000)]
    assert buckets == sorted(buckets)
    assert bucket(16_000, 2) == bucket(16_300, 2) == bucket(32_000, 2) - 2
