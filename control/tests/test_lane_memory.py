"""Which lanes are remembered: those that carried traffic, a while longer than they are there, and never for good."""

from dataclasses import replace

import pytest
from control_builders import OTHER_VOCABULARY, pair
from serin_control.instance import Service
from serin_control.lane_memory import FORGET_AFTER_S, LaneMemory
from serin_control.lanes import Lane
from serin_control.plan import ModelPlan, Share, TrafficPlan
from serin_control.topology import draw

V1, V2 = (((Service.TOKENIZER, v), (Service.WORKER, v)) for v in ("v1", "v2"))
BOTH = ModelPlan("small", shares=(Share(V1, 90), Share(V2, 10)))
STABLE = ModelPlan("small", shares=(Share(V1, 100),))
DRAINED = replace(STABLE, draining=(V2,))
OLD, NEW = pair("v1"), pair("v2", vocabulary=OTHER_VOCABULARY)


class Mesh:
    """A control plane's drawing and its memory; what runs is what a test says."""

    def __init__(self, clock) -> None:
        self.memory = LaneMemory(clock)

    def draw(self, plan: ModelPlan, *instances) -> dict[str, Lane]:
        """Lanes by the version of their worker."""
        topology = draw(TrafficPlan({plan.name: plan}), instances, self.memory.carried).topology
        self.memory.note(topology)
        return {lane.members[1].version: lane for lane in topology.models[0].lanes}

    @property
    def remembered(self) -> set[str]:
        """Versions of the workers of what is remembered."""
        return {dict(versions)[Service.WORKER] for versions in self.memory.carried.get("small", {}).values()}


@pytest.fixture
def mesh(clock) -> Mesh:
    """One whose two versions have had traffic."""
    mesh = Mesh(clock)
    mesh.draw(BOTH, *OLD, *NEW)
    assert mesh.remembered == {"v1", "v2"}
    return mesh


def test_only_lanes_that_had_traffic_are_remembered(clock):
    """A lane that was never drawn is not."""
    mesh = Mesh(clock)
    assert set(mesh.draw(ModelPlan("small", shares=(Share(V1, 1), Share(V2, 0))), *OLD, *NEW)) == {"v1"}
    assert mesh.remembered == {"v1"}


def test_a_lane_that_is_away_for_a_moment_comes_back(mesh, clock):
    """Its tokenizer starts again: nobody plans it any more, and it is there again with what still runs on it."""
    _, worker = NEW
    assert set(mesh.draw(STABLE, *OLD, worker)) == {"v1"}
    clock.advance(FORGET_AFTER_S - 1)
    assert set(mesh.draw(STABLE, *OLD, *NEW)) == {"v1", "v2"}
    clock.advance(2 * FORGET_AFTER_S)
    assert set(mesh.draw(STABLE, *OLD, *NEW)) == {"v1", "v2"}


def test_a_lane_that_stays_away_is_forgotten(mesh, clock):
    """However often it is looked for, and also where nothing was drawn since."""
    for _ in range(2):
        mesh.draw(STABLE, *OLD)
        clock.advance(FORGET_AFTER_S / 2)
    assert mesh.remembered == {"v1"}
    assert set(mesh.draw(STABLE, *OLD, *NEW)) == {"v1"}
    assert mesh.remembered == {"v1"}


def test_a_lane_that_drains_is_remembered_while_it_drains(mesh, clock):
    """However long it is away: its rollout has not ended, or only just has. Then it is forgotten like any other."""
    mesh.draw(DRAINED, *OLD)
    clock.advance(100 * FORGET_AFTER_S)
    assert mesh.remembered == {"v1", "v2"}
    back = mesh.draw(DRAINED, *OLD, *NEW)
    assert (back["v1"].weight, back["v2"].weight) == (10_000, 0)
    mesh.draw(DRAINED, *OLD)
    mesh.draw(STABLE, *OLD)
    clock.advance(FORGET_AFTER_S)
    assert set(mesh.draw(STABLE, *OLD, *NEW)) == {"v1"}


def test_a_lane_that_is_retired_is_forgotten_at_once(mesh):
    """It has had its time."""
    assert set(mesh.draw(replace(STABLE, retired=(V2,)), *OLD, *NEW)) == {"v1"}
    assert mesh.remembered == {"v1"}
    assert set(mesh.draw(STABLE, *OLD, *NEW)) == {"v1"}


def test_what_was_stored_is_remembered(mesh, clock):
    """Beside what this process has seen itself; nothing of models that are declared no more."""
    after = Mesh(clock)
    after.draw(STABLE, *OLD)
    after.memory.restore({**mesh.memory.carried, "other": {"x": V1}})
    assert set(after.draw(DRAINED, *OLD, *NEW)) == {"v1", "v2"}
    assert set(after.memory.carried) == {"small"}
