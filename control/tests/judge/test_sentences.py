"""Words for what was found: figures that nothing bounds yet are not shown as if they were known."""

from serin_control.judge.memory import Growth
from serin_control.judge.sentences import comparison
from serin_control.judge.verdict import MetricVerdict, Verdict


def test_ends_of_an_interval_that_nothing_bounds_are_question_marks():
    """A process of which no window is known may grow by anything."""
    low, high = Growth(0.0).interval(0.01, 0.01)
    normal = 3.0 * 2**20
    known = MetricVerdict(
        metric="memory", verdict=Verdict.WAIT, difference=0.0, low=low - normal, high=high - normal, num_samples=0,
        stable_value=normal, canary_value=normal, tolerance=4.0 * 2**20, note="", unit="bytes",
    )  # fmt: skip
    assert comparison(known, {}) == "memory growth 3.0 MiB against 3.0 MiB per 1,000 requests (?..? MiB, 0 windows)"
