"""A canary that was taken back while the store was away: it counts at once, and is written as soon as it can be.

A withdrawal holds what the abort will write, word for word. Whoever knows of one lets traffic be what it will be then,
so that writing it moves nothing. Pure.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from serin_control.plan import Share
from serin_control.rollouts.act import Act
from serin_control.rollouts.rollout import Rollout
from serin_control.rollouts.settling import after
from serin_control.rollouts.standing import Standing


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """An abort that is not in the history yet.

    Attributes:
        rollout: as it ends.
        act: its line for the history.
    """

    rollout: Rollout
    act: Act


def left_behind(
    withdrawals: Iterable[Withdrawal],
    rollouts: Mapping[str, Rollout],
    standings: Mapping[str, Standing],
    declared: Callable[[str], tuple[Share, ...]],
) -> tuple[dict[str, Rollout], dict[str, Standing]]:
    """Rollouts that still run, and standings, as they will be once everything that was withdrawn is written.

    ``declared`` gives the shares that the configuration declares of a model, or of a service that all models share.
    """
    running, standing_of = dict(rollouts), dict(standings)
    for one in withdrawals:
        ended, scope = one.rollout, one.rollout.spec.scope
        if ended.model not in running or running[ended.model].id != ended.id:
            continue  # it has ended in another way: what is written counts
        del running[ended.model]
        shares = declared(scope)
        standing = after(ended, standing_of.get(scope) or Standing(scope, shares), shares, one.act.at)
        if standing is not None:
            standing_of[scope] = standing
    return running, standing_of


def better_told(one: Mapping[str, Withdrawal], other: Mapping[str, Withdrawal]) -> dict[str, Withdrawal]:
    """Those of both, by rollout; where both took one back, the words of whoever had heard more of its canary."""
    both = {**other, **one}
    for name in one.keys() & other.keys():
        both[name] = max(one[name], other[name], key=lambda told: told.rollout.num_requests)
    return both


def among(withdrawals: Mapping[str, Withdrawal], rollouts: Mapping[str, Rollout]) -> dict[str, Withdrawal]:
    """Those of rollouts that run, by rollout."""
    running = {rollout.id for rollout in rollouts.values()}
    return {name: one for name, one in withdrawals.items() if name in running}
