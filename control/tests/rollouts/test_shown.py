"""The newest rollout of each model is shown, running or ended, by leaders and followers."""

import pytest
from control_engine import ANN, Stage
from control_rollouts import spec
from serin_control.errors import StoreDown
from serin_control.judge.verdict import Verdict
from serin_control.rollouts.desk import Action
from serin_control.rollouts.shown import NewestRollouts


@pytest.fixture
def stage(clock) -> Stage:
    """A control plane that leads a store of its own."""
    return Stage(clock)


async def test_a_rollout_is_shown_from_its_start_to_the_next_one(stage, clock):
    """State, weight and exposure as they are now; after its end as it ended; a follower shows the same."""
    await stage.look()
    newest = NewestRollouts(stage.engine)
    assert list(newest.figures()) == []
    started = await stage.desk.start(spec(), "", ANN)
    await stage.look()
    await stage.look()
    stage.observe(3)
    stage.arbiter(started.id).verdict = Verdict.WAIT
    await stage.look()
    await newest.follow()
    (shown,) = newest.figures()
    assert (shown.model, shown.state, shown.num_exposed_requests) == ("small", "running", 3)
    assert 0 < shown.weight_ratio < 1
    await stage.desk.act(started.id, Action.ABORT, ANN, "seen enough")
    await newest.follow()
    (shown,) = newest.figures()
    assert (shown.state, shown.num_exposed_requests, shown.is_starved) == ("aborted", 3, False)
    other = Stage(clock, stage.store, name="c2")
    await other.look()
    follower = NewestRollouts(other.engine)
    await follower.follow()
    assert list(follower.figures()) == [shown]


async def test_a_store_that_is_down_shows_the_last(stage):
    """What was known stays shown, and what was missed is read when the store is back."""
    await stage.look()
    newest = NewestRollouts(stage.engine)
    started = await stage.desk.start(spec(), "", ANN)
    await newest.follow()
    read = stage.store.rollouts

    async def away(*_):
        raise StoreDown("away")

    stage.store.rollouts = away
    await stage.desk.act(started.id, Action.ABORT, ANN, "seen enough")
    await newest.follow()
    stage.store.rollouts = read
    await newest.follow()
    (shown,) = newest.figures()
    assert shown.state == "aborted"
