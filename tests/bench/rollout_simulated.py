"""One simulated rollout: steps, traffic, and a judge that ends it. The real judge decides, or one by thresholds."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rollout_cases import Case
from rollout_threshold import Limits, ThresholdJudge
from rollout_traces import Trace
from rollout_traffic import CANARY, STABLE, Seen, Traffic
from serin_control.judge.judge import Judge
from serin_control.judge.observation import GoldenResult, ProcessMemory, ShadowScore
from serin_control.judge.settings import JudgeSettings
from serin_control.judge.verdict import Verdict

# Weight and the canary requests after which the next step begins.
STEPS = ((0.01, 100), (0.05, 500), (0.25, 1500), (0.5, 10**9))
MAX_REQUESTS = 80_000
LOOK_EVERY = 25
LATER_EVERY, LATER = 100, 600
WARM_UP_S = 120.0
SCORED_SHARE = 0.3
QUESTION_EVERY_S = 5.0
MEMORY_EVERY_S = 15.0
RESIDENT_BYTES = 600_000_000.0
JUMP_BYTES = 1_000_000.0


@dataclass(frozen=True)
class Outcome:
    """How one rollout ended.

    Attributes:
        verdict: "promote", "abort", or "wait" where it did not end.
        num_requests, num_sessions: that met the canary by then.
        seconds: from the start.
        step: it ended in, from 0.
        reason: in the judge's words; of thresholds: empty.
    """

    verdict: str
    num_requests: int
    num_sessions: int
    seconds: float
    step: int
    reason: str = ""


def judged(trace: Trace, recordings: Mapping[str, Mapping[str, list]], case: Case, seed: int) -> Outcome:
    """A rollout that our judge ends."""
    traffic = Traffic(trace, case, seed)
    settings = JudgeSettings(STABLE, CANARY, case.intent, started_at=traffic.began, warm_up_s=WARM_UP_S)
    judge = Judge(settings)
    sides = [_Questions(case, recordings["golden"], seed, lambda s, c, name: judge.golden(GoldenResult(name, s, c)))]
    sides += [_Memory(case, seed, judge), _Scores(case, recordings["scores"], seed, judge)]
    step = 0
    num_new = 0
    for seen in traffic.requests():
        judge.observe(seen)
        for side in sides:
            side.observe(seen)
        if seen.lane != CANARY:
            continue
        num_new += 1
        if num_new % (LOOK_EVERY if num_new < LATER else LATER_EVERY):
            continue
        decision = judge.decision()
        step = _step(traffic, step, num_new)
        ended = decision.verdict is Verdict.ABORT or (decision.verdict is Verdict.PROMOTE and step == len(STEPS) - 1)
        if ended or num_new >= MAX_REQUESTS:
            return Outcome(
                decision.verdict.value, num_new, decision.num_exposed_sessions, traffic.now - traffic.began, step,
                decision.reason,
            )  # fmt: skip
    raise AssertionError("traffic never ends")


def measured(
    trace: Trace, recordings: Mapping[str, Mapping[str, list]], case: Case, seed: int, limits: Limits
) -> Outcome:
    """The same rollout, ended by thresholds."""
    traffic = Traffic(trace, case, seed)
    judge = ThresholdJudge(limits, traffic.began, WARM_UP_S)
    questions = _Questions(case, recordings["golden"], seed, lambda s, c, _: judge.golden(s, c))
    step = 0
    for seen in traffic.requests():
        judge.observe(seen)
        questions.observe(seen)
        if seen.lane != CANARY:
            continue
        step = _step(traffic, step, judge.num_requests)
        if judge.verdict() != "wait" or judge.num_requests >= MAX_REQUESTS:
            return Outcome(judge.verdict(), judge.num_requests, judge.num_sessions, traffic.now - traffic.began, step)
    raise AssertionError("traffic never ends")


def _step(traffic: Traffic, step: int, num_new: int) -> int:
    while num_new >= STEPS[step][1]:
        step += 1
    traffic.weight = STEPS[step][0]
    return step


class _Questions:
    """The golden set, one question after the other, in an order of its own."""

    def __init__(
        self, case: Case, recorded: Mapping[str, list], seed: int, ask: Callable[[float, float, str], None]
    ) -> None:
        self._left = []
        if case.golden is not None:
            stable, canary = (recorded[version] for version in case.golden)
            self._left = list(enumerate(zip(stable, canary, strict=True)))
            random.Random(seed).shuffle(self._left)
        self._ask = ask
        self._next = 0.0

    def observe(self, seen: Seen) -> None:
        """Ask what is due."""
        self._next = self._next or seen.finished_at + WARM_UP_S
        while self._left and seen.finished_at >= self._next:
            number, (stable, canary) = self._left.pop()
            self._ask(float(stable), float(canary), f"q{number}")
            self._next += QUESTION_EVERY_S


class _Memory:
    """Processes that grow with their requests, and jump about."""

    def __init__(self, case: Case, seed: int, judge: Judge) -> None:
        self._leaked = {CANARY: case.leaked_bytes, STABLE: 0.0}
        self._rng = random.Random(seed)
        self._judge = judge
        self._requests: dict[str, int] = {}
        self._sampled: dict[str, float] = {}

    def observe(self, seen: Seen) -> None:
        """Sample the process if it is time."""
        if not seen.worker:
            return
        number = self._requests[seen.worker] = self._requests.get(seen.worker, 0) + 1
        if seen.finished_at < self._sampled.get(seen.worker, 0.0) + MEMORY_EVERY_S:
            return
        self._sampled[seen.worker] = seen.finished_at
        jump = self._rng.choice((0.0, 0.0, 0.0, 0.5, 1.0)) * JUMP_BYTES
        resident = int(RESIDENT_BYTES + self._leaked[seen.lane] * number + jump)
        self._judge.memory(ProcessMemory(seen.lane, seen.worker, seen.finished_at, resident, number))


class _Scores:
    """Some of the old lane's answers, scored again: half on the old lane, half on the new."""

    def __init__(self, case: Case, recorded: Mapping[str, list], seed: int, judge: Judge) -> None:
        self._recorded = recorded[case.scores]
        self._rng = random.Random(seed)
        self._judge = judge

    def observe(self, seen: Seen) -> None:
        """Score it, perhaps."""
        if seen.lane != STABLE or self._rng.random() > SCORED_SHARE:
            return
        if self._rng.random() < 0.5:
            shift, agreement, other = self._rng.gauss(0.0, 1e-5), 1.0, STABLE
        else:
            (shift, agreement), other = self._rng.choice(self._recorded), CANARY
        self._judge.score(ShadowScore(seen.session, STABLE, other, 30, -0.5, -0.5 + shift, agreement))
