"""The newest rollout of each model, running or ended, for whoever watches the mesh.

Follows the engine's looks, on leaders and followers alike. Knows nothing about metrics' names.
"""

from collections.abc import Iterable

from serin_control.errors import StoreDown
from serin_control.lanes import WEIGHT_SUM
from serin_control.rollout_gauges import RolloutFigures
from serin_control.rollouts.engine import Engine
from serin_control.rollouts.rollout import Hold, Rollout, State

NUM_READ = 100
"""Rollouts that are read to find the newest of each model."""


class NewestRollouts:
    """Shows rollouts as :class:`serin_control.rollout_gauges.ShownRollouts`. Keep :meth:`run` running."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._ended: dict[str, Rollout] = {}
        self._revision = -1

    def figures(self) -> Iterable[RolloutFigures]:
        """The newest rollout of each model that had one, as it is now."""
        newest = self._ended | dict(self._engine.book.rollouts)
        return [_figures(rollout) for _, rollout in sorted(newest.items())]

    async def run(self) -> None:
        """Follow until cancelled."""
        async for _ in self._engine.looks.watch():
            await self.follow()

    async def follow(self) -> None:
        """Read which rollouts have ended, if anything was written since. A store that is down shows the last."""
        revision = self._engine.book.revision
        if revision == self._revision:
            return
        try:
            page, _ = await self._engine.past("", NUM_READ)
        except StoreDown:
            return
        self._ended |= {rollout.model: rollout for rollout in reversed(page)}
        self._revision = revision


def _figures(rollout: Rollout) -> RolloutFigures:
    return RolloutFigures(
        model=rollout.model,
        state=str(rollout.state),
        weight_ratio=rollout.weight / WEIGHT_SUM,
        num_exposed_requests=rollout.num_requests,
        num_exposed_sessions=rollout.num_sessions,
        is_starved=_is_starved(rollout),
        verdicts={verdict.metric: verdict.verdict for verdict in rollout.verdicts},
    )


def _is_starved(rollout: Rollout) -> bool:
    """Whether it paused for want of samples, or will: half the step's time is over and few came."""
    if rollout.state is State.PAUSED:
        return rollout.hold is Hold.SAMPLES
    late = rollout.state is State.RUNNING and rollout.spent_s * 2 > rollout.current.max_s
    return late and rollout.num_step_requests < rollout.current.min_samples
