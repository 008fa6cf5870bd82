"""Requests per second."""

from serin_worker.rate import RequestRate


def test_the_rate_is_of_the_last_ten_seconds():
    """What is older does not count, and memory does not grow with time."""
    now = [0.0]
    rate = RequestRate(lambda: now[0])
    for second in range(100):
        now[0] = float(second)
        for _ in range(5):
            rate.note()
    assert 5.0 <= rate.per_s() <= 5.5
    assert len(rate._counts) <= 11
    now[0] = 200.0
    assert rate.per_s() == 0.0
