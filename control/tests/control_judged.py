"""Traffic of two lanes as a judge is told it, drawn from a seed: sessions of several requests."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from serin_control.judge.judge import Judge
from serin_control.judge.observation import Feedback, GoldenResult, Observation, ShadowScore
from serin_control.judge.settings import JudgeSettings
from serin_control.judge.verdict import Decision, MetricVerdict, Verdict

BEGAN = 1_000_000.0
SETTINGS = JudgeSettings("stable", "canary", "same", started_at=BEGAN, warm_up_s=60.0)


@dataclass(frozen=True)
class Lane:
    """How a lane behaves."""

    error_share: float = 0.001
    seconds_per_token: float = 0.02
    first_token_s: float = 0.1
    num_tokens: float = 50.0
    cut_off_share: float = 0.05
    schema_valid_share: float | None = None
    refusal_share: float | None = None
    load: int = 3
    score_shift: float = 0.0
    scores_share: float = 0.5


def sessions(seed: int, stable: Lane, canary: Lane, weight: float, per_s: float = 1.0) -> Iterator[Observation]:
    """Requests of sessions without end, in order of their end: about three a session."""
    rng = random.Random(seed)
    at = BEGAN
    session = seed << 32
    while True:
        at += rng.expovariate(per_s)
        session += 1
        is_new = rng.random() < weight
        lane = canary if is_new else stable
        difficulty = rng.gauss(0.0, 0.2)
        for turn in range(min(1 + int(rng.paretovariate(1.5) - 1), 30)):
            yield _request(rng, lane, "canary" if is_new else "stable", session, at + turn * 0.01, difficulty)


def shadow(seed: int, observation: Observation, canary: Lane) -> ShadowScore:
    """The answer scored again, on the stable lane or on the new one."""
    rng = random.Random(seed ^ observation.session)
    calibration = rng.random() < 0.5
    shift = rng.gauss(0.0, 0.001) - (0.0 if calibration else canary.score_shift)
    other = "stable" if calibration else "canary"
    return ShadowScore(observation.session, "stable", other, 50, -1.0, -1.0 + shift, 1.0 if calibration else 0.999)


def judged(settings: JudgeSettings, seed: int, stable: Lane, canary: Lane, num_sessions: int, **how: float) -> Decision:
    """What a judge says: as soon as it decides, or after that many sessions on the canary lane."""
    judge = Judge(settings)
    for decision in decisions(judge, seed, stable, canary, **how):
        if decision.verdict is not Verdict.WAIT or decision.num_exposed_sessions >= num_sessions:
            return decision
    raise AssertionError("sessions never end")


def decisions(
    judge: Judge, seed: int, stable: Lane, canary: Lane, weight: float = 0.2, per_s: float = 1.0
) -> Iterator[Decision]:
    """What the judge says after every twentieth request of the canary lane."""
    num_requests = 0
    for observation in sessions(seed, stable, canary, weight, per_s):
        judge.observe(observation)
        if observation.lane == "stable" and random.Random(observation.session).random() < canary.scores_share:
            judge.score(shadow(seed, observation, canary))
        if observation.lane == "canary":
            num_requests += 1
            if num_requests % 20 == 0:
                yield judge.decision()


def of(decision: Decision, metric: str) -> MetricVerdict:
    """One metric's verdict."""
    return next(verdict for verdict in decision.metrics if verdict.metric == metric)


def questions(num_questions: int, stable_share: float, canary_share: float, seed: int = 0) -> Iterator[GoldenResult]:
    """Golden questions, each lane right as often as said."""
    rng = random.Random(seed)
    for number in range(num_questions):
        luck = rng.random()
        yield GoldenResult(f"q{number}", float(luck < stable_share), float(luck < canary_share))


def opinion(session: int, lane: str, score: float) -> Feedback:
    """One caller's."""
    return Feedback(f"r{session}", lane, session, score)


def _request(rng: random.Random, lane: Lane, name: str, session: int, at: float, difficulty: float) -> Observation:
    ok = Observation(
        request_id=f"r{session}",
        lane=name,
        session=session,
        finished_at=at,
        first_token_s=lane.first_token_s * rng.lognormvariate(difficulty, 0.4),
        seconds_per_token=lane.seconds_per_token * rng.lognormvariate(difficulty, 0.15),
        num_uncached_tokens=rng.choice((10, 100, 1000)),
        worker_load=max(0, lane.load + rng.choice((-1, 0, 1))),
        num_answer_tokens=max(1, int(lane.num_tokens * rng.lognormvariate(0.0, 0.5))),
        finish_reasons={"length" if rng.random() < lane.cut_off_share else "stop": 1},
        schema_valid=None if lane.schema_valid_share is None else rng.random() < lane.schema_valid_share,
        refused=None if lane.refusal_share is None else rng.random() < lane.refusal_share,
        worker=name,
    )
    if rng.random() < lane.error_share:
        return replace(
            ok, reason="INTERNAL", first_token_s=0.0, seconds_per_token=0.0, num_answer_tokens=0,
            finish_reasons={}, schema_valid=None, refused=None,
        )  # fmt: skip
    return ok
