"""Lanes with a cache of their own: named like any other lane, there whether their cache is or not, routed apart."""

from control_builders import instance, pair
from serin_control.config import parse_config
from serin_control.instance import Service, State
from serin_control.lanes import form_lanes, with_shared, with_version
from serin_control.plan import ModelPlan, Share, TrafficPlan, declared_plan
from serin_control.services.messages import lanes_message
from serin_control.topology import draw
from serin_control.xds.routes import target_routes
from serin_control.xds.routing import inconsistencies, route

PLAIN = ((Service.TOKENIZER, "v1"), (Service.WORKER, "v1"))
OWN = (*PLAIN, (Service.CACHE, "v2"))
SPLIT = ModelPlan("small", shares=(Share(PLAIN, 90), Share(OWN, 10)))
CACHES = [instance("c1", Service.CACHE, "v1", port=1), instance("c2", Service.CACHE, "v2", port=2)]


def topology(*instances):
    """What is drawn of both lanes; version v1 of the cache is declared."""
    plan = TrafficPlan({"small": SPLIT}, service_shares={Service.CACHE: {"v1": 1}})
    return draw(plan, [*pair("v1"), *instances], {}).topology


def test_a_set_with_another_cache_is_another_lane():
    """All else is shared: same workers, same vocabulary, same KV."""
    plain, own = form_lanes(SPLIT, [*pair("v1"), *CACHES], {}).lanes
    assert (plain.versions, own.versions) == (PLAIN, OWN)
    assert (plain.weight, own.weight) == (9000, 1000)
    assert plain.id != own.id
    assert (plain.kv, plain.vocabulary) == (own.kv, own.vocabulary)
    assert plain.members == own.members[:2]


def test_a_cache_that_is_gone_costs_its_lane_nothing_but_hits():
    """The lane keeps its name, its weight and its sessions."""
    before = form_lanes(SPLIT, [*pair("v1"), *CACHES], {}).lanes
    for left in ([], [instance("c2", Service.CACHE, "v2", state=State.DRAINING)]):
        lanes = form_lanes(SPLIT, [*pair("v1"), *left], {}).lanes
        assert [(lane.id, lane.weight) for lane in lanes] == [(lane.id, lane.weight) for lane in before]
        assert all(lane.takes_calls for lane in lanes)


def test_recalls_of_a_lane_go_to_its_own_cache():
    """And those of every other lane to the declared version."""
    drawn = topology(*CACHES)
    routing = route(drawn)
    own = next(lane for lane in drawn.models[0].lanes if lane.versions == OWN)
    target = routing.targets["cache"]
    assert target.pinned == ((own.id, "cache@v2"),)
    assert target.split == (("cache@v1", 10_000),)
    assert list(inconsistencies(routing)) == []
    ours, rest = target_routes(target)
    assert ours.match.headers[0].string_match.exact == own.id
    assert (ours.route.cluster, rest.route.cluster) == ("cache@v2", "cache@v1")


def test_while_it_takes_no_calls_its_lane_shares_the_others():
    """Nothing is refused: the call finds the declared version, or nobody."""
    routing = route(topology(CACHES[0], instance("c2", Service.CACHE, "v2", state=State.DRAINING)))
    assert (routing.targets["cache"].pinned, routing.targets["cache"].split) == ((), (("cache@v1", 10_000),))
    nobody = route(topology())
    assert (nobody.targets["cache"].pinned, nobody.targets["cache"].split) == ((), ())
    assert list(inconsistencies(nobody)) == []


def test_gateways_are_told_which_cache_a_lane_has():
    """As its last member; lanes that share one name none."""
    message = lanes_message(topology(*CACHES), 1)
    members = {
        lane.weight: [(m.service, m.version, m.cluster) for m in lane.members] for lane in message.models[0].lanes
    }
    assert members[1000][2:] == [(4, "v2", "cache@v2")]
    assert len(members[9000]) == 2


def test_what_is_declared_names_no_cache():
    """A mesh without a rollout of it has the lanes that it always had."""
    plan = declared_plan(parse_config("models: {small: {path: x}}\ncache: {version: v7}"))
    assert [service for service, _ in plan.models["small"].shares[0].versions] == [Service.TOKENIZER, Service.WORKER]


def test_sets_are_changed_and_completed_in_their_order():
    """Tokenizer and worker first, the cache last."""
    assert with_version(PLAIN, [Service.CACHE], "v2") == OWN
    assert with_version(OWN, [Service.WORKER], "v3") == ((Service.TOKENIZER, "v1"), (Service.WORKER, "v3"), OWN[2])
    assert with_shared(PLAIN, {Service.CACHE: "v2"}) == OWN
    assert with_shared(OWN, {Service.CACHE: "v1"}) == OWN
