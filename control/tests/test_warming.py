"""A new lane gets sessions once callers know it: no sooner, and not much later."""

from dataclasses import replace

import pytest
from control_builders import pair
from control_rollouts import versions
from serin_control.instance import State
from serin_control.lanes import Lane
from serin_control.latest import Latest
from serin_control.plan import ModelPlan, Share, TrafficPlan, Trial
from serin_control.topology import Topology, draw
from serin_control.warming import PATIENCE_S, Warming

RUNNING = [*pair("v1"), *pair("v2"), *pair("v3")]


class Scene:
    """What is drawn, what is published of it, and the versions that callers know."""

    def __init__(self, clock) -> None:
        self.known: set[str] = set()
        self.published: Latest[Topology] = Latest()
        self._names: dict[str, str] = {}
        self._drawn: Latest[Topology] = Latest()
        self._warming = Warming(self._drawn, self.published, self._is_known, clock)

    def draw(self, instances=RUNNING, compared: str = "", **weights: int) -> dict[str, int]:
        """Have versions share the traffic; what is published of it."""
        shares = tuple(Share(versions(version, version), weight) for version, weight in weights.items())
        plan = ModelPlan("small", shares=shares)
        (model,) = draw(TrafficPlan({"small": plan}), instances, {}).topology.models
        self._names |= {lane.id: lane.members[1].version for lane in model.lanes}
        lanes = {version: lane for lane, version in self._names.items()}
        trial = Trial("r1", lanes["v1"], lanes[compared], 0.2, 0.25) if compared else None
        self._drawn.set(Topology((replace(model, plan=replace(plan, trial=trial)),)))
        return self.look()

    def _is_known(self, model: str, lane: Lane) -> bool:
        return model == "small" and self._names[lane.id] in self.known

    def look(self) -> dict[str, int]:
        """Look again; what is published."""
        self._warming.look()
        (model,) = self.published.value.models
        return {lane.members[1].version: lane.weight for lane in model.lanes}


@pytest.fixture
def scene(clock) -> Scene:
    """Nothing is drawn yet."""
    return Scene(clock)


def test_a_new_lane_is_there_without_sessions_until_callers_know_it(scene):
    """The others have them meanwhile, and nothing is compared with it; whoever is known changes weight at once."""
    assert scene.draw(v1=100) == {"v1": 10_000}, "nobody else could take them"
    assert scene.draw(v1=99, v2=1, compared="v2") == {"v1": 10_000, "v2": 0}
    assert scene.published.value.models[0].plan.trial is None
    version = scene.published.version
    assert (scene.look(), scene.published.version) == ({"v1": 10_000, "v2": 0}, version)
    scene.known = {"v2"}
    assert scene.look() == {"v1": 9_900, "v2": 100}
    assert scene.published.value.models[0].plan.trial is not None
    scene.known = set()
    assert scene.draw(v1=50, v2=50) == {"v1": 5_000, "v2": 5_000}
    assert scene.draw(v1=50, v2=25, v3=25) == {"v1": 6_667, "v2": 3_333, "v3": 0}


def test_who_does_not_answer_is_not_waited_for_long(scene, clock):
    """A caller that hangs keeps nobody from a release."""
    scene.draw(v1=100)
    scene.draw(v1=50, v2=50)
    clock.advance(PATIENCE_S - 0.1)
    assert scene.draw(v1=40, v2=60) == {"v1": 10_000, "v2": 0}
    clock.advance(0.1)
    assert scene.look() == {"v1": 4_000, "v2": 6_000}


def test_a_lane_that_came_back_is_new_again(scene):
    """Callers may have forgotten it."""
    scene.known = {"v2"}
    scene.draw(v1=100)
    scene.draw(v1=50, v2=50)
    scene.known = set()
    assert scene.draw(RUNNING[:2], v1=50, v2=50) == {"v1": 10_000}
    assert scene.draw(v1=50, v2=50) == {"v1": 10_000, "v2": 0}


def test_where_no_other_lane_takes_calls_nobody_waits(scene):
    """Sessions that would have nowhere to go are better off on their way."""
    scene.draw(v1=100)
    dying = [
        replace(one, status=replace(one.status, state=State.DRAINING)) if one.registration.version == "v1" else one
        for one in RUNNING
    ]
    assert scene.draw(dying, v1=50, v2=50)["v2"] == 10_000
