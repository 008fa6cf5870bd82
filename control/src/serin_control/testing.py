"""For tests of rooms and of users: a court of rollouts (:mod:`.rollouts.arbiter`) whose judges say what they are told.

Knows nothing about statistics.
"""

from collections.abc import Mapping
from typing import Any

from serin_control.judge.need import Forecast
from serin_control.judge.observation import Beginning, Feedback, GoldenResult, Observation, ProcessMemory, ShadowScore
from serin_control.judge.verdict import Decision, MetricVerdict, Verdict
from serin_control.rollouts.arbiter import Arbiter
from serin_control.rollouts.rollout import Rollout
from serin_control.rollouts.spec import Spec, Step


class ScriptedArbiter:
    """An ``Arbiter`` that says ``verdict``, and counts what it is told of the canary.

    ``good`` names metrics that are good whatever the verdict on all of them is.
    """

    def __init__(self, canary_lane: str, verdict: Verdict = Verdict.WAIT, reason: str = "as told") -> None:
        self.verdict = verdict
        self.reason = reason
        self.quality_judged = True
        self.good: tuple[str, ...] = ()
        self.heard: list[Observation | ShadowScore | GoldenResult | Feedback | ProcessMemory] = []
        self.left_out: list[tuple[float, float]] = []
        self._canary_lane = canary_lane
        self._num_requests = 0
        self._num_running = 0
        self._sessions: set[int] = set()

    def begin(self, beginning: Beginning) -> None:
        """Count it if it is the canary's."""
        if beginning.lane == self._canary_lane:
            self._num_running += 1
            self._sessions.add(beginning.session)

    def observe(self, observation: Observation) -> None:
        """Count it if it is the canary's."""
        self.heard.append(observation)
        if observation.lane == self._canary_lane:
            self._num_requests += 1
            self._num_running -= observation.was_told_of
            self._sessions.add(observation.session)

    def leave_out(self, since: float, until: float) -> None:
        """Keep it."""
        self.left_out.append((since, until))

    def score(self, score: ShadowScore) -> None:
        """Keep it."""
        self.heard.append(score)

    def golden(self, result: GoldenResult) -> None:
        """Keep it."""
        self.heard.append(result)

    def feedback(self, feedback: Feedback) -> None:
        """Keep it."""
        self.heard.append(feedback)

    def memory(self, sample: ProcessMemory) -> None:
        """Keep it."""
        self.heard.append(sample)

    def decision(self) -> Decision:
        """What it was told to say."""
        said = Verdict.PROMOTE if "errors" in self.good else self.verdict
        errors = MetricVerdict("errors", said, 0.0, -0.01, 0.01, self._num_requests, 0.0, 0.0, 0.01)
        return Decision(
            self.verdict,
            self.reason,
            (errors,),
            self._num_requests + self._num_running,
            len(self._sessions),
            self.quality_judged,
            self._num_running,
        )

    def dump(self) -> Mapping[str, Any]:
        """What it has counted and says."""
        return {
            "requests": self._num_requests,
            "running": self._num_running,
            "sessions": sorted(self._sessions),
            "verdict": str(self.verdict),
            "reason": self.reason,
        }

    def load(self, kept: Mapping[str, Any]) -> None:
        """Go on from what another one counted."""
        self._num_requests, self._num_running = kept["requests"], kept["running"]
        self._sessions = set(kept["sessions"])
        self.verdict, self.reason = Verdict(kept["verdict"]), kept["reason"]


class ScriptedCourt:
    """A ``Court`` of scripted arbiters: the last one of each rollout is kept under its id."""

    metrics: Mapping[str, float] = {"errors": 0.01, "first_token": 0.1}

    def __init__(self) -> None:
        self.arbiters: dict[str, ScriptedArbiter] = {}
        self.told: Forecast | None = Forecast(400, 3_600.0, {"errors": 0.005})

    def check(self, spec: Spec) -> None:
        """Everything can be judged."""

    def appoint(self, rollout: Rollout, kept: Mapping[str, Any] | None) -> Arbiter:
        """One that goes on as the one before."""
        arbiter = ScriptedArbiter(rollout.canary_lane)
        if kept is not None:
            arbiter.load(kept)
        self.arbiters[rollout.id] = arbiter
        return arbiter

    def forecast(
        self, spec: Spec, step: Step, sessions_per_s: float, requests_per_session: float, num_golden: int
    ) -> Forecast | None:
        """What it was told."""
        return self.told
