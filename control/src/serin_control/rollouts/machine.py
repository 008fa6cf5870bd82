"""What happens to a rollout: by time and verdicts, and by people.

Every function takes a rollout and gives the next one, with the line for the history if there is one. That line has its
actor in a column of its own, so its reason names nobody. Pure: no clock, no store, no judge. Taking back needs less
than going on: an abort is carried out also while it is paused or frozen.
"""

import math
from dataclasses import dataclass, field, replace

from serin_control.instance import LANE_SERVICES
from serin_control.judge.settings import Intent
from serin_control.judge.verdict import Decision, MetricVerdict, Verdict
from serin_control.lanes import WEIGHT_SUM, mismatch
from serin_control.rollouts import words
from serin_control.rollouts.presence import Presence
from serin_control.rollouts.rollout import Hold, Rollout, State
from serin_control.rollouts.sight import Sight
from serin_control.rollouts.spec import OnScarce

MAX_CRASHES = 3
"""Processes of a canary that was never ready may end so often before it counts as crashing at start."""

ABSENT_S = 30.0
"""So long nothing of a canary may be announced before it was ever ready."""

WIDEST = 1e12
"""End of an interval that is open there."""

SILENT_S = 0.5
"""So long a canary may be silent. Who lives and lost no more than its stream announces itself again within 0.2 s; who
was killed and is started again takes longer to be ready."""

FORESEE = 0.1
"""After this share of a step's time it is foreseen whether its samples will come."""


@dataclass(frozen=True, slots=True)
class Move:
    """A rollout after something happened.

    Attributes:
        what, reason: the line for the history; empty: nothing happened that belongs there.
        effective: False: nothing was done, and ``reason`` says why.
    """

    rollout: Rollout
    what: str = ""
    reason: str = ""
    effective: bool = True


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What else counts at one moment.

    Attributes:
        now: seconds since 1970.
        passed_s: seconds since the last look.
        frozen: why rollouts may not move on; empty: they may.
        presence: of the canary, from look to look.
    """

    now: float
    passed_s: float = 0.0
    frozen: str = ""
    presence: Presence = field(default_factory=Presence)


@dataclass(frozen=True, slots=True)
class _Missing:
    """What keeps a rollout where it is: its hold, in the words of now, and in those that stay true afterwards."""

    hold: Hold
    what: str
    was: str


def advance(rollout: Rollout, sight: Sight, decision: Decision | None, around: Circumstances) -> Move:
    """Let time pass and verdicts count. A decision of None: nothing was observed yet."""
    if rollout.ended:
        return Move(rollout)
    rollout = informed(rollout, sight, decision)
    fault = _fault(rollout, sight, decision, around)
    if fault:
        return take_back(rollout, fault, around.now, traffic=words.back_on_stable(rollout))
    if sight.stable_lane and sight.stable_lane != rollout.stable_lane:
        return judged_anew(replace(rollout, stable_lane=sight.stable_lane), words.other_files(rollout))
    # Whoever paused it did so while its canary lived: back from a crash it gets nothing before somebody resumes it. One
    # without weight has nothing to lose: its start is waited for.
    gone = _gone(sight, around) if rollout.weight and not rollout.is_laid_down else ""
    if gone:
        return _lost(rollout, words.lost(rollout, gone), around)
    if rollout.state is State.PAUSED:
        return Move(replace(rollout, next=words.resumable(rollout)))
    if around.frozen:
        return _waiting(rollout, Hold.FREEZE, f"frozen: {around.frozen}", around)
    rollout = replace(rollout, spent_s=rollout.spent_s + around.passed_s)
    return _in_step(rollout, sight, decision, around)


def pause(rollout: Rollout, why: str, now: float, by: str = "") -> Move:
    """Stay where it is, by a person."""
    if rollout.ended:
        return _without_effect(rollout)
    if rollout.state is State.PAUSED:
        return Move(rollout, reason=f"it is paused already: {words.paused_because(rollout)}", effective=False)
    move = _paused(rollout, Hold.PERSON, f"{by}: {why}" if by else why, Circumstances(now))
    return replace(move, reason=why)


def resume(rollout: Rollout, sight: Sight, why: str, now: float) -> Move:
    """Go on, or wait for what is missing; the step's time begins again."""
    if rollout.ended:
        return _without_effect(rollout)
    if rollout.state is not State.PAUSED:
        return Move(rollout, reason="it is not paused", effective=False)
    if rollout.weight and not rollout.is_laid_down and _gone(sight, Circumstances(now)):
        rollout = replace(rollout, weight=0)  # it went since the last look: its traffic is where it would be after one
    rollout = replace(informed(rollout, sight, None), spent_s=0.0)
    missing = _missing(rollout, sight)
    if missing is not None:
        return replace(_waiting(rollout, missing.hold, missing.what, Circumstances(now)), what="resume", reason=why)
    moving = replace(rollout, state=State.RUNNING, hold=Hold.NOTHING, changed_at=now, reason="resumed", next="")
    return Move(moving, "resume", why)


def judged_anew(rollout: Rollout, why: str) -> Move:
    """What was compared counts no more, for a reason; who met the new version does. The step's time begins again."""
    anew = replace(
        rollout,
        verdicts=(),
        quality_judged=False,
        spent_s=0.0,
        requests_before=rollout.num_ended,
        reason=words.judged(words.unjudged(rollout), why),
        anew=why,
    )
    return Move(anew, "rejudge", why)


def promote(rollout: Rollout, sight: Sight, why: str, now: float, by: str = "") -> Move:
    """Give the new version everything, by a person."""
    if rollout.ended:
        return _without_effect(rollout)
    if rollout.spec.is_experiment:
        return Move(rollout, reason="an experiment promotes nothing: start a rollout of it", effective=False)
    if _is_away(rollout, sight):
        return Move(rollout, reason=f"{rollout.spec.to_version} takes no calls: nothing to promote", effective=False)
    return replace(_promoted(rollout, words.by(by, why), now), reason=why)


def take_back(
    rollout: Rollout, why: str, now: float, by: str = "", *, traffic: str = "", is_counted: bool = True
) -> Move:
    """Give the old version everything back; ``by`` says who does, empty: nobody by hand.

    ``traffic`` says in a sentence where the traffic is then; empty: all of it on the old version. Not ``is_counted``:
    more may have met the new version than the rollout knows of.
    """
    if rollout.ended:
        return _without_effect(rollout)
    ended = replace(
        rollout,
        state=State.ABORTED,
        hold=Hold.NOTHING,
        weight=0,
        changed_at=now,
        reason=words.taken_back(
            rollout,
            words.by(by, why),
            traffic or f"All traffic is on {rollout.from_version}.",
            is_counted=is_counted or not rollout.was_able,
        ),
        next=words.another_try(rollout),
    )
    return Move(ended, "abort", why)


def informed(rollout: Rollout, sight: Sight, decision: Decision | None) -> Rollout:
    """The rollout with what is seen and judged now. A decision of None: as it was."""
    seen = sight.canary_files if sight.canary_lane == (rollout.canary_lane or sight.canary_lane) else {}
    rollout = replace(
        rollout,
        was_able=rollout.was_able or sight.able,
        was_given=rollout.was_given or rollout.weight > 0,
        canary_away=_is_away(rollout, sight),
        stable_away=not sight.stable_able,
        is_laid_down=rollout.is_laid_down and not sight.able,
        stable_lane=rollout.stable_lane or sight.stable_lane,
        canary_lane=rollout.canary_lane or sight.canary_lane,
        canary_files=rollout.canary_files or dict(seen),
    )
    if decision is None:
        return rollout
    return replace(
        rollout,
        num_requests=decision.num_exposed_requests,
        num_sessions=decision.num_exposed_sessions,
        num_running=decision.num_running,
        verdicts=tuple(_finite(metric) for metric in decision.metrics),
        quality_judged=decision.quality_judged,
    )


def _is_away(rollout: Rollout, sight: Sight) -> bool:
    """Whether the canary takes no calls.

    While it has a weight a moment's silence is borne: all are silent when a control plane has just started anew.
    """
    return not sight.able or (sight.silent and not rollout.weight)


def _finite(metric: MetricVerdict) -> MetricVerdict:
    """The verdict with an interval that JSON can hold; one that is open at an end is shown as very wide."""
    if math.isfinite(metric.low) and math.isfinite(metric.high) and math.isfinite(metric.difference):
        return metric
    low, difference, high = (
        0.0 if math.isnan(value) else max(-WIDEST, min(WIDEST, value))
        for value in (metric.low, metric.difference, metric.high)
    )
    return replace(metric, low=low, difference=difference, high=high)


def _fault(rollout: Rollout, sight: Sight, decision: Decision | None, around: Circumstances) -> str:
    """Why the new version must not go on; empty: it may."""
    to, presence = rollout.spec.to_version, around.presence
    if sight.is_mismatched:
        return mismatch(rollout.arms.canary)
    if rollout.spec.intent is Intent.SAME and sight.same_vocabulary is False:
        return f"{to} holds another vocabulary than {rollout.from_version}: with intent same nothing can be compared"
    if sight.canary_lane and sight.canary_lane != rollout.canary_lane:
        return f"{to} is announced with other files than when the rollout began"
    if not rollout.was_able and presence.num_crashes >= MAX_CRASHES:
        return f"{to} crashed {presence.num_crashes} times at its start"
    if not rollout.was_able and not sight.starts and presence.absent_s >= ABSENT_S:
        return f"{to} was gone before it was ever ready"
    # With nothing to go back to the verdict moves nobody; and who has all calls of a sudden is slower than it is.
    if decision is not None and decision.verdict is Verdict.ABORT and sight.stable_able:
        return decision.reason
    return ""


def _gone(sight: Sight, around: Circumstances) -> str:
    """What the new version does not do any more, though it did; empty: it answers, or the old one does no more either.

    What strikes both, such as the death of a tokenizer that they share, says nothing about the new one.
    """
    if not sight.stable_able:
        return ""
    if not sight.able:
        return "stopped taking calls"
    if around.presence.silent_s >= SILENT_S and not sight.stable_silent:
        return "fell silent (it crashed, hung or was cut off)"
    return ""


def _in_step(rollout: Rollout, sight: Sight, decision: Decision | None, around: Circumstances) -> Move:
    step = rollout.current
    missing = _missing(rollout, sight)
    if missing is not None:
        return _late(rollout, missing, around)
    if rollout.weight < step.weight:
        return _entered(rollout, around)
    if rollout.spec.is_experiment:
        return _running(rollout, "splits", around)
    verdict = decision.verdict if decision is not None else Verdict.WAIT
    if verdict is Verdict.PROMOTE and rollout.num_step_requests >= step.min_samples:
        return _passed(rollout, sight, decision.reason if decision else "", around)
    if decision is not None and _lacks_only_quality(rollout, decision):
        if rollout.spec.service not in LANE_SERVICES:  # it makes no answers of its own
            return _passed(rollout, sight, decision.reason, around)
        why = "quality: not judged; everything else is as good as it must be"
        return _waiting(rollout, Hold.PROMOTER, f"{why}: a person promotes", around)
    return _undecided(rollout, decision, around)


def _missing(rollout: Rollout, sight: Sight) -> _Missing | None:
    """What its step lacks, of a rollout that is informed; None: nothing but samples."""
    old, new = rollout.from_version, rollout.spec.to_version
    if rollout.stable_away and rollout.was_able:
        return _Missing(Hold.CAPACITY, words.without_stable(rollout), f"{old} took no calls")
    if rollout.canary_away:
        doing = sight.activity or ("it is silent" if sight.able else "nothing of it runs")
        return _Missing(Hold.START, f"{new} is not ready: {doing}", f"{new} was not ready: {doing}")
    if rollout.weight < rollout.current.weight:
        return _short(rollout, sight, rollout.current.weight)
    return None


def _short(rollout: Rollout, sight: Sight, weight: int) -> _Missing | None:
    """The capacity that a weight lacks; None: it suffices."""
    shortage = sight.shortage(weight, rollout.capacity)
    return _Missing(Hold.CAPACITY, shortage, shortage) if shortage else None


def _passed(rollout: Rollout, sight: Sight, why: str, around: Circumstances) -> Move:
    """The step's verdict is good: go on to the next one."""
    if not rollout.is_last_step:
        further = replace(
            rollout, step=rollout.step + 1, spent_s=0.0, hold=Hold.NOTHING, requests_before=rollout.num_ended
        )
        return _in_step(further, sight, None, around)
    if rollout.spec.manual:
        return _waiting(rollout, Hold.PROMOTER, f"good ({why}): a person promotes", around)
    missing = _short(rollout, sight, WEIGHT_SUM)
    if missing is not None:
        return _late(rollout, missing, around)
    return _promoted(rollout, why, around.now)


def _undecided(rollout: Rollout, decision: Decision | None, around: Circumstances) -> Move:
    step, why = rollout.current, decision.reason if decision is not None else "nothing observed yet"
    missing = step.min_samples - rollout.num_step_requests
    if missing > 0:
        why = f"{words.counted(missing, 'canary request')} missing of {step.min_samples:,}"
    policy = rollout.spec.on_scarce
    if policy is OnScarce.ASK and _will_be_scarce(rollout):
        return _paused(rollout, Hold.SAMPLES, f"data is scarce: {why}", around)
    if rollout.spent_s < step.max_s:
        return _running(rollout, why, around)
    late = f"not judged within {words.duration(step.max_s)}: {why}"
    if policy is OnScarce.ABORT:
        return take_back(rollout, late, around.now)  # what was there before takes calls, else it had waited for that
    return _paused(rollout, Hold.SAMPLES, late, around)


def _will_be_scarce(rollout: Rollout) -> bool:
    """Whether the fewest samples will not come within the step's time, at the rate so far."""
    step = rollout.current
    share = rollout.spent_s / step.max_s
    return share >= FORESEE and rollout.num_step_requests < step.min_samples * min(1.0, share)


def _lacks_only_quality(rollout: Rollout, decision: Decision) -> bool:
    known = [metric for metric in decision.metrics if metric.num_samples]
    return (
        not decision.quality_judged
        and rollout.num_step_requests >= rollout.current.min_samples
        and bool(known)
        and all(metric.verdict is Verdict.PROMOTE for metric in known)
    )


def _entered(rollout: Rollout, around: Circumstances) -> Move:
    """The step's weight is given to the canary: for the first time, or again after it was gone."""
    step, is_back = rollout.current, not rollout.weight
    entered = replace(
        rollout,
        state=State.RUNNING,
        hold=Hold.NOTHING,
        weight=step.weight,
        spent_s=0.0,
        requests_before=rollout.requests_before if is_back else rollout.num_ended,
        changed_at=around.now,
        reason=f"{step.percent} of new sessions",
    )
    return Move(replace(entered, next=words.ahead(entered)), "step", f"step {rollout.step + 1}: {step.percent}")


def _late(rollout: Rollout, missing: _Missing, around: Circumstances) -> Move:
    """Something is missing: wait for it as long as the step may take, then pause."""
    if rollout.spent_s >= rollout.current.max_s:
        return _paused(rollout, missing.hold, f"{missing.was} after {words.duration(rollout.spent_s)}", around)
    return _waiting(rollout, missing.hold, missing.what, around)


def _running(rollout: Rollout, why: str, around: Circumstances) -> Move:
    return Move(_standing(rollout, State.RUNNING, Hold.NOTHING, why, words.ahead(rollout), around))


def _waiting(rollout: Rollout, hold: Hold, why: str, around: Circumstances) -> Move:
    after = {
        Hold.PROMOTER: words.promotable(rollout),
        Hold.FREEZE: "`serin freeze --off`",
    }.get(hold, f"{rollout.current.percent} as soon as it is there")
    return Move(_standing(rollout, State.WAITING, hold, f"waiting: {why}", after, around))


def _paused(rollout: Rollout, hold: Hold, why: str, around: Circumstances) -> Move:
    after = words.resumable(replace(rollout, hold=hold))
    paused = _standing(rollout, State.PAUSED, hold, f"paused: {why}", after, around)
    return Move(paused, "pause", why)


def _lost(rollout: Rollout, why: str, around: Circumstances) -> Move:
    """The canary is gone and loses its weight. Why somebody had paused the rollout before is still said."""
    said = why
    if rollout.state is State.PAUSED:
        said = f"{words.paused_because(rollout)}; {why}"
    away = replace(rollout, weight=0, canary_away=True)
    return replace(_paused(away, Hold.CANARY, said, around), reason=why)


def _promoted(rollout: Rollout, why: str, now: float) -> Move:
    done = replace(
        rollout,
        state=State.PROMOTED,
        hold=Hold.NOTHING,
        step=len(rollout.spec.steps) - 1,
        weight=WEIGHT_SUM,
        changed_at=now,
        reason=words.promoted(rollout, why),
        next=words.way_back(rollout),
    )
    return Move(done, "promote", why)


def _standing(rollout: Rollout, state: State, hold: Hold, why: str, after: str, around: Circumstances) -> Rollout:
    changed_at = rollout.changed_at if (rollout.state, rollout.hold) == (state, hold) else around.now
    reason = words.judged(why, rollout.anew)
    return replace(rollout, state=state, hold=hold, reason=reason, next=after, changed_at=changed_at)


def _without_effect(rollout: Rollout) -> Move:
    return Move(rollout, reason=f"it has ended: {rollout.reason}", effective=False)
