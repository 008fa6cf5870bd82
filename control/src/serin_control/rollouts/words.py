"""What is said of a rollout, in sentences for people. Pure; decides nothing."""

from serin_control.lanes import WEIGHT_SUM
from serin_control.rollouts.rollout import Hold, Rollout
from serin_control.rollouts.spec import DAY_S, percent


def duration(seconds: float) -> str:
    """Seconds for people: ``90 s``, ``12 min``, ``3.5 h``, ``2 days``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3_600:
        return f"{seconds / 60:.0f} min"
    if seconds <= DAY_S:
        return f"{seconds / 3_600:.3g} h"
    return f"{seconds / DAY_S:.3g} days"


def counted(number: int, noun: str) -> str:
    """A number and its noun: ``1 session``, ``38 sessions``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def exposure(rollout: Rollout, *, is_counted: bool = True) -> str:
    """Who met the new version so far; not counted: by whom that was written last, there may be more."""
    seen = f"{counted(rollout.num_sessions, 'session')} saw it in {counted(rollout.num_requests, 'request')}"
    seen += f", {rollout.num_running:,} of which had not ended." if rollout.num_running else "."
    if not is_counted:
        return f"At least {seen}" if rollout.num_requests else "Whether anybody saw it is not known."
    if rollout.num_requests:
        return seen
    return "Nobody is known to have seen it." if rollout.weight else "Nobody saw it."


def by(actor: str, why: str) -> str:
    """A reason and who gave it; an empty actor: nobody did by hand."""
    return f"by {actor}: {why}" if actor else why


def taken_back(rollout: Rollout, why: str, traffic: str, *, is_counted: bool = True) -> str:
    """Why everything is on the old version again; ``traffic`` says whether it is."""
    verb = "Stopped" if rollout.spec.is_experiment else "Aborted"
    seen = exposure(rollout, is_counted=is_counted)
    return f"{verb} at {percent(rollout.weight)}: {why}. {seen} {traffic}"


def unwritten(rollout: Rollout) -> str:
    """Why a rollout was taken back, while only the control plane that did it knows that."""
    here = rollout.reason.removesuffix(".")
    return f"{here} for whoever listens to this control plane; others hear of it when state Redis answers."


def unheard(rollout: Rollout) -> str:
    """Why it is where it is, told by a control plane that does not hear the store."""
    return f"{rollout.reason.removesuffix('.')}; state Redis does not answer: this is what this control plane knows"


def for_the_next(rollout: Rollout) -> str:
    """Where the traffic goes when no control plane is there to tell anybody; true before and after one is."""
    then = f"all traffic is on {rollout.from_version} then"
    return f"Gateways are told by the first control plane that starts after this: {then}."


def back_on_stable(rollout: Rollout) -> str:
    """Where the traffic is once the canary has lost its share: with whoever takes calls."""
    if not rollout.stable_away:
        return f"All traffic is on {rollout.from_version}."
    return f"{without_stable(rollout)} until {rollout.from_version} is back."


def traffic(rollout: Rollout) -> str:
    """Who has the new sessions where the weight does not say it, because a version takes no calls; empty: it does."""
    if rollout.ended:
        return ""
    if rollout.stable_away:
        return without_stable(rollout)
    if rollout.weight and rollout.canary_away:
        return f"{rollout.spec.to_version} takes no calls: {rollout.from_version} has all of them"
    return ""


def without_stable(rollout: Rollout) -> str:
    """Who answers while the old version takes no calls."""
    old, new = rollout.from_version, rollout.spec.to_version
    if rollout.was_given and not rollout.canary_away:
        return f"{old} takes no calls: {new} has all of them"
    return f"{old} takes no calls: nobody answers {rollout.model}"


def lost(rollout: Rollout, what: str) -> str:
    """That the canary lost its traffic, and for what. Of then, not of now: it stands for as long as it is paused."""
    return f"{rollout.spec.to_version} {what}: its traffic went back to {rollout.from_version}"


def promoted(rollout: Rollout, why: str) -> str:
    """Why everything is on the new version."""
    return f"Promoted: {why}. {exposure(rollout)} All traffic is on {rollout.spec.to_version}."


def way_back(rollout: Rollout) -> str:
    """What can be done after a promotion."""
    return (
        f"{rollout.from_version} is kept a day at 1 of {WEIGHT_SUM:,}; "
        f"`serin rollback --model {rollout.model}` returns everything to it"
    )


def another_try(rollout: Rollout) -> str:
    """What can be done after an abort."""
    if rollout.spec.is_experiment:
        return (
            f"running answers of {rollout.spec.to_version} end where they are; `serin experiment get {rollout.id}` "
            "shows the outcome"
        )
    return (
        f"running answers of {rollout.spec.to_version} end where they are; mend it, give it a version of its own, "
        "and start a rollout of that"
    )


def judged(why: str, anew: str) -> str:
    """Why it is where it is, and since what verdicts count where that is not its start."""
    return f"{why}; {anew}" if anew else why


def unjudged(rollout: Rollout) -> str:
    """Why it is where it is, without since what verdicts count."""
    return rollout.reason.removesuffix(judged("", rollout.anew))


def paused_because(rollout: Rollout) -> str:
    """Why a rollout that is paused is."""
    return unjudged(rollout).removeprefix("paused: ")


def other_files(rollout: Rollout) -> str:
    """Why what was compared with the old version counts no more."""
    return f"compared anew: {rollout.from_version} is announced with other files than before"


def unreadable(fault: str) -> str:
    """Why what a judge of another version has kept counts no more."""
    return f"compared anew: what was kept of its judge cannot be read here ({fault})"


def ahead(rollout: Rollout) -> str:
    """What comes after the step it is in."""
    step = rollout.current
    missing = max(0, step.min_samples - rollout.num_step_requests)
    samples = f"{counted(missing, 'more canary request')} and a verdict" if missing else "a verdict"
    limit = f"pauses after {duration(max(0.0, step.max_s - rollout.spent_s))} more without"
    if rollout.spec.is_experiment:
        return f"ends when somebody says `serin experiment stop {rollout.id}`"
    if rollout.is_last_step and rollout.spec.manual:
        return f"a person promotes after {samples}: `serin rollout promote {rollout.id}`"
    then = "all traffic" if rollout.is_last_step else rollout.spec.steps[rollout.step + 1].percent
    return f"{then} after {samples}; {limit}"


def resumable(rollout: Rollout) -> str:
    """What can be done with a paused rollout."""
    to = rollout.spec.to_version
    if rollout.canary_away:
        return f"`serin rollout resume {rollout.id}`, which waits until {to} takes calls, or `… abort {rollout.id}`"
    back = f"{to} takes calls again: " if rollout.hold is Hold.CANARY else ""
    return f"{back}`serin rollout resume {rollout.id}`, `… promote {rollout.id}` or `… abort {rollout.id}`"


def promotable(rollout: Rollout) -> str:
    """What can be done with one that waits for a person who promotes."""
    return f"`serin rollout promote {rollout.id}` or `… abort {rollout.id}`"
