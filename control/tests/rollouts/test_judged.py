"""Whole rollouts with the real judge on made-up traffic: good versions promote themselves, bad ones are taken back."""

import random
from dataclasses import replace

import pytest
from control_engine import ANN, Stage
from control_rollouts import spec
from serin_control.judge.observation import Observation, ShadowScore
from serin_control.rollouts.court import JudgeCourt
from serin_control.rollouts.rollout import Rollout
from serin_control.rollouts.spec import Step
from serin_control.rollouts.store import MemoryRollouts

SESSIONS_PER_S = 40
SEED = 20_260


class Traffic:
    """Sessions of one request each on both lanes, by the weights as they are; some are scored on both."""

    def __init__(self, stage: Stage, errors: float, slower: float, shift: float) -> None:
        self.stage, self.errors, self.slower, self.shift = stage, errors, slower, shift
        self.random = random.Random(SEED)
        self.num = 0

    def second(self) -> None:
        """What ends within a second."""
        weights, (trial,) = self.stage.weights(), self.stage.engine.bench.running()
        for _ in range(SESSIONS_PER_S):
            self.num += 1
            new = self.random.random() < weights["v2"] / 10_000
            self.stage.engine.bench.observe(
                "small", self._request(trial.canary_lane if new else trial.stable_lane, new)
            )
            if not new and self.num % 3 == 0:
                self.stage.engine.bench.score("small", self._score(trial, calibrates=self.num % 2 == 0))

    def _request(self, lane: str, new: bool) -> Observation:
        failed = self.random.random() < (self.errors if new else 0.001)
        pace = 0.01 * self.random.lognormvariate(0.0, 0.2) * (self.slower if new else 1.0)
        return Observation(
            f"r{self.num}",
            lane,
            self.num,
            self.stage.clock(),
            "INTERNAL" if failed else "ok",
            0.0 if failed else 0.1 * self.random.lognormvariate(0.0, 0.3),
            0.0 if failed else pace,
            50,
            num_answer_tokens=0 if failed else int(20 * self.random.lognormvariate(0.0, 0.4)),
            finish_reasons={} if failed else {"stop": 1},
            worker="w2" if new else "w1",
        )

    def _score(self, trial, calibrates: bool) -> ShadowScore:
        old = -1.0 + self.random.gauss(0.0, 0.3)
        other = old + self.random.gauss(0.0, 0.001) + (0.0 if calibrates else self.shift)
        lane = trial.stable_lane if calibrates else trial.canary_lane
        return ShadowScore(self.num, trial.stable_lane, lane, 20, old, other, 1.0)


async def released(clock, *, errors=0.001, slower=1.0, shift=0.0, minutes=40, dies_at=None) -> tuple[Rollout, Stage]:
    """A rollout over such traffic, to its end."""
    store = MemoryRollouts()
    stage = Stage(clock, store, court=JudgeCourt())
    stage.running += [replace(stage.running[-1], registration=replace(stage.running[-1].registration, instance="w3"))]
    await stage.look()
    steps = (Step(2_500, 50, 86_400.0), Step(5_000, 50, 86_400.0), Step(10_000))
    started = await stage.desk.start(spec(steps=steps), "", ANN)
    await stage.look()
    traffic = Traffic(stage, errors, slower, shift)
    for second in range(minutes * 60):
        if second == dies_at:
            stage = Stage(clock, store, "c2", stage.running, JudgeCourt())
            store.lapse()
            await stage.look()
            traffic.stage = stage
        traffic.second()
        await stage.look(1.0)
        now = await stage.desk.get(started.id)
        if now.ended:
            return now, stage
    raise AssertionError(f"seed {SEED}: after {minutes} minutes: {now}")


async def test_an_equal_version_is_promoted_by_itself(clock):
    """Through every step, on errors, speed and answers; the death of a control plane on the way changes nothing."""
    ended, stage = await released(clock, dies_at=400)
    assert ended.reason.startswith("Promoted: "), ended.reason
    assert ended.quality_judged
    assert stage.weights() == {"v2": 9_999, "v1": 1}


@pytest.mark.parametrize(
    ("fault", "metric"),
    [({"errors": 0.1}, "errors"), ({"slower": 1.3}, "time per token"), ({"shift": -0.1}, "change of answers")],
    ids=["errors", "slow", "other answers"],
)
async def test_a_bad_version_is_taken_back_by_itself(clock, fault, metric):
    """In its first step; the sentence names the metric, its figures and who saw it."""
    ended, stage = await released(clock, **fault)
    assert ended.reason.startswith(f"Aborted at 25 %: {metric} "), ended.reason
    assert "sessions saw it in" in ended.reason
    assert stage.weights() == {"v1": 10_000, "v2": 0}
