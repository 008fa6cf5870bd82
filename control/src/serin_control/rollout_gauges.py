"""What Prometheus sees of rollouts: the newest of each model, by its state, weight, exposure and verdicts.

Knows nothing about how rollouts are kept or carried out: whoever does says what is to be shown.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from serin_control.judge.verdict import Verdict

STATES = ("running", "waiting", "paused", "promoted", "aborted")


@dataclass(frozen=True, slots=True)
class RolloutFigures:
    """The newest rollout of a model.

    Attributes:
        state: one of :data:`STATES`.
        weight_ratio: share of new sessions that the new version has, 0 to 1.
        num_exposed_requests, num_exposed_sessions: that met the new version.
        is_starved: it is paused for want of samples.
        verdicts: by metric.
    """

    model: str
    state: str
    weight_ratio: float
    num_exposed_requests: int
    num_exposed_sessions: int
    is_starved: bool = False
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)


class ShownRollouts(Protocol):
    """Whoever knows the rollouts."""

    def figures(self) -> Iterable[RolloutFigures]:
        """The newest rollout of each model that had one, as it is now."""


class FixedRollouts:
    """:class:`ShownRollouts` that shows what it was given."""

    def __init__(self, *figures: RolloutFigures) -> None:
        self.shown = figures

    def figures(self) -> Iterable[RolloutFigures]:
        """What it was given."""
        return self.shown


def add_rollout_gauges(rollouts: ShownRollouts, into: CollectorRegistry) -> None:
    """Show rollouts; once a process."""
    into.register(_RolloutGauges(rollouts))


class _RolloutGauges(Collector):
    def __init__(self, rollouts: ShownRollouts) -> None:
        self._rollouts = rollouts

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """All of them, now."""
        state = _gauge("state", "1 for the state that the newest rollout of a model is in, else 0.", "state")
        weight = _gauge("weight_ratio", "Share of new sessions that the new version has.")
        requests = _gauge("exposed_requests", "Requests that met the new version.")
        sessions = _gauge("exposed_sessions", "Sessions that met the new version.")
        starved = _gauge("starved", "1: it is paused for want of samples.")
        verdict = _gauge("verdict", "1 for what the judge says of a metric, else 0.", "metric", "verdict")
        for rollout in self._rollouts.figures():
            for name in STATES:
                state.add_metric([rollout.model, name], name == rollout.state)
            weight.add_metric([rollout.model], rollout.weight_ratio)
            requests.add_metric([rollout.model], rollout.num_exposed_requests)
            sessions.add_metric([rollout.model], rollout.num_exposed_sessions)
            starved.add_metric([rollout.model], rollout.is_starved)
            for metric, said in rollout.verdicts.items():
                for one in Verdict:
                    verdict.add_metric([rollout.model, metric, str(one)], one is said)
        yield from (state, weight, requests, sessions, starved, verdict)


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"serin_rollout_{name}", text, labels=["model", *labels])
