"""The arbiters of all running rollouts, and what they hear: the :class:`serin_control.rollouts.intake.Intake`.

Knows nothing about steps, stores or who leads: whoever leads calls arbiters up and dismisses them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from serin_control.judge.observation import Feedback, GoldenResult, Observation, ProcessMemory, ShadowScore
from serin_control.judge.verdict import Decision
from serin_control.rollouts.arbiter import Arbiter, Court
from serin_control.rollouts.intake import RunningTrial
from serin_control.rollouts.meter import Meter
from serin_control.rollouts.rollout import Rollout


@dataclass(slots=True)
class _Seat:
    rollout: Rollout
    arbiter: Arbiter
    golden: str
    num_heard: int = 0
    num_kept: int = 0


class Bench:
    """Arbiters by model."""

    def __init__(self, court: Court, clock: Callable[[], float]) -> None:
        self.meter = Meter(clock)
        self._court = court
        self._seats: dict[str, _Seat] = {}

    def has(self, rollout: Rollout) -> bool:
        """Whether a rollout has its arbiter."""
        seat = self._seats.get(rollout.model)
        return seat is not None and seat.rollout.id == rollout.id

    def call_up(self, rollout: Rollout, kept: Mapping[str, Any] | None, golden: str) -> None:
        """Have a rollout judged from now on, going on from what was kept."""
        self._seats[rollout.model] = _Seat(rollout, self._court.appoint(rollout, kept), golden)

    def dismiss(self, models: Sequence[str]) -> None:
        """These are judged no more."""
        for model in models:
            self._seats.pop(model, None)

    @property
    def models(self) -> list[str]:
        """Models that are judged."""
        return list(self._seats)

    def decision(self, rollout: Rollout) -> Decision | None:
        """What is known of a rollout; None: it has no arbiter, or one that has heard nothing."""
        return self._seats[rollout.model].arbiter.decision() if self.has(rollout) else None

    def news(self, model: str) -> Mapping[str, Any] | None:
        """What an arbiter knows, if it has heard something since this was asked last."""
        seat = self._seats.get(model)
        if seat is None or seat.num_heard == seat.num_kept:
            return None
        seat.num_kept = seat.num_heard
        return seat.arbiter.dump()

    def running(self) -> Sequence[RunningTrial]:
        """Comparisons that run, by model."""
        return [
            RunningTrial(seat.rollout.id, model, seat.rollout.stable_lane, seat.rollout.canary_lane, seat.golden)
            for model, seat in sorted(self._seats.items())
        ]

    def observe(self, model: str, observation: Observation) -> None:
        """One attempt of a request has ended."""
        self.meter.note(model, observation.session)
        if arbiter := self._arbiter(model):
            arbiter.observe(observation)

    def score(self, model: str, score: ShadowScore) -> None:
        """One text was scored on two lanes."""
        if arbiter := self._arbiter(model):
            arbiter.score(score)

    def golden(self, model: str, result: GoldenResult) -> None:
        """One golden question was asked on both lanes."""
        if arbiter := self._arbiter(model):
            arbiter.golden(result)

    def feedback(self, model: str, feedback: Feedback) -> None:
        """A caller said what an answer was worth."""
        if arbiter := self._arbiter(model):
            arbiter.feedback(feedback)

    def memory(self, model: str, sample: ProcessMemory) -> None:
        """A worker process said how much memory it holds."""
        if arbiter := self._arbiter(model):
            arbiter.memory(sample)

    def _arbiter(self, model: str) -> Arbiter | None:
        seat = self._seats.get(model)
        if seat is None:
            return None
        seat.num_heard += 1
        return seat.arbiter
