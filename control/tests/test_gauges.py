"""What the control plane shows Prometheus: lanes, alarms by origin, rollouts."""

from dataclasses import replace

from control_builders import instance, pair
from prometheus_client import CollectorRegistry
from serin_control.alarms import Alarms
from serin_control.assembly import Control
from serin_control.config import parse_config
from serin_control.gauges import add_gauges
from serin_control.instance import Service
from serin_control.judge.verdict import Verdict
from serin_control.lane_gauges import LaneGauges
from serin_control.latest import Latest
from serin_control.plan import declared_plan
from serin_control.rollout_gauges import FixedRollouts, RolloutFigures, add_rollout_gauges
from serin_control.topology import Topology, draw

PLAN = declared_plan(
    parse_config("models: {small: {versions: {v1: {path: x, weight: 3}, v2: {path: y, weight: 1}}}, other: {path: z}}")
)


def shown(*instances, plan=PLAN, carried=None) -> CollectorRegistry:
    """The lane gauges of what runs."""
    topologies: Latest[Topology] = Latest()
    registry = CollectorRegistry()
    registry.register(LaneGauges(topologies))
    topologies.set(draw(plan, instances, carried or {}).topology)
    return registry


def lane(version: str) -> dict[str, str]:
    """Labels of a lane of one version."""
    return {"model": "small", "tokenizer": version, "worker": version, "cache": ""}


def test_a_lane_shows_its_share_and_who_would_answer():
    """Workers that take calls count; what is kept although it is lost does not."""
    lost = instance("w9", version="v1", suspect=True, lost=True)
    registry = shown(*pair("v1", num_workers=2), lost, *pair("v2"))
    assert registry.get_sample_value("serin_control_lane_workers", lane("v1")) == 2
    assert registry.get_sample_value("serin_control_lane_workers", lane("v2")) == 1
    assert registry.get_sample_value("serin_control_lane_weight_ratio", lane("v1")) == 0.75
    assert registry.get_sample_value("serin_control_model_lanes", {"model": "small"}) == 2


def test_a_lane_that_is_wanted_and_absent_is_shown_without_workers():
    """A version with a share and no worker at all forms no lane: that is what somebody must hear of."""
    registry = shown(*pair("v1"), instance("t2", Service.TOKENIZER, "v2"))
    assert registry.get_sample_value("serin_control_lane_workers", lane("v2")) == 0
    assert registry.get_sample_value("serin_control_lane_weight_ratio", lane("v2")) == 0
    assert registry.get_sample_value("serin_control_model_lanes", {"model": "other"}) == 0


def test_a_lane_that_drains_wakes_nobody_and_hides_nothing():
    """Its workers may be gone; and it counts among those that would answer only where it has sessions."""
    lanes = draw(PLAN, [*pair("v1"), *pair("v2")], {}).topology.models[1].lanes
    small = replace(PLAN.models["small"], shares=PLAN.models["small"].shares[:1], draining=(lanes[1].versions,))
    drained = replace(PLAN, models={**PLAN.models, "small": small})
    carried = {"small": {lane.id: lane.versions for lane in lanes}}
    registry = shown(*pair("v1"), *pair("v2"), plan=drained, carried=carried)
    assert registry.get_sample_value("serin_control_lane_workers", lane("v2")) is None
    assert registry.get_sample_value("serin_control_model_lanes", {"model": "small"}) == 1
    registry = shown(*pair("v2"), plan=drained, carried=carried)
    assert registry.get_sample_value("serin_control_lane_workers", lane("v1")) == 0
    assert registry.get_sample_value("serin_control_model_lanes", {"model": "small"}) == 1


def test_alarms_are_counted_by_origin():
    """However many clients refuse, their alarms are one series."""
    alarms = Alarms()
    alarms.raise_("nack/1/CLUSTER", "one refuses")
    alarms.raise_("nack/2/CLUSTER", "another refuses")
    alarms.raise_("state", "the store is away")
    assert alarms.kinds() == {"nack": 2, "state": 1}
    control = Control()
    registry = CollectorRegistry()
    add_gauges(control, registry)
    assert registry.get_sample_value("serin_control_alarms_by_kind", {"kind": "nack"}) is None
    control.alarms.raise_("nack/1/CLUSTER", "one refuses")
    assert registry.get_sample_value("serin_control_alarms_by_kind", {"kind": "nack"}) == 1
    assert registry.get_sample_value("serin_control_lost_instances", {"service": "worker"}) == 0


def test_the_newest_rollout_of_a_model_is_shown():
    """One state and one verdict for each metric are 1, all others 0, so that a change is seen as one."""
    registry = CollectorRegistry()
    add_rollout_gauges(
        FixedRollouts(RolloutFigures("small", "waiting", 0.05, 412, 38, True, {"errors": Verdict.ABORT})), registry
    )

    def sample(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"serin_rollout_{name}", {"model": "small", **labels})

    assert sample("state", state="waiting") == 1
    assert sample("state", state="aborted") == 0
    assert sample("weight_ratio") == 0.05
    assert (sample("exposed_requests"), sample("exposed_sessions"), sample("starved")) == (412, 38, 1)
    assert sample("verdict", metric="errors", verdict="abort") == 1
    assert sample("verdict", metric="errors", verdict="wait") == 0
