"""Requests of two lanes as a rollout would see them, drawn from a trace by a block bootstrap.

Runs of neighbouring sessions are drawn from the trace's same time of day (Künsch, The jackknife and the bootstrap for
general stationary observations, 1989); a session stays whole, so what its requests have in common is kept. The lane
decides what is added: load, failures, slowness, and a cold start of the new version's workers.

Of the old lane, at most eight sessions for each of the new one are drawn, and only what a judge looks at.
"""

import heapq
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from rollout_cases import Case
from rollout_traces import Session, Trace, busyness

SESSIONS_PER_S = 2.0
OLD_PER_NEW = 8.0
BLOCK_SESSIONS = 20
NUM_WORKERS = 8
COLD_S = 40.0
LOOKED_AT_S = 31.0
STABLE, CANARY = "stable", "canary"
_NONE: dict[str, int] = {}
_STOP = {"stop": 1}
_CUT = {"length": 1}


@dataclass(slots=True)
class Seen:
    """An observation with the judge's field names, made quickly; it is read as one."""

    request_id: str
    lane: str
    session: int
    finished_at: float
    reason: str = "ok"
    first_token_s: float = 0.0
    seconds_per_token: float = 0.0
    num_uncached_tokens: int = 0
    num_cached_tokens: int = 0
    worker_load: int = 0
    num_answer_tokens: int = 0
    finish_reasons: dict[str, int] = field(default_factory=dict)
    num_resumes: int = 0
    worker: str = ""
    schema_valid: bool | None = None
    refused: bool | None = None
    was_told_of: bool = False


class Traffic:
    """An endless stream of requests, in order of their end. ``weight`` may be changed at any time."""

    def __init__(self, trace: Trace, case: Case, seed: int) -> None:
        self._trace = trace
        self._case = case
        self._rng = random.Random(seed)
        self._hour = self._rng.random() * 24
        self._began = 1_000_000.0
        self._workers_since = {0: self._began}
        self._num_session = seed << 24
        self._block: list[Session] = []
        self._waiting: list[tuple[float, int, Seen]] = []
        self._num_requests = 0
        self.now = self._began
        self.weight = 0.01

    @property
    def began(self) -> float:
        """When the rollout began, seconds since 1970."""
        return self._began

    def requests(self) -> Iterator[Seen]:
        """All of them."""
        arrival = self._began
        while True:
            arrival += self._rng.expovariate(self._sessions_per_s(arrival))
            self._begin(arrival)
            while self._waiting and self._waiting[0][0] <= arrival:
                self.now, _, seen = heapq.heappop(self._waiting)
                yield seen

    def _sessions_per_s(self, at: float) -> float:
        kept = min(1.0, self.weight * (1 + OLD_PER_NEW))
        return SESSIONS_PER_S * busyness(self._hour_of(at)) * kept

    def _hour_of(self, at: float) -> float:
        return (self._hour + (at - self._began) / 3600) % 24

    def _begin(self, arrival: float) -> None:
        if not self._block:
            hour = self._trace.hours[int(self._hour_of(arrival))]
            start = self._rng.randrange(len(hour))
            self._block = [hour[(start + place) % len(hour)] for place in range(BLOCK_SESSIONS)]
        session = self._block.pop()
        self._num_session += 1
        is_new = self._rng.random() < self.weight / min(1.0, self.weight * (1 + OLD_PER_NEW))
        for request in session.requests:
            if not is_new and request.offset_s > LOOKED_AT_S:
                break
            at = arrival + request.offset_s
            if self._rng.random() < (self._errors(is_new) * session.failing):
                seen = Seen("", CANARY if is_new else STABLE, self._num_session, at + 0.01, "INTERNAL")
            else:
                seen = self._answered(request, is_new, at)
            self._num_requests += 1
            heapq.heappush(self._waiting, (seen.finished_at, self._num_requests, seen))

    def _errors(self, is_new: bool) -> float:
        return self._case.canary_errors if is_new else self._case.stable_errors

    def _answered(self, request, is_new: bool, at: float) -> Seen:
        lane = CANARY if is_new else STABLE
        share = self.weight if is_new else 1 - self.weight
        num_workers = max(1, math.ceil(share * NUM_WORKERS))
        worker = int(self._rng.random() * num_workers)
        load = self._load(share, num_workers, at)
        slowed = 1 + 0.06 * load
        first_token_s = request.first_token_s * slowed
        seconds_per_token = request.seconds_per_token * slowed
        if is_new:
            since = self._workers_since.setdefault(worker, at)
            cold = math.exp(-(at - since) / COLD_S)
            first_token_s *= 1 + 2 * cold
            seconds_per_token *= self._case.slower * (1 + cold)
        return Seen(
            "", lane, self._num_session, at + first_token_s + seconds_per_token * (request.num_tokens - 1), "ok",
            first_token_s, seconds_per_token if request.num_tokens > 1 else 0.0, request.num_uncached,
            request.num_cached, load, request.num_tokens, _CUT if request.cut_off else _STOP, 0, f"{lane}-{worker}",
        )  # fmt: skip

    def _load(self, share: float, num_workers: int, at: float) -> int:
        """Sequences on the worker: as many as its part of the traffic makes, more by day."""
        usual = 40.0 * busyness(self._hour_of(at)) * share / num_workers
        return max(0, round(self._rng.gauss(usual, math.sqrt(usual + 0.1))))
