"""What waits to be reported is bounded, and what is lost is counted."""

from serin_gateway.attempt_receipt import AttemptReceipt
from serin_gateway.observing.buffer import BATCH_OBSERVATIONS, BATCH_OTHERS, ObservationBuffer
from serin_gateway.observing.observation import Beginning, Feedback, Observation, ShadowScore


def observation(number: int) -> Observation:
    """One that can be told from others."""
    return Observation(f"req-{number}", "small", 1, 0.0, AttemptReceipt(lane="a"))


def test_the_oldest_goes_first():
    """A full buffer keeps the newest and says how many it lost, once."""
    buffer = ObservationBuffer(3)
    for number in range(5):
        buffer.observe(observation(number))
    batch = buffer.take()
    assert [one.request_id for one in batch.observations] == ["req-2", "req-3", "req-4"]
    assert (batch.num_dropped, buffer.num_dropped) == (2, 2)
    assert buffer.take() is None
    buffer.observe(observation(9))
    assert buffer.take().num_dropped == 0


def test_a_batch_is_no_larger_than_a_control_plane_takes():
    """Each kind has its own bound; the rest waits for the next batch."""
    buffer = ObservationBuffer()
    for number in range(BATCH_OBSERVATIONS + 1):
        buffer.observe(observation(number))
    for _ in range(BATCH_OTHERS + 1):
        buffer.feedback(Feedback("r", "small", "a", 1, 0.5, 0.0))
    buffer.score(ShadowScore("small", 1, "a", "b", 1, 0.0, 0.0, 1.0))
    first, second = buffer.take(), buffer.take()
    assert (len(first.observations), len(first.scores), len(first.feedback)) == (BATCH_OBSERVATIONS, 1, BATCH_OTHERS)
    assert (len(second.observations), len(second.scores), len(second.feedback)) == (1, 0, 1)
    assert buffer.take() is None


def test_what_began_is_reported_before_it_ends_or_not_at_all():
    """All that wait go with the next batch; who finds no room is told so, and is counted at the end instead."""
    buffer = ObservationBuffer()
    told = [buffer.begin(Beginning("small", "a", number)) for number in range(BATCH_OBSERVATIONS + 1)]
    assert [*told[:1], *told[-2:]] == [True, True, False]
    assert len(buffer.take().begun) == BATCH_OBSERVATIONS
    assert buffer.begin(Beginning("small", "a", 1))
