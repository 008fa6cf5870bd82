"""What rollouts make of a model's plan, and what that makes of its lanes."""

from dataclasses import replace

from control_builders import pair
from control_rollouts import CANARY, STABLE, rollout, versions
from serin_control.instance import Service
from serin_control.lanes import WEIGHT_SUM, form_lanes
from serin_control.plan import ModelPlan, Share, TrafficPlan, Trial
from serin_control.rollouts.rollout import Arms, Hold, State
from serin_control.rollouts.settling import after
from serin_control.rollouts.standing import DRAIN_S, KEEP_S, Standing
from serin_control.rollouts.steering import Steering, split, steered

DECLARED = (Share(versions("v1"), 100), Share(versions("v2", "v2"), 0))
V2 = (Share(versions("v2"), WEIGHT_SUM),)
PLAN = ModelPlan("small", shares=DECLARED)
EVERYTHING = [one for version in ("v1", "v2", "v3") for one in pair(version)]


def weights(shares):
    """Weight by worker version."""
    return {dict(share.versions)["worker"]: share.weight for share in shares}


def published(plan, carried=None):
    """Weight of each lane by its versions, and the lanes to carry."""
    lanes = form_lanes(plan, EVERYTHING, carried or {}).lanes
    return {lane.versions: lane.weight for lane in lanes}, {lane.id: lane.versions for lane in lanes if lane.weight}


def test_a_running_rollout_replaces_the_plan():
    """The canary has its weight, the old versions share the rest, what is declared beside them nothing."""
    steering = Steering({"small": rollout(weight=100)}, {})
    plan = steering(TrafficPlan({"small": PLAN, "other": replace(PLAN, name="other")}))
    found, _ = published(plan.models["small"])
    assert found == {versions("v1"): 9_900, versions("v2"): 100}
    assert plan.models["other"].shares == DECLARED


def test_old_versions_keep_their_proportions():
    """Whole numbers, all of them together 10,000."""
    arms = replace(rollout().arms, stable=(Share(versions("v3"), 2), Share(versions("v1"), 1)))
    found = weights(split(rollout(arms=arms, weight=1_000)))
    assert found == {"v3": 6_000, "v1": 3_000, "v2": 1_000}


def test_a_baseline_is_as_large_as_the_canary_while_there_is_room():
    """Beside half and more of the traffic it has what is left."""
    arms = replace(rollout().arms, baseline=versions("v1-baseline"))
    assert weights(split(rollout(arms=arms, weight=500))) == {"v1": 9_000, "v1-baseline": 500, "v2": 500}
    assert weights(split(rollout(arms=arms, weight=7_500))) == {"v1-baseline": 2_500, "v2": 7_500}
    assert weights(split(rollout(arms=arms, weight=0))) == {"v1": 10_000}


def test_gateways_hear_of_the_comparison_while_there_is_one():
    """Both lanes and how much is scored; nothing before traffic, after the end, or without a canary."""
    running = rollout(weight=100, stable_lane=STABLE, canary_lane=CANARY)
    assert steered(PLAN, None, running).trial == Trial("small-1", STABLE, CANARY, 0.2, 0.25)
    for other in (
        replace(running, weight=0),
        replace(running, hold=Hold.CANARY),
        replace(running, state=State.ABORTED),
        replace(running, canary_lane=""),
    ):
        assert steered(PLAN, None, other).trial is None


def test_after_a_promotion_the_old_lane_keeps_the_least_weight_for_a_day():
    """1 of 10,000 while it is kept, then nothing although it runs."""
    _, carried = published(steered(PLAN, None, rollout(weight=5_000)))
    standing = Standing("small", DECLARED[:1]).moved_to(V2, DECLARED[:1], 1000.0)
    found, carried = published(steered(PLAN, standing, None), carried)
    assert found == {versions("v2"): 9_999, versions("v1"): 1}
    assert published(steered(PLAN, standing, None))[0] == found, "also where nobody remembers that it carried traffic"
    over = standing.expired(1000.0 + KEEP_S)
    found, _ = published(steered(PLAN, over, None), carried)
    assert found == {versions("v2"): 10_000}
    assert standing.expired(999.0 + KEEP_S) == standing


def test_a_canary_that_was_taken_back_drains():
    """A lane without new sessions while its answers end; then none, until a rollout gives it something again."""
    _, carried = published(steered(PLAN, None, rollout(weight=5_000)))
    standing = Standing("small", DECLARED[:1]).taken_back(versions("v2"), 1000.0)
    found, _ = published(steered(PLAN, standing, None), carried)
    assert found == {versions("v1"): 10_000, versions("v2"): 0}
    over = standing.expired(1000.0 + DRAIN_S)
    found, _ = published(steered(PLAN, over, None), carried)
    assert found == {versions("v1"): 10_000}
    found, _ = published(steered(PLAN, over, rollout(weight=100)), carried)
    assert found == {versions("v1"): 9_900, versions("v2"): 100}


def test_a_canary_without_sessions_drains_while_its_rollout_goes_on():
    """Paused because it was gone: no new session, whatever was kept or retired before; so does its baseline."""
    arms = replace(rollout().arms, baseline=versions("v3"))
    paused = rollout(arms=arms, state=State.PAUSED, hold=Hold.CANARY, weight=0)
    past = Standing("small", DECLARED[:1], retired=(versions("v2"), versions("v3")))
    _, carried = published(steered(PLAN, past, replace(paused, weight=100, state=State.RUNNING)))
    for standing in (None, past, past.taken_back(versions("v2"), 1000.0)):
        plan = steered(PLAN, standing, paused)
        assert plan.draining == (versions("v2"), versions("v3"))
        found, _ = published(plan, carried)
        assert found == {versions("v1"): WEIGHT_SUM, versions("v2"): 0, versions("v3"): 0}
    assert steered(PLAN, past, rollout(weight=100)).draining == ()


def test_what_was_taken_back_is_retired_also_where_it_is_declared():
    """A version that stands in `serin.yaml` with the weight 0, as those do that `serin add` brings."""
    declared = replace(PLAN, shares=(DECLARED[0], Share(versions("v2"), 0)))
    _, carried = published(steered(declared, None, rollout(weight=5_000)))
    standing = Standing("small", DECLARED[:1]).taken_back(versions("v2"), 1000.0)
    assert published(steered(declared, standing, None), carried)[0] == {versions("v1"): 10_000, versions("v2"): 0}
    over = standing.expired(1000.0 + DRAIN_S)
    assert published(steered(declared, over, None), carried)[0] == {versions("v1"): 10_000}


def test_going_back_is_going_back_to_what_was():
    """Shares as they were before; what is left is kept in its turn."""
    standing = Standing("small", DECLARED[:1]).moved_to(V2, DECLARED[:1], 1000.0)
    back = standing.moved_to(standing.previous, V2, 2000.0)
    assert weights(back.shares) == {"v1": 100}
    assert [kept.versions for kept in back.kept] == [versions("v2")]
    assert weights(back.previous) == {"v2": WEIGHT_SUM}


def test_who_stands_in_is_who_had_the_traffic_last():
    """The release before, then the one before that; what somebody went back from comes after all others."""
    v1, v2, v3 = ((Share(versions(name), WEIGHT_SUM),) for name in ("v1", "v2", "v3"))
    standing = Standing("small", DECLARED[:1]).moved_to(v2, v1, 1000.0).moved_to(v3, v2, 2000.0)
    assert steered(PLAN, standing, None).kept == (versions("v2"), versions("v1"))
    back = standing.back_at(v2, v3, 3000.0)
    assert steered(PLAN, back, None).kept == (versions("v1"), versions("v3"))
    left = [one for one in EVERYTHING if one.registration.instance != "w0-small-v2"]
    lanes = form_lanes(steered(PLAN, back, None), left, {}).lanes
    assert {lane.versions: lane.weight for lane in lanes} == {versions("v1"): 9_999, versions("v3"): 1}
    again = back.moved_to(v3, v2, 4000.0).moved_to(v1, v3, 5000.0)
    assert steered(PLAN, again, None).kept == (versions("v3"), versions("v2")), "a promotion forgives"


def test_a_service_that_all_models_share_is_split_by_version():
    """While its rollout runs, and as that left it; models are left alone."""
    arms = Arms((Share(((Service.GATEWAY, "v1"),), 3),), ((Service.GATEWAY, "v2"),))
    running = rollout(arms=arms, weight=100, spec={"service": Service.GATEWAY}, stable_lane="a", canary_lane="b")
    steered_plan = Steering({"small": running})(TrafficPlan({"small": PLAN}))
    assert steered_plan.service_shares == {Service.GATEWAY: {"v1": 9_900, "v2": 100}}
    assert (steered_plan.models["small"].shares, steered_plan.models["small"].trial) == (DECLARED, None)
    aborted = after(replace(running, state=State.ABORTED, was_able=True), Standing("@gateway", ()), (), 5.0)
    left = Steering({}, {"@gateway": aborted})(TrafficPlan({"small": PLAN}))
    assert left.service_shares == {Service.GATEWAY: {"v1": 10_000, "v2": 1}}
    anew = TrafficPlan({"small": PLAN}, service_shares={Service.GATEWAY: {"v3": 1}})
    assert Steering({}, {"@gateway": aborted})(anew).service_shares == {Service.GATEWAY: {"v3": 1}}


def test_promotions_count_until_somebody_changes_the_shares():
    """A further version of weight 0 is no change; another weight is."""
    standing = Standing("small", DECLARED[:1]).moved_to(V2, DECLARED[:1], 1000.0)
    more = replace(PLAN, shares=(*DECLARED, Share(versions("v3", "v3"), 0)))
    assert steered(more, standing, None).shares[0] == Share(versions("v2"), WEIGHT_SUM)
    other = replace(PLAN, shares=(Share(versions("v1"), 50), Share(versions("v3", "v3"), 50)))
    found = weights(steered(other, standing, None).shares)
    assert (found["v1"], found["v3"]) == (50, 50)
