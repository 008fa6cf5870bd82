"""Control planes die at every moment there is: nothing is lost, nothing is done twice, traffic never jumps."""

import contextlib

import pytest
from control_engine import ANN, Stage
from control_rollouts import spec
from serin_control.errors import RolloutConflict
from serin_control.judge.verdict import Verdict
from serin_control.rollouts.desk import Action
from serin_control.rollouts.rollout import State
from serin_control.rollouts.store import MemoryRollouts

CALLS = ("lead", "read", "write", "keep", "judge", "golden", "next_number", "rollout", "acts")


class Killed(BaseException):
    """SIGKILL: nobody catches it."""


class Mortal(MemoryRollouts):
    """A store whose nth call kills the caller: before it arrived, or after it did and before its answer."""

    def __init__(self, nth: int, after: bool) -> None:
        super().__init__()
        self.num_calls, self.nth, self.after = 0, nth, after

    def __getattribute__(self, name):
        found = object.__getattribute__(self, name)
        if name not in CALLS:
            return found

        async def call(*arguments):
            self.num_calls += 1
            dies = self.num_calls == self.nth
            if dies and not self.after:
                raise Killed
            answer = await found(*arguments)
            if dies:
                raise Killed
            return answer

        return call


class Life:
    """One control plane after the other on one store, and somebody who wants a release."""

    def __init__(self, clock, store) -> None:
        self.clock, self.store, self.stage = clock, store, Stage(clock, store)
        self.num_deaths = 0
        self.seen: list[dict[str, int]] = []

    async def alive(self, do):
        """Do something, again after a death; what traffic does is noted all the way."""
        while True:
            try:
                answer = await do()
            except Killed:
                self.num_deaths += 1
                memory = self.stage.memory
                self.stage = Stage(self.clock, self.store)
                self.stage.memory = memory
                await self.stage.look()  # as a process does at its start
                continue
            if self.stage.engine._is_known:  # else it has published nothing yet
                self.seen.append(self.stage.weights())
            return answer

    async def look(self) -> None:
        """Let a quarter of a second pass."""
        await self.alive(lambda: self.stage.look())

    async def start(self) -> None:
        """Start a rollout, as a person does who was not answered: again, until told that it runs."""
        with contextlib.suppress(RolloutConflict):
            await self.alive(lambda: self.stage.desk.start(spec(), "", ANN))

    async def running(self):
        """The rollout that runs or ran last."""
        found, *_ = await MemoryRollouts.rollouts(self.store, "", 1, "")
        return found[0]

    async def history(self) -> list[str]:
        """What was done, oldest first."""
        found, _ = await MemoryRollouts.acts(self.store, "", 1000, "")
        return [act.what for act in reversed(found)]


async def release(life: Life, verdict: Verdict) -> None:
    """From the start to the end by verdict; a promotion is gone back from."""
    await life.look()
    await life.start()
    number = 0
    while not (now := await life.running()).ended:
        await life.look()
        for arbiter in life.stage.court.arbiters.values():
            arbiter.verdict = verdict
        if life.stage.engine.bench.running():
            life.stage.observe(10, first=number)
            number += 10
        assert number < 2_000, now
    if verdict is Verdict.PROMOTE:
        await life.alive(lambda: life.stage.look(0.5))
        await life.alive(lambda: life.stage.desk.rollback("small", "v1", ANN, ""))
    await life.alive(lambda: life.stage.look(0.5))


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("verdict", [Verdict.PROMOTE, Verdict.ABORT])
async def test_a_death_at_any_call_changes_nothing(clock, verdict, after):
    """The same history, each line once; weights only as written, one after the other; the same traffic at the end."""
    calm = Life(clock, Mortal(0, False))
    await release(calm, verdict)
    expected, steps = await calm.history(), _changes(calm.seen)
    assert expected == (
        ["start", "step", "step", "promote", "rollback"] if verdict is Verdict.PROMOTE else ["start", "step", "abort"]
    )
    assert calm.store.num_calls > 10
    for nth in range(1, calm.store.num_calls + 1):
        life = Life(clock, Mortal(nth, after))
        await release(life, verdict)
        assert life.num_deaths == 1
        assert await life.history() == expected, nth
        assert _changes(life.seen) == steps, nth
        assert (await life.running()).state in (State.PROMOTED, State.ABORTED)


async def test_a_promotion_by_hand_that_was_not_answered_is_not_done_twice(clock):
    """Asking again has no effect, and says so."""
    life = Life(clock, Mortal(0, False))
    await life.look()
    await life.start()
    await life.look()
    life.store.nth, life.store.after = life.store.num_calls + 1, True
    move = await life.alive(lambda: life.stage.desk.act("small-1", Action.PROMOTE, ANN, ""))
    assert life.num_deaths == 1
    assert (move.effective, move.rollout.state) == (False, State.PROMOTED)
    assert await life.history() == ["start", "step", "promote"]


def _changes(seen: list[dict[str, int]]) -> list[dict[str, int]]:
    """What traffic did, without what stayed the same."""
    return [now for before, now in zip([{}, *seen], seen, strict=False) if now != before]
