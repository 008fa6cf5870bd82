"""Lanes: only compatible sets, whole weights, nothing taken from sessions that still run."""

from dataclasses import replace

from control_builders import OTHER_VOCABULARY, instance, pair
from hypothesis import given
from hypothesis import strategies as st
from serin_control.instance import Service, State
from serin_control.lanes import MAX_LIVE_LANES, WEIGHT_SUM, Lane, form_lanes, share_out
from serin_control.plan import ModelPlan, Share
from serin_mesh.identity import lane_digest


def plan(**weights: int) -> ModelPlan:
    """Versions and their weights, tokenizer and worker of one version together."""
    shares = [Share(((Service.TOKENIZER, v), (Service.WORKER, v)), weight) for v, weight in weights.items()]
    return ModelPlan("small", shares=tuple(shares))


def weights(lanes: tuple[Lane, ...]) -> dict[str, int]:
    """Weight by worker version, in the order of the lanes."""
    return {lane.members[1].version: lane.weight for lane in lanes}


def carried(*lanes: Lane) -> dict:
    """These lanes carried traffic."""
    return {lane.id: lane.versions for lane in lanes}


def test_a_lane_says_what_its_members_share():
    """Digest, vocabulary, KV digest, the smallest context, the cluster and endpoints of each member."""
    tokenizer, big = pair("v1")
    small = instance("w9", Service.WORKER, "v1")
    small = replace(small, status=replace(small.status, capacity=replace(small.status.capacity, context_length=128)))
    (lane,) = form_lanes(plan(v1=100), [tokenizer, big, small], {}).lanes
    assert lane.id == lane_digest(
        "small",
        {
            "tokenizer": ("v1", tokenizer.status.digests.artifact),
            "worker": ("v1", big.status.digests.artifact),
        },
    )
    assert (lane.vocabulary, lane.kv) == (big.status.digests.vocabulary, big.status.digests.kv)
    assert (lane.context_length, lane.block_size, lane.weight) == (128, 16, WEIGHT_SUM)
    assert [member.cluster for member in lane.members] == ["tokenizer.small@v1", "worker.small@v1"]
    assert len(lane.members[1].instances) == 2


def test_a_lane_needs_every_member():
    """A worker without a tokenizer serves nobody; one that starts is none yet."""
    tokenizer, worker = pair("v1")
    assert form_lanes(plan(v1=100), [worker], {}).lanes == ()
    starting = replace(worker, status=replace(worker.status, state=State.STARTING))
    assert form_lanes(plan(v1=100), [tokenizer, starting], {}).lanes == ()


def test_different_vocabularies_form_no_lane():
    """They are never published together, and somebody is told."""
    tokenizer, _ = pair("v1")
    _, worker = pair("v1", vocabulary=OTHER_VOCABULARY)
    formed = form_lanes(plan(v1=100), [tokenizer, worker], {})
    assert formed.lanes == ()
    assert formed.mismatched == (plan(v1=100).shares[0].versions,)
    assert formed.alarms == ("model small: tokenizer v1, worker v1 hold different vocabularies: they form no lane",)


def test_other_models_are_left_out():
    """A lane is of one model."""
    assert form_lanes(plan(v1=100), pair("v1", model="big"), {}).lanes == ()


def test_weights_follow_the_plan():
    """Declared weights become shares of 10,000, heaviest first."""
    lanes = form_lanes(plan(v1=90, v2=10), pair("v1") + pair("v2"), {}).lanes
    assert weights(lanes) == {"v1": 9000, "v2": 1000}


def test_a_canary_at_0_gets_nothing_until_it_gets_something():
    """A lane never begins at weight 0."""
    lanes = form_lanes(plan(v1=100, v2=0), pair("v1") + pair("v2"), {}).lanes
    assert weights(lanes) == {"v1": 10_000}


def test_a_lane_that_carried_traffic_keeps_1_of_10000():
    """At weight 0 sessions would lose their worker: the least weight stays while anything of the lane runs."""
    everything = pair("v1") + pair("v2")
    before = form_lanes(plan(v1=90, v2=10), everything, {}).lanes
    now = form_lanes(plan(v1=0, v2=100), everything, carried(*before)).lanes
    assert weights(now) == {"v2": 9999, "v1": 1}
    undeclared = form_lanes(plan(v2=100), everything, carried(*before)).lanes
    assert weights(undeclared) == {"v2": 9999, "v1": 1}
    gone = form_lanes(plan(v2=100), pair("v2"), carried(*before)).lanes
    assert weights(gone) == {"v2": 10_000}


def test_a_lane_that_drains_has_routes_and_no_sessions():
    """Weight 0 while another takes calls, lost or not; one that never carried traffic is not even there."""
    everything = pair("v1") + pair("v2", vocabulary=OTHER_VOCABULARY)
    before = form_lanes(plan(v1=90, v2=10), everything, {}).lanes
    draining = (before[1].versions,)
    for planned in (plan(v1=100), plan(v1=100, v2=0)):
        drained = replace(planned, draining=draining)
        assert weights(form_lanes(drained, everything, carried(*before)).lanes) == {"v1": 10_000, "v2": 0}
        lost = pair("v1") + pair("v2", vocabulary=OTHER_VOCABULARY, suspect=True, lost=True)
        assert weights(form_lanes(drained, lost, carried(*before)).lanes) == {"v1": 10_000, "v2": 0}
        silent = pair("v1", suspect=True, lost=True) + lost[-2:]
        assert weights(form_lanes(drained, silent, carried(*before)).lanes) == {"v1": 10_000, "v2": 0}
        assert weights(form_lanes(drained, everything, {}).lanes) == {"v1": 10_000}


def test_a_lane_that_drains_has_everything_while_it_alone_takes_calls():
    """Better its answers than none; once another takes calls again, it has none."""
    before = form_lanes(plan(v1=90, v2=10), pair("v1") + pair("v2"), {}).lanes
    drained = replace(plan(v1=100), draining=(before[1].versions,))
    assert weights(form_lanes(drained, pair("v2"), carried(*before)).lanes) == {"v2": 10_000}
    alone = pair("v1", suspect=True, lost=True) + pair("v2")
    assert weights(form_lanes(drained, alone, carried(*before)).lanes) == {"v2": 10_000, "v1": 0}
    assert weights(form_lanes(drained, pair("v1") + pair("v2"), carried(*before)).lanes) == {"v1": 10_000, "v2": 0}


def test_the_old_version_carries_all_until_the_new_one_runs():
    """Declaring v2 before it runs takes nothing down."""
    before = form_lanes(plan(v1=100), pair("v1"), {}).lanes
    now = form_lanes(plan(v2=100), pair("v1"), carried(*before)).lanes
    assert weights(now) == {"v1": 10_000}


def test_a_canary_that_disappears_leaves_everything_to_stable():
    """Lost, or all draining: new sessions go where they are answered; pinned ones keep their route."""
    for gone in ({"suspect": True, "lost": True}, {"state": State.DRAINING}):
        lanes = form_lanes(plan(v1=90, v2=10), pair("v1") + pair("v2", **gone), {}).lanes
        assert weights(lanes) == {"v1": 10_000, "v2": 0}


def test_what_had_the_traffic_last_stands_in_and_that_is_said():
    """Where nothing with a share takes calls, the first of what is kept has everything, the others the least weight."""
    kept = tuple(((Service.TOKENIZER, v), (Service.WORKER, v)) for v in ("v2", "v1"))
    planned = replace(plan(v3=100, v2=0, v1=0), kept=kept)
    everything = pair("v1") + pair("v2") + pair("v3")
    formed = form_lanes(planned, everything, {})
    assert (weights(formed.lanes), formed.alarms) == ({"v3": 9_998, "v1": 1, "v2": 1}, ())
    said = (
        "model small: nothing of {} takes calls: tokenizer v2, worker v2, which had the traffic before, answers until"
    )
    tokenizer, worker = pair("v3")
    lost = replace(worker, suspect=True, lost=True)
    for left, gone in (([tokenizer], "worker v3"), ([tokenizer, lost], "worker v3"), ([], "tokenizer v3, worker v3")):
        formed = form_lanes(planned, pair("v1") + pair("v2") + left, {})
        assert {version: weight for version, weight in weights(formed.lanes).items() if weight} == {
            "v2": 9_999,
            "v1": 1,
        }
        (alarm,) = formed.alarms
        assert alarm.startswith(said.format(gone))
    assert weights(form_lanes(planned, pair("v1"), {}).lanes) == {"v1": 10_000}


def test_when_everything_is_lost_everything_stays():
    """The fault may be ours: shares stay as they were."""
    lanes = form_lanes(
        plan(v1=90, v2=10), pair("v1", suspect=True, lost=True) + pair("v2", suspect=True, lost=True), {}
    ).lanes
    assert weights(lanes) == {"v1": 9000, "v2": 1000}


def test_few_lanes_are_published():
    """A fifth version costs every client connections: the heaviest stay, somebody is told."""
    versions = {f"v{n}": 10 * n for n in range(1, 7)}
    everything = [one for version in versions for one in pair(version)]
    formed = form_lanes(plan(**versions), everything, {})
    assert list(weights(formed.lanes)) == ["v6", "v5", "v4", "v3"]
    assert sum(lane.weight for lane in formed.lanes) == WEIGHT_SUM
    assert formed.alarms == (f"model small: 6 lanes run, at most {MAX_LIVE_LANES} are published",)


def test_sets_may_mix_versions():
    """A plan can move one service alone, as a rollout does."""
    mixed = ModelPlan(
        "small",
        shares=(
            Share(((Service.TOKENIZER, "v1"), (Service.WORKER, "v1")), 99),
            Share(((Service.TOKENIZER, "v1"), (Service.WORKER, "v2")), 1),
        ),
    )
    lanes = form_lanes(mixed, pair("v1") + pair("v2"), {}).lanes
    assert [lane.members[0].version for lane in lanes] == ["v1", "v1"]
    assert weights(lanes) == {"v1": 9900, "v2": 100}


@given(st.lists(st.integers(0, 10_000), max_size=8))
def test_shares_are_whole_fair_and_complete(parts: list[int]):
    """They sum to 10,000, none is 0, none is further than 1 + one in 10,000 from its exact share, order is kept."""
    shares = share_out(parts)
    assert len(shares) == len(parts)
    if not parts:
        return
    assert sum(shares) == WEIGHT_SUM
    assert min(shares) >= 1
    total = sum(parts) or len(parts)
    for part, share in zip(parts if any(parts) else [1] * len(parts), shares, strict=True):
        assert abs(share - WEIGHT_SUM * part / total) <= len(parts) + 1
    assert all(shares[i] <= shares[j] for i in range(len(parts)) for j in range(len(parts)) if parts[i] < parts[j])


worlds = st.fixed_dictionaries(
    {
        version: st.tuples(
            st.booleans(), st.sampled_from([State.READY, State.DRAINING, State.STARTING]), st.booleans(), st.booleans()
        )
        for version in ("v1", "v2", "v3")
    }
)


@given(
    worlds,
    st.dictionaries(st.sampled_from(["v1", "v2", "v3"]), st.integers(0, 100), min_size=1),
    st.booleans(),
    st.sampled_from(["", "v1", "v2", "v3"]),
)
def test_whatever_runs_lanes_are_sound(world, declared, remember, drains):
    """Members compatible, weights whole, traffic never on the dead while something lives, all of it somewhere."""
    everything = []
    for version, (runs, state, lost, other) in world.items():
        vocabulary = {"vocabulary": OTHER_VOCABULARY} if other else {}
        everything += pair(version, state=state, suspect=lost, lost=lost, **vocabulary) if runs else []
    memory = carried(*form_lanes(plan(v1=1, v2=1, v3=1), everything, {}).lanes) if remember else {}
    draining = ((Service.TOKENIZER, drains), (Service.WORKER, drains))
    lanes = form_lanes(replace(plan(**declared), draining=(draining,)), everything, memory).lanes
    others = [lane for lane in lanes if lane.versions != draining]
    able = [lane for lane in lanes if lane.takes_calls]
    drawn = [lane for lane in others if lane.takes_calls] or able or others
    assert sum(lane.weight for lane in lanes) == (WEIGHT_SUM if drawn else 0)
    assert {lane.id for lane in lanes if lane.weight} == {lane.id for lane in drawn}
    assert len({lane.id for lane in lanes}) == len(lanes) <= MAX_LIVE_LANES
    for lane in lanes:
        held = {one.status.digests.vocabulary for member in lane.members for one in member.instances}
        assert held == {lane.vocabulary}
        assert all(member.instances for member in lane.members)
