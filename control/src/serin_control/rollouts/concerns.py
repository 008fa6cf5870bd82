"""What of rollouts a person has to know, as alarms. Knows nothing about who looks or when."""

from collections.abc import Iterable, Iterator, Mapping

from serin_control.rollouts import words
from serin_control.rollouts.rollout import Hold, Rollout, State

Concern = tuple[str, str]
"""Name of an alarm, and what it says."""


def of_unwritten(rollouts: Iterable[Rollout]) -> Iterator[Concern]:
    """Rollouts that were taken back here and of which the store does not know it."""
    for rollout in rollouts:
        yield (
            f"{rollout.model}/unwritten",
            f"{_who(rollout)}: taken back by this control plane, and state Redis, which does not answer, does not know "
            "it yet: let this process run until it is back",
        )


def of_running(rollouts: Iterable[Rollout], faults: Mapping[str, str]) -> Iterator[Concern]:
    """Rollouts that wait for somebody.

    Args:
        rollouts: that run.
        faults: what judges failed with, by model.
    """
    for rollout in rollouts:
        if rollout.state is State.PAUSED and rollout.hold is not Hold.PERSON:
            yield f"{rollout.model}/paused", f"{_who(rollout)}: {rollout.reason}; next: {rollout.next}"
        if rollout.anew:
            yield f"{rollout.model}/rejudged", f"{_who(rollout)}: {rollout.anew}; who saw it is counted on"
        if fault := faults.get(rollout.model):
            yield (
                f"{rollout.model}/judge",
                f"{_who(rollout)}: its judge failed, nothing is judged: abort or promote it ({fault})",
            )


def of_missing_stables(rollouts: Iterable[Rollout]) -> Iterator[Concern]:
    """Rollouts, informed of what is there now, with nothing to go back to, whatever they wait for themselves."""
    for rollout in rollouts:
        if rollout.stable_away and not rollout.is_laid_down:
            what = f"{words.without_stable(rollout)}, and nothing can be gone back to"
            yield f"{rollout.model}/stable", f"{_who(rollout)}: {what}: `serin status`"


def of_unheard(rollouts: Iterable[Rollout]) -> Iterator[Concern]:
    """Rollouts that stand still because nobody of them speaks to this control plane, which leads."""
    for rollout in rollouts:
        versions = f"{rollout.from_version} or {rollout.spec.to_version}"
        yield (
            f"{rollout.model}/unheard",
            f"{_who(rollout)}: stands still: this control plane leads and has heard nobody of {versions} since it "
            "started: if they run, name it in --control of every service, or stop it so that another one leads",
        )


def _who(rollout: Rollout) -> str:
    return f"rollout {rollout.id} of {rollout.model}"
