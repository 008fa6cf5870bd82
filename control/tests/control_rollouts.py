"""Rollouts, sights and decisions in one line each."""

from serin_control.instance import Service
from serin_control.judge.settings import Intent
from serin_control.judge.verdict import Decision, MetricVerdict, Verdict
from serin_control.plan import Share
from serin_control.rollouts.rollout import Arms, Rollout, Strength
from serin_control.rollouts.sight import Sight
from serin_control.rollouts.spec import Spec, Step

STABLE, CANARY = "5a" * 16, "ca" * 16


def versions(worker: str = "v1", tokenizer: str = "v1"):
    """A set of versions."""
    return ((Service.TOKENIZER, tokenizer), (Service.WORKER, worker))


def spec(**changes) -> Spec:
    """Worker v1 to v2 in three steps, 10 samples and 100 s each."""
    steps = tuple(Step(weight, 10, 100.0) for weight in (100, 2_500, 10_000))
    fields = {"model": "small", "service": Service.WORKER, "to_version": "v2", "intent": Intent.SAME, "steps": steps}
    return Spec(**(fields | changes))


def rollout(**changes) -> Rollout:
    """One that has just been started; `spec` may be given as changes of one."""
    arms = Arms((Share(versions("v1"), 10_000),), versions("v2"))
    asked = spec(**changes.pop("spec", {}))
    fields = {"id": "small-1", "spec": asked, "arms": arms, "from_version": "v1", "started_at": 1000.0}
    fields |= {"started_by": "ann", "capacity": {Service.WORKER: Strength(4, 32)}, "changed_at": 1000.0}
    return Rollout(**(fields | changes))


def sight(num_workers: int = 4, **changes) -> Sight:
    """Both arms are there, the canary with so many workers."""
    fields = {"stable_lane": STABLE, "canary_lane": CANARY, "able": num_workers > 0, "same_vocabulary": True}
    fields |= {"canary": {Service.WORKER: Strength(num_workers, 8 * num_workers)}}
    fields |= {"starts": frozenset((f"w{n}", 1.0) for n in range(num_workers))}
    return Sight(**(fields | changes))


def decision(verdict: Verdict = Verdict.WAIT, requests: int = 0, sessions: int = 0, **changes) -> Decision:
    """What the judge says, of one metric."""
    reason = changes.pop("reason", "errors 2.3 % against 0.1 % (+1.4..+3.1 points, 412 requests)")
    metric = MetricVerdict("errors", changes.pop("errors", verdict), 0.02, 0.014, 0.031, requests, 0.001, 0.023, 0.01)
    return Decision(verdict, reason, (metric,), requests, sessions, changes.pop("quality_judged", True))
