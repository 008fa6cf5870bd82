"""What one observation says of each metric, as burdens from 0 to 1.

Knows the metrics and the strata, nothing about sessions, blocks or tests.
"""

import math
from collections.abc import Iterator
from typing import Any

from serin_control.judge.metrics import METRICS
from serin_control.judge.observation import Observation, ShadowScore
from serin_control.judge.strata import Strata, bucket

# What the caller did; no version is to blame.
NOBODYS_FAULT = frozenset({"ok", "CANCELLED", "RATE_LIMITED"})
CUT_OFF = frozenset({"length", "content_filter"})
MAX_WORKERS = 1024


class Readings:
    """Turns observations into burdens. Latencies of a worker's first ``warm_up_s`` are left out."""

    def __init__(self, warm_up_s: float) -> None:
        self._warm_up_s = warm_up_s
        self._first_token = Strata()
        self._per_token = Strata()
        self._answer_length = Strata()
        self._workers: dict[str, float] = {}

    def of(self, observation: Observation, is_new: bool) -> Iterator[tuple[str, float]]:
        """The burdens of one request; the old lane's teach what is usual."""
        failed = observation.reason not in NOBODYS_FAULT
        yield "errors", float(failed)
        if observation.reason == "ok":
            yield from self._answer(observation, is_new)
        yield from self._latencies(observation, is_new)

    def dump(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "first_token": self._first_token.dump(),
            "per_token": self._per_token.dump(),
            "answer_length": self._answer_length.dump(),
            "workers": dict(self._workers),
        }

    @classmethod
    def load(cls, warm_up_s: float, dumped: dict[str, Any]) -> "Readings":
        """What :meth:`dump` gave."""
        readings = cls(warm_up_s)
        readings._first_token = Strata.load(dumped["first_token"])
        readings._per_token = Strata.load(dumped["per_token"])
        readings._answer_length = Strata.load(dumped["answer_length"])
        readings._workers = dict(dumped["workers"])
        return readings

    def _answer(self, observation: Observation, is_new: bool) -> Iterator[tuple[str, float]]:
        if num_reasons := sum(observation.finish_reasons.values()):
            cut_off = sum(count for reason, count in observation.finish_reasons.items() if reason in CUT_OFF)
            yield "finish_reasons", cut_off / num_reasons
        if observation.num_answer_tokens:
            yield from _compared(self._answer_length, "answer_length", "", observation.num_answer_tokens, is_new)
        if observation.schema_valid is not None:
            yield "schema_valid", float(not observation.schema_valid)
        if observation.refused is not None:
            yield "refusals", float(observation.refused)

    def _latencies(self, observation: Observation, is_new: bool) -> Iterator[tuple[str, float]]:
        if self._is_cold(observation) or observation.num_resumes:
            return
        load = bucket(observation.worker_load, 4)
        if observation.first_token_s > 0:
            stratum = f"{load} {bucket(observation.num_uncached_tokens, 2)}"
            yield from _compared(self._first_token, "first_token", stratum, observation.first_token_s, is_new)
        if observation.seconds_per_token > 0:
            yield from _compared(self._per_token, "per_token", str(load), observation.seconds_per_token, is_new)

    def _is_cold(self, observation: Observation) -> bool:
        if not observation.worker:
            return False
        seen = self._workers.get(observation.worker)
        if seen is None:
            if len(self._workers) >= MAX_WORKERS:
                self._workers.pop(next(iter(self._workers)))
            seen = self._workers[observation.worker] = observation.finished_at
        return observation.finished_at < seen + self._warm_up_s


def of_score(score: ShadowScore) -> Iterator[tuple[str, float]]:
    """The burdens of one text that was scored twice."""
    yield "answers", min(abs(score.canary_logprob - score.stable_logprob) / METRICS["answers"].span, 1.0)
    yield "agreement", min(max(1.0 - score.agreement, 0.0), 1.0)


def _compared(strata: Strata, metric: str, stratum: str, value: float, is_new: bool) -> Iterator[tuple[str, float]]:
    ratio = strata.compare(stratum, value)
    if not is_new:
        strata.teach(stratum, value)
    if ratio is not None:
        yield metric, min(max(0.5 + ratio / METRICS[metric].span, 0.0), 1.0)


def began_at(observation: Observation) -> float:
    """When the request began, as far as its latencies tell."""
    after_first = observation.seconds_per_token * max(0, observation.num_answer_tokens - 1)
    began = observation.finished_at - observation.first_token_s - after_first
    return began if math.isfinite(began) else observation.finished_at
