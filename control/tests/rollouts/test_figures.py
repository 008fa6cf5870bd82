"""What Prometheus is shown: the newest rollout of each model, on whoever leads and whoever follows."""

from control_engine import ANN, Stage
from control_rollouts import spec
from serin_control.rollouts.desk import Action
from serin_control.rollouts.figures import NewestRollouts
from serin_control.rollouts.spec import Step
from serin_control.rollouts.store import MemoryRollouts


async def test_the_newest_rollout_is_shown_while_it_runs_and_after(clock):
    """State, weight, exposure and verdicts; a follower and a restart show the same."""
    store = MemoryRollouts()
    leader, follower = Stage(clock, store), Stage(clock, store, "c2")
    shown, also = NewestRollouts(leader.engine), NewestRollouts(follower.engine)
    await leader.look()
    assert list(shown.figures()) == []
    await leader.desk.start(spec(), "", ANN)
    await leader.look()
    leader.observe(4)
    await leader.look()
    (now,) = shown.figures()
    assert (now.model, now.state, now.weight_ratio, now.num_exposed_requests) == ("small", "running", 0.01, 4)
    assert (set(now.verdicts), now.is_starved) == ({"errors"}, False)
    await leader.desk.act("small-1", Action.ABORT, ANN, "")
    for figures in (shown, also):
        await follower.look()
        assert [(one.state, one.weight_ratio) for one in figures.figures()] == [("aborted", 0.0)]


async def test_a_rollout_without_samples_is_starved(clock):
    """Half its step's time is over and few came; or it paused for want of them."""
    stage = Stage(clock)
    await stage.look()
    await stage.desk.start(spec(steps=(Step(100, 10, 100.0),)), "", ANN)
    await stage.look()
    assert not next(iter(NewestRollouts(stage.engine).figures())).is_starved
    for seconds, state in ((60.0, "running"), (60.0, "paused")):
        await stage.look(seconds)
        (now,) = NewestRollouts(stage.engine).figures()
        assert (now.state, now.is_starved) == (state, True)
