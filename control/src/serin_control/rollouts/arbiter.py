"""What rollouts need of a judge.

Knows nothing about statistics.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from serin_control.judge.need import Forecast
from serin_control.judge.observation import Beginning, Feedback, GoldenResult, Observation, ProcessMemory, ShadowScore
from serin_control.judge.verdict import Decision
from serin_control.rollouts.rollout import Rollout
from serin_control.rollouts.spec import Spec, Step


class Arbiter(Protocol):
    """Judges one rollout. Observations of other lanes than its two are passed over."""

    def begin(self, beginning: Beginning) -> None:
        """One attempt of a request has begun: who asked meets the lane, however long the answer takes."""

    def observe(self, observation: Observation) -> None:
        """One attempt of a request has ended."""

    def leave_out(self, since: float, until: float) -> None:
        """In this time, seconds since 1970, the stable lane could take no calls: what ran then counts for nobody."""

    def score(self, score: ShadowScore) -> None:
        """One text was scored on two lanes."""

    def golden(self, result: GoldenResult) -> None:
        """One golden question was asked on both lanes."""

    def feedback(self, feedback: Feedback) -> None:
        """A caller said what an answer was worth."""

    def memory(self, sample: ProcessMemory) -> None:
        """A worker process said how much memory it holds."""

    def decision(self) -> Decision:
        """What is known by now."""

    def dump(self) -> Mapping[str, Any]:
        """What it knows, as JSON can hold it."""


class Court(Protocol):
    """Appoints arbiters."""

    @property
    def metrics(self) -> Mapping[str, float]:
        """Names of the metrics and their default tolerances."""

    def check(self, spec: Spec) -> None:
        """Refuse what it cannot judge, with :class:`serin_control.errors.RolloutInvalid`."""

    def appoint(self, rollout: Rollout, kept: Mapping[str, Any] | None) -> Arbiter:
        """An arbiter of a rollout whose lanes are known, going on from what was kept of one before.

        Raises :class:`serin_control.errors.JudgeUnreadable` where it cannot; without anything kept it begins anew.
        """

    def forecast(
        self, spec: Spec, step: Step, sessions_per_s: float, requests_per_session: float, num_golden: int
    ) -> Forecast | None:
        """What a step would need at a rate of new sessions and with so many golden questions; None: nobody can tell."""
