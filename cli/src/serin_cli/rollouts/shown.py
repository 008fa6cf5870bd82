"""A rollout for people and for programs: JSON, a table of its arms, sentences.

Knows nothing about where it comes from.
"""

import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from serin.control.v1 import registry_pb2, rollout_pb2
from serin_control.judge.settings import WARM_UP_S
from serin_control.rollouts.words import counted

from serin_cli.terminal import Shown, Table, stacked, styled, table

STATES = {
    rollout_pb2.ROLLOUT_STATE_RUNNING: "running",
    rollout_pb2.ROLLOUT_STATE_WAITING: "waiting",
    rollout_pb2.ROLLOUT_STATE_PAUSED: "paused",
    rollout_pb2.ROLLOUT_STATE_PROMOTED: "promoted",
    rollout_pb2.ROLLOUT_STATE_ABORTED: "aborted",
}
ENDED = ("promoted", "aborted")
_VERDICTS = {
    rollout_pb2.VERDICT_WAIT: "wait",
    rollout_pb2.VERDICT_PROMOTE: "promote",
    rollout_pb2.VERDICT_ABORT: "abort",
}
_INTENTS = {
    rollout_pb2.ROLLOUT_INTENT_SAME: "same",
    rollout_pb2.ROLLOUT_INTENT_BETTER: "better",
    rollout_pb2.ROLLOUT_INTENT_EXPERIMENT: "experiment",
}
_SERVICES = {
    registry_pb2.SERVICE_KIND_GATEWAY: "gateway",
    registry_pb2.SERVICE_KIND_TOKENIZER: "tokenizer",
    registry_pb2.SERVICE_KIND_WORKER: "worker",
    registry_pb2.SERVICE_KIND_CACHE: "cache",
    registry_pb2.SERVICE_KIND_CONTROL: "control",
}
_STYLES = {"running": "green", "waiting": "yellow", "paused": "red", "promoted": "green", "aborted": "red"}
_VERDICT_STYLES = {"wait": "yellow", "promote": "green", "abort": "red"}
_WIDEST = 1e11  # an end of an interval beyond this is open


def state_of(rollout: rollout_pb2.Rollout) -> str:
    """Its state in a word."""
    return STATES.get(rollout.state, "unknown")


def services_of(rollout: rollout_pb2.Rollout) -> str:
    """The services that move: ``worker+tokenizer``."""
    return "+".join(_SERVICES.get(kind, "?") for kind in (rollout.service, *rollout.also))


def intent_of(rollout: rollout_pb2.Rollout) -> str:
    """Its intent in a word."""
    return _INTENTS.get(rollout.intent, "unknown")


def document(rollout: rollout_pb2.Rollout) -> dict[str, Any]:
    """A rollout as `--json` prints it."""
    return {
        "id": rollout.rollout_id,
        "model": rollout.model,
        "service": _SERVICES.get(rollout.service, "unknown"),
        "also": [_SERVICES.get(kind, "unknown") for kind in rollout.also],
        "from": rollout.from_version,
        "to": rollout.to_version,
        "intent": intent_of(rollout),
        "state": state_of(rollout),
        "step": rollout.step_index,
        "steps": [
            {
                "weight": round(step.weight_percent, 4),
                "min_samples": step.min_sample_count,
                "max_seconds": step.max_seconds,
            }
            for step in rollout.steps
        ],
        "weight": round(rollout.weight_percent, 4),
        "traffic": rollout.traffic,
        "exposure": {"sessions": rollout.exposed_session_count, "requests": rollout.exposed_request_count},
        "verdicts": [_verdict_document(verdict) for verdict in rollout.verdicts],
        "reason": rollout.reason,
        "next": rollout.next,
        "manual": rollout.manual,
        "started_at": when(rollout.started_at),
        "started_by": rollout.started_by,
        "changed_at": when(rollout.changed_at),
        "stable_lane": rollout.stable_lane,
        "canary_lane": rollout.canary_lane,
    }


def act_document(act: rollout_pb2.Act) -> dict[str, Any]:
    """A line of the history as `--json` prints it."""
    return {
        "at": when(act.at),
        "rollout": act.rollout_id,
        "what": act.what,
        "actor": act.actor,
        "identity": act.identity,
        "reason": act.reason,
        "term": act.term,
    }


def when(stamp: Timestamp) -> str:
    """A moment as ISO 8601 in UTC, to the second."""
    return datetime.fromtimestamp(stamp.seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def picture(rollout: rollout_pb2.Rollout) -> Shown:
    """Everything at a glance: where it stands, the arms side by side, what comes next."""
    state = state_of(rollout)
    steps = [f"{step.weight_percent:.4g} %" for step in rollout.steps]
    if state not in ENDED and rollout.step_index < len(steps):
        steps[rollout.step_index] = f"[{steps[rollout.step_index]}]"
    age = time.time() - rollout.started_at.seconds
    move = f"{services_of(rollout)} {rollout.from_version} -> {rollout.to_version}"
    head = styled(
        f"{rollout.rollout_id}  {rollout.model} {move}  ",
        (state, _STYLES.get(state, "")),
        f"  at {rollout.weight_percent:.4g} %  steps {' '.join(steps)}  intent {intent_of(rollout)}  for {_age(age)}",
    )
    exposure = f"exposed: {rollout.exposed_session_count:,} sessions, {rollout.exposed_request_count:,} requests"
    parts: list[Shown] = [head, exposure]
    if rollout.verdicts:
        parts.append(arms(rollout))
    if _tells_more(rollout):
        parts.append(f"now:  {rollout.traffic}")
    parts.append(f"why:  {rollout.reason}")
    if rollout.next:
        parts.append(f"next: {rollout.next}")
    return stacked(*parts)


def arms(rollout: rollout_pb2.Rollout) -> Table:
    """The arms side by side, a row for each metric."""
    versions = (rollout.from_version, rollout.to_version)
    rows = table("metric", *versions, "difference", "tolerated", "samples", "verdict", "")
    for one in rollout.verdicts:
        verdict = _VERDICTS.get(one.verdict, "wait")
        rows.add_row(
            one.metric,
            value(one.stable_value, one.unit),
            value(one.canary_value, one.unit),
            interval(one),
            value(one.tolerance, "points" if one.unit == "share" else one.unit),
            f"{one.sample_count:,}",
            styled((verdict, _VERDICT_STYLES[verdict])),
            one.note,
        )
    return rows


def why(rollout: rollout_pb2.Rollout) -> str:
    """Why it is in its state, without the state's name before it."""
    return rollout.reason.removeprefix(f"{state_of(rollout)}: ")


def plain_line(rollout: rollout_pb2.Rollout) -> str:
    """A rollout as one line, for logs and pipes."""
    seen = f"{rollout.exposed_session_count} sessions, {rollout.exposed_request_count} requests"
    return f"{rollout.rollout_id} {state_of(rollout)} {rollout.weight_percent:.4g} % ({seen}): {why(rollout)}" + (
        f"; {rollout.traffic}" if _tells_more(rollout) else ""
    )


def explanation(rollout: rollout_pb2.Rollout, now: float) -> Iterable[str]:
    """What happened, in sentences; of one that has not ended, where it stands. ``now``: seconds since 1970."""
    if state_of(rollout) in ENDED:
        yield rollout.reason
    else:
        yield from _course(rollout, now)
    for one in rollout.verdicts:
        if one.note or one.sample_count:
            verdict = {"promote": "good", "abort": "worse than tolerated"}.get(_VERDICTS.get(one.verdict, ""), "open")
            known = [interval(one)] if one.sample_count else []
            yield f"  {one.metric}: {verdict}: {'; '.join(filter(None, [*known, one.note]))}"
    if rollout.next:
        yield f"Next: {rollout.next}."


def _course(rollout: rollout_pb2.Rollout, now: float) -> Iterable[str]:
    """Where one stands that has not ended: its state, step and traffic, who met it, what it waits for."""
    old, new = rollout.from_version, rollout.to_version
    age_s = now - rollout.started_at.seconds
    yield (
        f"{rollout.rollout_id} ({rollout.model}, {services_of(rollout)} {old} -> {new}, intent {intent_of(rollout)}) "
        f"is {state_of(rollout)}, started {_age(age_s)} ago by {rollout.started_by or 'nobody known'}."
    )
    yield (
        f"Step {rollout.step_index + 1} of {len(rollout.steps)}: {_where(rollout)}; "
        f"{counted(rollout.exposed_session_count, 'session')} saw {new} in "
        f"{counted(rollout.exposed_request_count, 'request')}."
    )
    yield f"Why: {why(rollout).removesuffix('.')}."
    left_s = WARM_UP_S - age_s
    if left_s > 0:
        yield f"Warm-up: requests that begin in the next {left_s:.0f} s are served and not judged."


def _where(rollout: rollout_pb2.Rollout) -> str:
    """Where new sessions go: by weight, unless a version takes no calls."""
    old, new = rollout.from_version, rollout.to_version
    if rollout.traffic:
        return rollout.traffic
    if rollout.weight_percent:
        return f"{rollout.weight_percent:.4g} % of new sessions go to {new}, the others to {old}"
    return f"no new session goes to {new}, all go to {old}"


def _tells_more(rollout: rollout_pb2.Rollout) -> bool:
    """Whether who has the traffic is not in its reason already."""
    return bool(rollout.traffic) and rollout.traffic not in rollout.reason


def value(number: float, unit: str) -> str:
    """A value in its unit."""
    match unit:
        case "share":
            return f"{number * 100:.3g} %"
        case "points":
            return f"{number * 100:.3g} points"
        case "s":
            return f"{number * 1000:.3g} ms" if abs(number) < 1 else f"{number:.3g} s"
        case "ratio":
            return f"{number:.3g}"
        case "bytes":
            return f"{number / 2**20:.3g} MiB"
    return f"{number:.3g} {unit}".rstrip()


def interval(verdict: rollout_pb2.MetricVerdict) -> str:
    """A difference with its interval: ``+2.2 (+1.4..+3.1) points``."""
    if not verdict.sample_count:
        return "-"
    scale, unit = {"share": (100.0, " points"), "ratio": (100.0, " %"), "bytes": (1 / 2**20, " MiB")}.get(
        verdict.unit, (1.0, f" {verdict.unit}")
    )
    low, high = (
        f"{end * scale:+.3g}" if _is_known(end) else ("-inf" if end < 0 else "+inf")
        for end in (verdict.low, verdict.high)
    )
    return f"{verdict.difference * scale:+.3g} ({low}..{high}){unit}"


def _is_known(end: float) -> bool:
    """Whether an interval ends there; else it is open."""
    return abs(end) < _WIDEST


def _verdict_document(one: rollout_pb2.MetricVerdict) -> dict[str, Any]:
    """A verdict as `--json` prints it; null: not known."""
    return {
        "metric": one.metric,
        "verdict": _VERDICTS.get(one.verdict, "wait"),
        "difference": one.difference if one.sample_count else None,
        "low": one.low if one.sample_count and _is_known(one.low) else None,
        "high": one.high if one.sample_count and _is_known(one.high) else None,
        "samples": one.sample_count,
        "stable": one.stable_value if one.sample_count else None,
        "canary": one.canary_value if one.sample_count else None,
        "tolerance": one.tolerance,
        "unit": one.unit,
        "note": one.note,
    }


def _age(seconds: float) -> str:
    minutes = int(max(0.0, seconds)) // 60
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
