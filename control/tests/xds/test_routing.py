"""Routing: every target's lanes, splits and clusters; empty never replaces full; what would break clients is named."""

from dataclasses import replace

from control_builders import instance, pair
from hypothesis import given
from hypothesis import strategies as st
from serin_control.config import parse_config
from serin_control.instance import Service, State
from serin_control.plan import declared_plan
from serin_control.topology import draw
from serin_control.xds.routing import Cluster, Endpoint, Routing, Target, carry_over, inconsistencies, linger, route

CONFIG = "models: {small: {versions: {v1: {path: x, weight: 90}, v2: {path: y, weight: 10}}}}"


def routing_of(*instances) -> Routing:
    """Routing when these run."""
    return route(draw(declared_plan(parse_config(CONFIG)), instances, {}).topology)


def test_a_target_routes_lanes_vocabularies_and_the_rest():
    """Exact lanes first, then the weights of each vocabulary, then of all."""
    routing = routing_of(*pair("v1"), *pair("v2", vocabulary="dd"))
    target = routing.targets["worker.small"]
    assert [cluster for _, cluster in target.pinned] == ["worker.small@v1", "worker.small@v2"]
    assert dict(target.by_vocabulary) == {"aa" * 16: (("worker.small@v1", 9000),), "dd": (("worker.small@v2", 1000),)}
    assert target.split == (("worker.small@v1", 9000), ("worker.small@v2", 1000))
    assert {lane for lane, _ in target.pinned} == {lane for lane, _ in routing.targets["tokenizer.small"].pinned}


def test_a_lane_that_drains_has_its_route_and_its_vocabulary():
    """Calls that name it, or carry its ids, reach it, though nothing may take a call; no other does."""
    plan = declared_plan(parse_config(CONFIG))
    old, new = pair("v1"), pair("v2", vocabulary="dd")
    lanes = draw(plan, [*old, *new], {}).topology.models[0].lanes
    carried = {"small": {lane.id: lane.versions for lane in lanes}}
    drained = replace(plan, models={"small": replace(plan.models["small"], draining=(lanes[1].versions,))})
    for running in ([*old, *new], pair("v2", vocabulary="dd", suspect=True, lost=True)):
        routing = route(draw(drained, running, carried).topology)
        assert list(inconsistencies(routing)) == []
        for service in ("tokenizer", "worker"):
            target = routing.targets[f"{service}.small"]
            assert (lanes[1].id, f"{service}.small@v2") in target.pinned
            assert dict(target.by_vocabulary)["dd"] == ((f"{service}.small@v2", 10_000),)
            assert f"{service}.small@v2" not in dict(target.split)
    alike = [*old, *pair("v2")]
    both = draw(plan, alike, {}).topology.models[0].lanes
    routing = route(draw(drained, alike, {"small": {lane.id: lane.versions for lane in both}}).topology)
    assert dict(routing.targets["worker.small"].by_vocabulary) == {"aa" * 16: (("worker.small@v1", 10_000),)}


def test_clusters_hold_their_endpoints():
    """Ready and suspect ones take calls, draining ones are marked, starting ones are absent."""
    w = [
        instance(f"w{n}", port=21_000 + n, state=s) for n, s in enumerate([State.READY, State.DRAINING, State.STARTING])
    ]
    routing = routing_of(pair("v1")[0], *w)
    assert routing.clusters["worker.small@v1"].endpoints == (
        Endpoint("127.0.0.1", 21_000),
        Endpoint("127.0.0.1", 21_001, draining=True),
    )


def test_gateways_are_routed_twice():
    """GRPC and REST are two clusters of one instance; a gateway without REST is only in the first."""
    g1 = instance("g1", Service.GATEWAY, "0.1", port=9001, http_endpoint="127.0.0.1:8001")
    g2 = instance("g2", Service.GATEWAY, "0.2", port=9002)
    routing = routing_of(g1, g2)
    assert routing.targets["gateway"].split == (("gateway@0.1", 5000), ("gateway@0.2", 5000))
    assert routing.targets["gateway-rest"].split == (("gateway-rest@0.1", 10_000),)
    assert routing.clusters["gateway-rest@0.1"] == Cluster(
        "gateway-rest@0.1", Service.GATEWAY, (Endpoint("127.0.0.1", 8001),), http1=True
    )


def test_versions_of_the_cache_share_by_size():
    """A rolling update between versions that serin.yaml does not name moves calls as instances move."""
    caches = [
        instance("c1", Service.CACHE, "0.1", port=1),
        instance("c2", Service.CACHE, "0.1", port=2),
        instance("c3", Service.CACHE, "0.2", port=3),
    ]
    split = dict(routing_of(*caches).targets["cache"].split)
    assert 6660 <= split["cache@0.1"] <= 6670
    assert sum(split.values()) == 10_000


def test_a_further_version_of_the_cache_gets_nothing_by_itself():
    """The version that serin.yaml names (v1 without a word) has all calls while it runs; else what runs has them."""
    caches = [instance("c1", Service.CACHE, port=1), instance("c2", Service.CACHE, "v2", port=2)]
    assert routing_of(*caches).targets["cache"].split == (("cache@v1", 10_000),)
    assert routing_of(caches[1]).targets["cache"].split == (("cache@v2", 10_000),)


def test_versions_of_gateways_and_caches_share_as_planned():
    """A canary of the gateway gets its share whatever its size, over REST too; gone or unplanned ones get none."""
    plan = replace(declared_plan(parse_config(CONFIG)), service_shares={Service.GATEWAY: {"v1": 99, "v2": 1}})
    gateways = [
        instance(f"g{n}", Service.GATEWAY, version, port=9_000 + n, http_endpoint=f"127.0.0.1:{8_000 + n}")
        for n, version in enumerate(["v1", "v2", "v2", "v3"])
    ]
    targets = route(draw(plan, gateways, {}).topology).targets
    assert targets["gateway"].split == (("gateway@v1", 9900), ("gateway@v2", 100))
    assert targets["gateway-rest"].split == (("gateway-rest@v1", 9900), ("gateway-rest@v2", 100))
    targets = route(draw(plan, gateways[1:], {}).topology).targets
    assert targets["gateway"].split == (("gateway@v2", 10_000),)
    targets = route(draw(plan, gateways[3:], {}).topology).targets
    assert targets["gateway"].split == (("gateway@v3", 10_000),), "nothing planned for runs: what does, serves"


def test_versions_of_the_gateway_that_share_stand_in_for_each_other():
    """The heaviest first; one without a share for nobody; an address that somebody else has by now is one address."""
    plan = replace(declared_plan(parse_config(CONFIG)), service_shares={Service.GATEWAY: {"v1": 1, "v2": 99, "v3": 50}})
    ports = {"v1": 1, "v2": 2, "v3": 2, "v4": 4}
    gateways = [instance(v, Service.GATEWAY, v, port=ports[v]) for v in ports]
    clusters = route(draw(plan, gateways, {}).topology).clusters
    one, two, _, four = (Endpoint("127.0.0.1", port) for port in ports.values())
    assert (clusters["gateway@v4"].endpoints, clusters["gateway@v4"].stand_ins) == (
        (four,),
        (("gateway@v2", (two,)), ("gateway@v1", (one,))),
    )
    assert clusters["gateway@v3"].stand_ins == (("gateway@v1", (one,)),)


def test_empty_never_replaces_full():
    """A target that loses its last instance keeps its last routes and clusters, until there are new ones."""
    full = routing_of(*pair("v1"), instance("c", Service.CACHE))
    empty = routing_of()
    kept = carry_over(full, empty)
    assert kept.targets == full.targets
    assert kept.clusters == full.clusters
    renewed = carry_over(kept, routing_of(*pair("v2")))
    assert renewed.targets["worker.small"].split == (("worker.small@v2", 10_000),)
    assert "worker.small@v1" not in renewed.clusters
    assert "cache@v1" in renewed.clusters
    assert carry_over(None, empty) == empty


def test_lingering_clusters_are_there_and_never_shadow_living_ones():
    """What leaves stays as it was; what is routed is as it is now."""
    old = routing_of(*pair("v1"))
    new = routing_of(*pair("v2"), *pair("v1", num_workers=2))
    whole = linger(new, [*old.clusters.values(), Cluster("gone", Service.CACHE, (Endpoint("h", 1),))])
    assert whole.clusters["worker.small@v1"] == new.clusters["worker.small@v1"]
    assert "gone" in whole.clusters
    assert whole.targets == new.targets


def test_inconsistencies_are_sentences():
    """Everything that would break a client is found before it is published."""
    one = Endpoint("h", 1)
    broken = Routing(
        {
            "t": Target("t", Service.WORKER, pinned=(("l", "a"),), split=(("b", 0),)),
            "u": Target("u", Service.WORKER, by_vocabulary=(("v", ()),)),
        },
        {"a": Cluster("a", Service.WORKER, ()), "c": Cluster("c", Service.WORKER, (one, replace(one, draining=True)))},
    )
    assert list(inconsistencies(broken)) == [
        "target t names cluster b, which does not exist",
        "target t gives cluster b the weight 0",
        "target u names vocabulary v and no cluster that holds it",
        "cluster a has no endpoints",
        "cluster c has an endpoint twice",
    ]


kinds = st.sampled_from([Service.TOKENIZER, Service.WORKER, Service.CACHE, Service.GATEWAY])
anyone = st.builds(
    lambda service, version, n, state, lost: instance(
        f"{service}{version}{n}", service, version, state=state, suspect=lost, lost=lost, port=1000 + n
    ),
    kinds,
    st.sampled_from(["v1", "v2"]),
    st.integers(0, 5),
    st.sampled_from([State.STARTING, State.READY, State.DRAINING]),
    st.booleans(),
)


@given(st.lists(st.lists(anyone, max_size=8), max_size=5))
def test_whatever_comes_and_goes_routing_is_consistent(worlds):
    """Any sequence of meshes gives routings that may be published, and no target empties once it was full."""
    routing = None
    for world in worlds:
        before, routing = routing, carry_over(routing, routing_of(*world))
        assert list(inconsistencies(routing)) == []
        if before is not None:
            for name, target in before.targets.items():
                assert routing.targets[name].split or not target.split
