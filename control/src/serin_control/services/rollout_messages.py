"""Rollouts as protobuf and back. Knows nothing about calls."""

from google.protobuf import timestamp_pb2
from serin.control.v1 import registry_pb2, rollout_pb2

from serin_control.errors import RolloutInvalid
from serin_control.instance import Service
from serin_control.judge.need import Forecast
from serin_control.judge.settings import Intent
from serin_control.judge.verdict import MetricVerdict, Verdict
from serin_control.lanes import WEIGHT_SUM
from serin_control.rollouts import words
from serin_control.rollouts.act import Act
from serin_control.rollouts.desk import Action
from serin_control.rollouts.rollout import Rollout, State
from serin_control.rollouts.spec import (
    DEFAULT_MAX_S,
    DEFAULT_MIN_SAMPLES,
    DEFAULT_SPLIT,
    DEFAULT_STEPS,
    OnScarce,
    Spec,
    Step,
    weight_of,
    whole_steps,
)
from serin_control.services.messages import KINDS, SERVICES

_INTENTS = {
    rollout_pb2.ROLLOUT_INTENT_SAME: Intent.SAME,
    rollout_pb2.ROLLOUT_INTENT_BETTER: Intent.BETTER,
    rollout_pb2.ROLLOUT_INTENT_EXPERIMENT: Intent.EXPERIMENT,
}
_INTENT_NUMBERS = {intent: number for number, intent in _INTENTS.items()}
_POLICIES = {
    rollout_pb2.SCARCE_POLICY_UNSPECIFIED: OnScarce.WAIT,
    rollout_pb2.SCARCE_POLICY_WAIT: OnScarce.WAIT,
    rollout_pb2.SCARCE_POLICY_ASK: OnScarce.ASK,
    rollout_pb2.SCARCE_POLICY_ABORT: OnScarce.ABORT,
}
_STATES = {
    State.RUNNING: rollout_pb2.ROLLOUT_STATE_RUNNING,
    State.WAITING: rollout_pb2.ROLLOUT_STATE_WAITING,
    State.PAUSED: rollout_pb2.ROLLOUT_STATE_PAUSED,
    State.PROMOTED: rollout_pb2.ROLLOUT_STATE_PROMOTED,
    State.ABORTED: rollout_pb2.ROLLOUT_STATE_ABORTED,
}
_ACTIONS = {
    rollout_pb2.ROLLOUT_ACTION_PAUSE: Action.PAUSE,
    rollout_pb2.ROLLOUT_ACTION_RESUME: Action.RESUME,
    rollout_pb2.ROLLOUT_ACTION_PROMOTE: Action.PROMOTE,
    rollout_pb2.ROLLOUT_ACTION_ABORT: Action.ABORT,
}
_VERDICTS = {
    Verdict.WAIT: rollout_pb2.VERDICT_WAIT,
    Verdict.PROMOTE: rollout_pb2.VERDICT_PROMOTE,
    Verdict.ABORT: rollout_pb2.VERDICT_ABORT,
}


def spec_from(message: rollout_pb2.StartRolloutRequest) -> Spec:
    """What is asked of a rollout.

    Raises:
        RolloutInvalid: something that must be named is not.
    """
    intent = _INTENTS.get(message.intent)
    if intent is None:
        raise RolloutInvalid(f"intent: not set: accepted: one of {', '.join(Intent)}")
    policy = _POLICIES.get(message.on_scarce)
    if policy is None:
        raise RolloutInvalid(f"on_scarce: {message.on_scarce}: accepted: one of {', '.join(OnScarce)}")
    steps = tuple(_step_from(step) for step in message.steps)
    if intent is not Intent.EXPERIMENT:
        steps = whole_steps(steps)
    default = DEFAULT_SPLIT if intent is Intent.EXPERIMENT else DEFAULT_STEPS
    return Spec(
        model=message.model,
        service=_service("service", message.service),
        to_version=message.to_version,
        intent=intent,
        steps=steps or default,
        manual=message.manual,
        also=tuple(_service("also", kind) for kind in message.also),
        tolerances=dict(message.tolerances),
        error_rate=message.error_rate or 0.01,
        baseline=message.baseline,
        on_scarce=policy,
        has_golden=bool(message.golden_jsonl),
        accept_weak=message.accept_weak,
    )


def action_from(number: "rollout_pb2.RolloutAction.ValueType") -> Action:
    """What a person does.

    Raises:
        RolloutInvalid: nothing is named.
    """
    action = _ACTIONS.get(number)
    if action is None:
        raise RolloutInvalid(f"action: not set: accepted: one of {', '.join(Action)}")
    return action


def rollback_service_from(kind: int) -> Service | None:
    """The service whose traffic goes back; None: the model's lanes.

    Raises:
        RolloutInvalid: its versions do not go back by themselves.
    """
    if kind == registry_pb2.SERVICE_KIND_UNSPECIFIED:
        return None
    service = _service("service", kind)
    if service is not Service.GATEWAY:
        raise RolloutInvalid(f"service: {service}: accepted: gateway, or none for the model's lanes")
    return service


def rollout_message(rollout: Rollout) -> rollout_pb2.Rollout:
    """A rollout."""
    spec = rollout.spec
    return rollout_pb2.Rollout(
        rollout_id=rollout.id,
        model=spec.model,
        service=KINDS[spec.service],
        from_version=rollout.from_version,
        to_version=spec.to_version,
        intent=_INTENT_NUMBERS[spec.intent],
        state=_STATES[rollout.state],
        step_index=rollout.step,
        weight_percent=_percent(rollout.weight),
        exposed_session_count=rollout.num_sessions,
        exposed_request_count=rollout.num_requests,
        verdicts=[_verdict(verdict) for verdict in rollout.verdicts],
        reason=rollout.reason,
        started_at=moment(rollout.started_at),
        changed_at=moment(rollout.changed_at),
        steps=[step_message(step) for step in spec.steps],
        also=[KINDS[service] for service in spec.also],
        manual=spec.manual,
        stable_lane=rollout.stable_lane,
        canary_lane=rollout.canary_lane,
        next=rollout.next,
        started_by=rollout.started_by,
        traffic=words.traffic(rollout),
    )


def step_message(step: Step) -> rollout_pb2.RolloutStep:
    """One step."""
    return rollout_pb2.RolloutStep(
        weight_percent=_percent(step.weight), min_sample_count=step.min_samples, max_seconds=int(step.max_s)
    )


def forecast_message(step: Step, forecast: Forecast) -> rollout_pb2.StepForecast:
    """What one step would need."""
    return rollout_pb2.StepForecast(
        step=step_message(step),
        needed_sample_count=forecast.samples,
        seconds=forecast.seconds,
        detectable=dict(forecast.detectable),
    )


def act_message(act: Act) -> rollout_pb2.Act:
    """A line of the history."""
    return rollout_pb2.Act(
        at=moment(act.at),
        rollout_id=act.rollout,
        actor=act.actor,
        identity=act.identity,
        what=act.what,
        reason=act.reason,
        term=act.term,
    )


def moment(at: float) -> timestamp_pb2.Timestamp:
    """Seconds since 1970 as a timestamp."""
    stamp = timestamp_pb2.Timestamp()
    stamp.FromNanoseconds(int(at * 1e9))
    return stamp


def _verdict(verdict: MetricVerdict) -> rollout_pb2.MetricVerdict:
    return rollout_pb2.MetricVerdict(
        metric=verdict.metric,
        verdict=_VERDICTS[verdict.verdict],
        difference=verdict.difference,
        low=verdict.low,
        high=verdict.high,
        sample_count=verdict.num_samples,
        stable_value=verdict.stable_value,
        canary_value=verdict.canary_value,
        tolerance=verdict.tolerance,
        note=verdict.note,
        unit=verdict.unit,
    )


def _step_from(message: rollout_pb2.RolloutStep) -> Step:
    return Step(
        weight_of(message.weight_percent),
        message.min_sample_count or DEFAULT_MIN_SAMPLES,
        float(message.max_seconds) or DEFAULT_MAX_S,
    )


def _service(key: str, kind: int) -> Service:
    for known, service in SERVICES.items():
        if known == kind:
            return service
    raise RolloutInvalid(f"{key}: not set: accepted: one of {', '.join(Service)}")


def _percent(weight: int) -> float:
    return weight * 100 / WEIGHT_SUM
