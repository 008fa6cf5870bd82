"""What the end of a rollout leaves behind for its model's traffic. Pure."""

from dataclasses import replace

from serin_control.lanes import WEIGHT_SUM
from serin_control.plan import Share
from serin_control.rollouts.rollout import Rollout, State
from serin_control.rollouts.standing import Standing


def after(rollout: Rollout, standing: Standing, declared: tuple[Share, ...], now: float) -> Standing | None:
    """The standing of a rollout's model after it; None: it goes on, and nothing changes."""
    if rollout.state is State.PROMOTED:
        everything = (Share(rollout.arms.canary, WEIGHT_SUM),)
        moved = replace(standing, declared=declared).moved_to(everything, rollout.arms.stable, now)
        return _without_baseline(rollout, moved, now)
    if rollout.state is State.ABORTED:
        if rollout.was_able:
            standing = standing.taken_back(rollout.arms.canary, now)
        held = standing.shares or declared
        if not rollout.spec.moves_lanes or held != rollout.arms.stable or standing.declared != declared:
            # Nothing else says who has its calls; or somebody declared other shares meanwhile, perhaps to the canary.
            standing = replace(standing, shares=rollout.arms.stable, declared=declared)
        return _without_baseline(rollout, standing, now)
    return None


def _without_baseline(rollout: Rollout, standing: Standing, now: float) -> Standing:
    return standing.taken_back(rollout.arms.baseline, now) if rollout.arms.baseline is not None else standing
