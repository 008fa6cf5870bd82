"""What one observation says of each metric, as burdens from 0 to 1.

Knows the metrics and the strata, nothing about sessions, blocks or tests.
"""

import math
from typing import Any

from serin_control.judge.metrics import METRICS
from serin_control.judge.observation import Observation, Recall, ShadowScore
from serin_control.judge.strata import Strata, bucket

# What the caller did; no version is to blame.
NOBODYS_FAULT = frozenset({"ok", "CANCELLED", "RATE_LIMITED"})
CUT_OFF = frozenset({"length", "content_filter"})
MAX_WORKERS = 1024
MAX_BUCKETS = 256
LONGEST_S = 1e6
_SPANS = {name: metric.span for name, metric in METRICS.items()}


class Readings:
    """Turns observations into burdens. Latencies of a worker's first ``warm_up_s`` are left out.

    Where caches are compared (``of_caches``), a recall is part of the time to the first token, a stored answer has all
    of it, and prompts of one length are compared whatever was reused of them: saving that is what a cache is for. Both
    sides have the same workers there, as busy and as warm.
    """

    def __init__(self, warm_up_s: float, of_caches: bool = False) -> None:
        self._warm_up_s = warm_up_s
        self._of_caches = of_caches
        self._first_token = Strata()
        self._per_token = Strata()
        self._answer_length = Strata()
        self._workers: dict[str, float] = {}

    def meet(self, observation: Observation) -> None:
        """Note when its worker was first seen: workers grow warm while the rollout's own warm-up lasts, too."""
        if observation.worker and observation.worker not in self._workers:
            if len(self._workers) >= MAX_WORKERS:
                self._workers.pop(next(iter(self._workers)))
            self._workers[observation.worker] = observation.finished_at

    def of(self, observation: Observation, is_new: bool) -> list[tuple[str, float]]:
        """The burdens of one request; the old lane's teach what is usual."""
        burdens = [("errors", 0.0 if observation.reason in NOBODYS_FAULT else 1.0)]
        if observation.reason == "ok":
            self._answer(observation, is_new, burdens)
        if self._of_caches:
            _recall(observation, burdens)
        if not observation.num_resumes and (self._of_caches or not self._is_cold(observation)):
            self._latencies(observation, is_new, burdens)
        return burdens

    def dump(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "first_token": self._first_token.dump(),
            "per_token": self._per_token.dump(),
            "answer_length": self._answer_length.dump(),
            "workers": dict(self._workers),
        }

    @classmethod
    def load(cls, warm_up_s: float, dumped: dict[str, Any], of_caches: bool = False) -> "Readings":
        """What :meth:`dump` gave."""
        readings = cls(warm_up_s, of_caches)
        readings._first_token = Strata.load(dumped["first_token"])
        readings._per_token = Strata.load(dumped["per_token"])
        readings._answer_length = Strata.load(dumped["answer_length"])
        readings._workers = dict(dumped["workers"])
        return readings

    def _answer(self, observation: Observation, is_new: bool, burdens: list[tuple[str, float]]) -> None:
        if num_reasons := sum(observation.finish_reasons.values()):
            cut_off = sum(count for reason, count in observation.finish_reasons.items() if reason in CUT_OFF)
            burdens.append(("finish_reasons", cut_off / num_reasons))
        if observation.num_answer_tokens:
            ratio = self._answer_length.compare(0, observation.num_answer_tokens, teach=not is_new)
            _append_ratio(burdens, "answer_length", ratio)
        if observation.schema_valid is not None:
            burdens.append(("schema_valid", 0.0 if observation.schema_valid else 1.0))
        if observation.refused is not None:
            burdens.append(("refusals", 1.0 if observation.refused else 0.0))

    def _latencies(self, observation: Observation, is_new: bool, burdens: list[tuple[str, float]]) -> None:
        load = bucket(observation.worker_load, 4)
        stratum, first_token_s = self._first_token_of(observation, load)
        if 0 < first_token_s < LONGEST_S:
            ratio = self._first_token.compare(stratum, first_token_s, teach=not is_new)
            _append_ratio(burdens, "first_token", ratio)
        if 0 < observation.seconds_per_token < LONGEST_S:
            ratio = self._per_token.compare(load, observation.seconds_per_token, teach=not is_new)
            _append_ratio(burdens, "per_token", ratio)

    def _first_token_of(self, observation: Observation, load: int) -> tuple[int, float]:
        """What it is compared with, and the time to its first token; 0: there was none."""
        if not self._of_caches:
            return load * MAX_BUCKETS + bucket(observation.num_uncached_tokens, 2), observation.first_token_s
        is_known = observation.first_token_s > 0 or observation.recall is Recall.ANSWER
        seconds = observation.recall_s + observation.first_token_s if is_known else 0.0
        return bucket(observation.num_prompt_tokens, 2), seconds

    def _is_cold(self, observation: Observation) -> bool:
        if not observation.worker:
            return False
        self.meet(observation)
        return observation.finished_at < self._workers[observation.worker] + self._warm_up_s


def of_score(score: ShadowScore) -> list[tuple[str, float]]:
    """The burdens of one text that was scored twice; none of scores that are no numbers."""
    change = abs(score.canary_logprob - score.stable_logprob) / METRICS["answers"].span
    if not math.isfinite(change) or not 0 <= score.agreement <= 1:
        return []
    return [("answers", min(change, 1.0)), ("agreement", 1.0 - score.agreement)]


def _recall(observation: Observation, burdens: list[tuple[str, float]]) -> None:
    if observation.recall not in (Recall.UNKNOWN, Recall.SKIPPED):
        burdens.append(("recall_errors", 1.0 if observation.recall is Recall.FAILED else 0.0))
        burdens.append(("stored_answers", 0.0 if observation.recall is Recall.ANSWER else 1.0))
    if observation.reason == "ok" and observation.num_prompt_tokens:
        burdens.append(("cache_hit_rate", observation.num_uncached_tokens / observation.num_prompt_tokens))


def _append_ratio(burdens: list[tuple[str, float]], metric: str, ratio: float | None) -> None:
    if ratio is not None:
        burdens.append((metric, min(max(0.5 + ratio / _SPANS[metric], 0.0), 1.0)))


def began_at(observation: Observation) -> float:
    """When the request began, as far as its latencies tell."""
    after_first = observation.seconds_per_token * max(0, observation.num_answer_tokens - 1)
    began = observation.finished_at - observation.first_token_s - after_first
    return began if math.isfinite(began) else observation.finished_at
