"""Appoints real judges: what a rollout asks, as the judge's settings.

The judge's own modules are loaded when the first rollout needs them: a control plane without one pays nothing.
"""

from collections.abc import Mapping
from typing import Any

from serin_control.errors import JudgeUnreadable, RolloutInvalid
from serin_control.instance import Service
from serin_control.judge.metrics import METRICS
from serin_control.judge.need import Beside, Forecast
from serin_control.judge.settings import JudgeSettings, JudgeSettingsInvalid
from serin_control.lanes import WEIGHT_SUM
from serin_control.rollouts.arbiter import Arbiter
from serin_control.rollouts.rollout import Rollout
from serin_control.rollouts.spec import Spec, Step
from serin_control.rollouts.steering import CALIBRATION_RATE, shadow_rate

NO_LANE = ("-", "+")
"""Stand for lanes that are not known yet, where only the rest is checked."""


class JudgeCourt:
    """A :class:`serin_control.rollouts.arbiter.Court` of :class:`serin_control.judge.judge.Judge`."""

    @property
    def metrics(self) -> Mapping[str, float]:
        """Names of the metrics and their default tolerances."""
        return {name: metric.tolerance for name, metric in METRICS.items()}

    def check(self, spec: Spec) -> None:
        """Refuse what the judge cannot keep.

        Raises:
            RolloutInvalid: as the judge says it.
        """
        try:
            _settings(spec, NO_LANE, 0.0)
        except JudgeSettingsInvalid as error:
            raise RolloutInvalid(str(error)) from error

    def appoint(self, rollout: Rollout, kept: Mapping[str, Any] | None) -> Arbiter:
        """A judge that goes on from what was kept; one that begins anew counts on from what the rollout says.

        Raises:
            JudgeUnreadable: another version kept it in another shape.
        """
        from serin_control.judge.judge import Judge

        settings = _settings(rollout.spec, (rollout.stable_lane, rollout.canary_lane), rollout.started_at)
        if kept:
            try:
                return Judge.load(settings, dict(kept))
            except (KeyError, TypeError, ValueError, IndexError) as error:
                raise JudgeUnreadable(f"{type(error).__name__}: {error}") from error
        return Judge(settings, rollout.num_ended, rollout.num_sessions)

    def forecast(
        self, spec: Spec, step: Step, sessions_per_s: float, requests_per_session: float, num_golden: int
    ) -> Forecast | None:
        """What a step would need."""
        from serin_control.judge.forecast import forecast

        return forecast(
            _settings(spec, NO_LANE, 0.0),
            sessions_per_s,
            requests_per_session,
            step.weight / WEIGHT_SUM,
            step.max_s,
            beside=Beside(num_golden, shadow_rate(spec), CALIBRATION_RATE),
        )


def _settings(spec: Spec, lanes: tuple[str, str], started_at: float) -> JudgeSettings:
    stable, canary = lanes
    return JudgeSettings(
        stable_lane=stable,
        canary_lane=canary,
        intent=spec.intent,
        tolerances=spec.tolerances,
        error_rate=spec.error_rate,
        started_at=started_at,
        subject="cache" if spec.service is Service.CACHE else "lane",
    )
