"""Times that count for nobody."""

from serin_control.judge.gaps import MARGIN_S, MAX_GAPS, Gaps


def test_a_time_that_goes_on_is_one_with_a_margin():
    """News only when it begins; whatever touches it is left out, nothing else."""
    gaps = Gaps()
    assert gaps.add(100.0, 100.25) == 100.0 - MARGIN_S
    assert [gaps.add(100.0 + n / 4, 100.25 + n / 4) for n in range(1, 40)] == [None] * 39
    assert gaps.add(100.0, 101.0) is None  # told late, and known
    assert gaps.total_s == 10.0 + 2 * MARGIN_S
    assert [gaps.cover(at, at) for at in (94.9, 95.0, 115.0, 115.1)] == [False, True, True, False]
    assert gaps.cover(0.0, 1e9)


def test_only_the_last_are_held_and_all_are_counted():
    """However often an old version comes and goes; over a dump too."""
    gaps = Gaps()
    for number in range(MAX_GAPS + 10):
        gaps.add(100.0 * number, 100.0 * number)
    again = Gaps.load(gaps.dump())
    assert len(again.dump()["gaps"]) == MAX_GAPS
    assert again.total_s == (MAX_GAPS + 10) * 2 * MARGIN_S
    assert (again.cover(500.0, 500.0), again.cover(2_000.0, 2_000.0)) == (False, True)
