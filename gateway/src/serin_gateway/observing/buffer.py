"""Holds what was observed until it is reported. Bounded: when it is full the oldest goes, and is counted.

Nothing here waits. Knows nothing about who reports it, or to whom.
"""

from collections import deque
from typing import TypeVar

from serin_gateway.observing.observation import Batch, Beginning, Feedback, Observation, ShadowScore

T = TypeVar("T")

MAX_OBSERVATIONS = 16_384
MAX_SCORES = 1024
MAX_FEEDBACK = 4096
BATCH_OBSERVATIONS = 4096
BATCH_OTHERS = 1024


class ObservationBuffer:
    """What waits to be reported.

    Args:
        max_observations: attempts that may wait.
    """

    def __init__(self, max_observations: int = MAX_OBSERVATIONS) -> None:
        self._begun: list[Beginning] = []
        self._observations: deque[Observation] = deque(maxlen=max_observations)
        self._scores: deque[ShadowScore] = deque(maxlen=MAX_SCORES)
        self._feedback: deque[Feedback] = deque(maxlen=MAX_FEEDBACK)
        self._num_dropped = 0
        self.num_dropped = 0
        """Observations that found no room, since the start."""

    def begin(self, beginning: Beginning) -> bool:
        """An attempt has begun; returns whether there was room. All that wait fit into one batch.

        So no end is ever reported before the beginning that it says was reported.
        """
        has_room = len(self._begun) < BATCH_OBSERVATIONS
        if has_room:
            self._begun.append(beginning)
        return has_room

    def observe(self, observation: Observation) -> None:
        """An attempt has ended."""
        if len(self._observations) == self._observations.maxlen:
            self._num_dropped += 1
            self.num_dropped += 1
        self._observations.append(observation)

    def score(self, score: ShadowScore) -> None:
        """A text was scored on two lanes."""
        self._scores.append(score)

    def feedback(self, feedback: Feedback) -> None:
        """A caller said what an answer was worth."""
        self._feedback.append(feedback)

    def take(self) -> Batch | None:
        """The oldest that waits, as much as one batch holds; None: nothing waits."""
        if not (self._begun or self._observations or self._scores or self._feedback or self._num_dropped):
            return None
        dropped, self._num_dropped = self._num_dropped, 0
        begun, self._begun = self._begun, []
        return Batch(
            begun,
            _first(self._observations, BATCH_OBSERVATIONS),
            _first(self._scores, BATCH_OTHERS),
            _first(self._feedback, BATCH_OTHERS),
            dropped,
        )


def _first(waiting: deque[T], count: int) -> list[T]:
    return [waiting.popleft() for _ in range(min(count, len(waiting)))]
