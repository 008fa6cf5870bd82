"""Whole rollouts with the real judge on made-up traffic: good versions promote themselves, bad ones are taken back."""

import random
from dataclasses import replace

import pytest
from control_engine import ANN, Stage
from control_rollouts import spec
from serin_control.judge.observation import Observation, ShadowScore
from serin_control.rollouts.court import JudgeCourt
from serin_control.rollouts.desk import Action
from serin_control.rollouts.rollout import Hold, Rollout
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

    async def minutes(self, number: int) -> Rollout:
        """What ends within minutes, looked at every ten seconds, and what is known then."""
        for second in range(60 * number):
            self.second()
            self.stage.clock.advance(1.0)
            if second % 10 == 9:
                await self.stage.look(0.0)
        return await self.stage.desk.get("small-1")

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


async def test_what_was_seen_counts_whatever_interrupts_the_rollout(clock):
    """People who pause, a judge without samples, a canary that crashes, control planes that go, `serin down` and `up`.

    Of all that only a control plane's death costs anything: what it heard in its last seconds.
    """
    store = MemoryRollouts()
    stage = Stage(clock, store, court=JudgeCourt())
    await stage.look()
    steps = (Step(2_500, 40_000, 600.0), Step(10_000))
    rollout_id = (await stage.desk.start(spec(steps=steps), "", ANN)).id
    await stage.look()
    traffic, ready = Traffic(stage, 0.001, 1.0, 0.0), list(stage.running)

    async def by_a_person() -> None:
        await traffic.stage.desk.act(rollout_id, Action.PAUSE, ANN, "lunch")
        await traffic.stage.look()
        await traffic.stage.desk.act(rollout_id, Action.RESUME, ANN, "")

    async def by_the_judge() -> None:
        await traffic.stage.look(600.0)
        assert (await traffic.stage.desk.get(rollout_id)).hold is Hold.SAMPLES
        await traffic.stage.desk.act(rollout_id, Action.RESUME, ANN, "")

    async def by_a_crash() -> None:
        traffic.stage.running = ready[:2]
        await traffic.stage.look()
        assert (await traffic.stage.desk.get(rollout_id)).hold is Hold.CANARY
        again = replace(ready[2].registration, instance=f"w{clock()}")
        traffic.stage.running = [*ready[:2], replace(ready[2], registration=again, registered_at=clock())]
        await traffic.stage.look()
        await traffic.stage.desk.act(rollout_id, Action.RESUME, ANN, "")

    async def by_another_leader() -> None:
        await traffic.stage.engine.stop()
        traffic.stage = Stage(clock, store, f"c{clock()}", ready, JudgeCourt())

    async def by_down_and_up() -> None:
        await traffic.stage.desk.suspend()
        await by_another_leader()
        traffic.stage.running = ready[:2]
        await traffic.stage.look()
        traffic.stage.running = ready

    async def by_a_death() -> None:
        traffic.second()  # heard, and not kept yet
        store.lapse()
        traffic.stage = Stage(clock, store, f"c{clock()}", ready, JudgeCourt())

    seen = await traffic.minutes(3)
    for interrupted in (
        by_a_person,
        by_the_judge,
        by_a_crash,
        by_a_crash,
        by_another_leader,
        by_down_and_up,
        by_a_death,
    ):
        await interrupted()
        await traffic.stage.look()
        now = await traffic.stage.desk.get(rollout_id)
        assert now.num_step_requests == now.num_requests == seen.num_requests, interrupted
        before, after = _samples(seen), _samples(now)
        assert all(after[metric] >= number for metric, number in before.items()), interrupted
        seen = await traffic.minutes(1)  # and what was open goes on: a quarter of 2,400 sessions in every minute
        assert _samples(seen)["errors"] >= after["errors"] + 400, interrupted
        assert not seen.anew


async def test_an_old_version_with_other_files_is_compared_anew_and_that_is_said(clock):
    """Where the rollout shows, in the history and as an alarm; who saw it counts on, also for who leads next."""
    store = MemoryRollouts()
    stage = Stage(clock, store, court=JudgeCourt())
    await stage.look()
    rollout_id = (await stage.desk.start(spec(steps=(Step(2_500, 40_000, 6_000.0), Step(10_000))), "", ANN)).id
    await stage.look()
    traffic = Traffic(stage, 0.001, 1.0, 0.0)
    before = await traffic.minutes(4)
    assert _samples(before)["errors"] > 400
    worker = next(one for one in stage.running if one.registration.instance == "w0-small-v1")
    digests = replace(worker.status.digests, artifact="0f" * 32)
    stage.running[stage.running.index(worker)] = replace(worker, status=replace(worker.status, digests=digests))
    said = "compared anew: v1 is announced with other files than before"
    for leader in (stage, Stage(clock, store, "c2", stage.running, JudgeCourt())):
        store.lapse()
        for _ in range(2):
            await leader.look(1.0)
        now = await leader.desk.get(rollout_id)
        assert now.reason == f"40,000 canary requests missing of 40,000; {said}"
        assert (now.num_requests, now.num_sessions) == (before.num_requests, before.num_sessions)
        assert (now.verdicts, now.num_step_requests, now.stable_lane) == ((), 0, leader.engine.sight(now).stable_lane)
        assert leader.alarms.sentences() == (f"rollout small-1 of small: {said}; who saw it is counted on",)
    acts, _ = await leader.desk.history(rollout_id, 9, "")
    assert [act.what for act in acts] == ["rejudge", "step", "start"]
    await leader.desk.act(rollout_id, Action.PAUSE, ANN, "look at v1")
    assert (await leader.desk.get(rollout_id)).reason == f"paused: ann: look at v1; {said}"
    await leader.desk.act(rollout_id, Action.RESUME, ANN, "")
    traffic.stage = leader
    now = await traffic.minutes(2)
    assert now.num_step_requests == now.num_requests - before.num_requests > 1_000
    assert 0 < _samples(now)["errors"] <= now.num_step_requests


def _samples(rollout: Rollout) -> dict[str, int]:
    """Samples of the new version by metric."""
    return {verdict.metric: verdict.num_samples for verdict in rollout.verdicts}
