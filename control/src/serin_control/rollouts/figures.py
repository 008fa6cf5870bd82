"""What Prometheus is shown of rollouts: the newest of each model. Knows nothing about Prometheus."""

from collections.abc import Iterable

from serin_control.lanes import WEIGHT_SUM
from serin_control.rollout_gauges import RolloutFigures
from serin_control.rollouts.engine import Engine
from serin_control.rollouts.rollout import Hold, Rollout, State


class NewestRollouts:
    """:class:`serin_control.rollout_gauges.ShownRollouts` of an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def figures(self) -> Iterable[RolloutFigures]:
        """The newest rollout of each model that had one, as it is now."""
        return [_figures(rollout) for _, rollout in sorted(self._engine.newest.items())]


def _figures(rollout: Rollout) -> RolloutFigures:
    late = rollout.state is State.RUNNING and rollout.spent_s * 2 > rollout.current.max_s
    starves = rollout.hold is Hold.SAMPLES or (late and rollout.num_step_requests < rollout.current.min_samples)
    return RolloutFigures(
        rollout.model,
        str(rollout.state),
        rollout.weight / WEIGHT_SUM,
        rollout.num_requests,
        rollout.num_sessions,
        starves,
        {verdict.metric: verdict.verdict for verdict in rollout.verdicts},
    )
