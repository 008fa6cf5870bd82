"""One client's stream: what it is owed, in which order, and what it says to it."""

import itertools
from dataclasses import replace
from types import MappingProxyType

from serin_control.instance import Service
from serin_control.xds.resources import Audience, Kind
from serin_control.xds.routing import Target
from serin_control.xds.snapshot import Encoded, Snapshot
from serin_control.xds.stream import PATIENCE_S, ClientStream

_numbers = itertools.count(1)


def snapshot(**kinds: dict[str, str]) -> Snapshot:
    """Resources by kind and name; the text stands for the bytes."""
    resources = {
        (Audience.MESH, Kind[kind]): MappingProxyType(
            {n: Encoded(text, f"{n}={text}".encode(), text) for n, text in held.items()}
        )
        for kind, held in kinds.items()
    }
    return Snapshot(next(_numbers), MappingProxyType(resources))


def everything(version: str, *clusters: str) -> Snapshot:
    """A mesh whose routes are of one version and name these clusters."""
    return snapshot(
        CLUSTER=dict.fromkeys(clusters, "c"),
        ASSIGNMENT=dict.fromkeys(clusters, "e"),
        LISTENER={"l": "l"},
        ROUTES={"l": version},
    )


def drain(stream: ClientStream, now: Snapshot, at: float = 0.0, *, ack: bool = True) -> list[tuple[str, list[str]]]:
    """Everything the stream is owed, acknowledged at once: kinds and resources."""
    pushed = []
    while push := stream.next_push(now, at):
        pushed.append((push.kind.name, [field.decode() for field in push.fields]))
        if ack:
            names = stream.subscriptions[push.kind].names
            assert stream.hear(push.kind, sorted(names), push.nonce, "")
    return pushed


def envoy(now: Snapshot, *clusters: str) -> ClientStream:
    """A client that asks for all clusters and listeners, and by name for what they name."""
    stream = ClientStream()
    stream.hear(Kind.CLUSTER, [], "", "")
    stream.hear(Kind.ASSIGNMENT, clusters, "", "")
    stream.hear(Kind.LISTENER, [], "", "")
    stream.hear(Kind.ROUTES, ["l"], "", "")
    drain(stream, now)
    return stream


def test_first_requests_are_answered_in_order():
    """By name and by wildcard; what was sent is not sent again."""
    now = everything("r1", "a", "b")
    stream = ClientStream()
    stream.hear(Kind.ROUTES, ["l"], "", "")
    stream.hear(Kind.ASSIGNMENT, ["b", "nobody"], "", "")
    stream.hear(Kind.CLUSTER, [], "", "")
    assert drain(stream, now) == [("CLUSTER", ["a=c", "b=c"]), ("ASSIGNMENT", ["b=e"]), ("ROUTES", ["l=r1"])]
    assert drain(stream, now) == []


def test_unknown_listeners_are_answered_with_nothing_unknown_endpoints_with_silence():
    """State of the world: a missing listener or cluster is said, a missing assignment only not sent."""
    stream = ClientStream()
    stream.hear(Kind.LISTENER, ["nobody"], "", "")
    stream.hear(Kind.ASSIGNMENT, ["nobody"], "", "")
    assert drain(stream, snapshot()) == [("LISTENER", [])]
    assert drain(stream, snapshot(ASSIGNMENT={"nobody": "e"})) == [("ASSIGNMENT", ["nobody=e"])]


def test_new_clusters_come_before_the_routes_that_name_them():
    """Routes wait until the client took the clusters, asked for their endpoints, and took those."""
    stream = envoy(everything("r1", "a"), "a")
    new = everything("r2", "a", "b")
    clusters = stream.next_push(new, 0.0)
    assert clusters.kind is Kind.CLUSTER
    assert stream.next_push(new, 0.0) is None
    assert stream.held_up
    stream.hear(Kind.CLUSTER, [], clusters.nonce, "")
    assert stream.next_push(new, 0.0) is None, "it has not asked for the endpoints yet"
    stream.hear(Kind.ASSIGNMENT, ["a", "b"], stream.subscriptions[Kind.ASSIGNMENT].nonce, "")
    endpoints = stream.next_push(new, 0.0)
    assert endpoints.kind is Kind.ASSIGNMENT
    assert stream.next_push(new, 0.0) is None
    stream.hear(Kind.ASSIGNMENT, ["a", "b"], endpoints.nonce, "")
    assert stream.next_push(new, 0.0).kind is Kind.ROUTES


def test_a_silent_client_is_outwaited():
    """One that never answers gets the rest after a while."""
    stream = envoy(everything("r1", "a"), "a")
    new = everything("r2", "a", "b")
    assert stream.next_push(new, 10.0).kind is Kind.CLUSTER
    assert stream.next_push(new, 10.0 + PATIENCE_S) is None
    assert stream.next_push(new, 10.1 + PATIENCE_S).kind is Kind.ROUTES


def test_a_refusal_is_not_outwaited():
    """Routes never name clusters that the client refused; better ones free the way."""
    stream = envoy(everything("r1", "a"), "a")
    new = everything("r2", "a", "b")
    push = stream.next_push(new, 0.0)
    stream.hear(Kind.CLUSTER, [], push.nonce, "no such policy")
    assert stream.subscriptions[Kind.CLUSTER].refused == "no such policy"
    assert stream.next_push(new, 1e6) is None
    repaired = snapshot(
        CLUSTER={"a": "c", "b": "c2"}, ASSIGNMENT={"a": "e", "b": "e"}, LISTENER={"l": "l"}, ROUTES={"l": "r2"}
    )
    better = stream.next_push(repaired, 1e6)
    assert better.kind is Kind.CLUSTER
    stream.hear(Kind.CLUSTER, [], better.nonce, "")
    stream.hear(Kind.ASSIGNMENT, ["a", "b"], stream.subscriptions[Kind.ASSIGNMENT].nonce, "")
    assert drain(stream, repaired) == [("ASSIGNMENT", ["b=e"]), ("ROUTES", ["l=r2"])]


def test_what_a_client_newly_asks_for_is_answered_although_something_is_held_up():
    """A second target on the same stream does not wait for the first."""
    stream = envoy(everything("r1", "a"), "a")
    new = snapshot(
        CLUSTER={"a": "c", "b": "c"}, ASSIGNMENT={"a": "e"}, LISTENER={"l": "l"}, ROUTES={"l": "r2", "m": "r"}
    )
    stream.next_push(new, 0.0)
    stream.hear(Kind.ROUTES, ["l", "m"], stream.subscriptions[Kind.ROUTES].nonce, "")
    push = stream.next_push(new, 0.0)
    assert (push.kind, push.fields) == (Kind.ROUTES, (b"l=r2", b"m=r"))


def test_a_request_that_crossed_a_push_is_void():
    """The client will speak again about the newer one."""
    stream = envoy(everything("r1", "a"), "a")
    old_nonce = stream.subscriptions[Kind.ROUTES].nonce
    push = stream.next_push(everything("r2", "a"), 0.0)
    assert push.kind is Kind.ROUTES
    assert not stream.hear(Kind.ROUTES, [], old_nonce, "")
    assert stream.subscriptions[Kind.ROUTES].names == {"l"}


def test_only_what_changed_is_sent_where_the_protocol_allows():
    """One endpoint set of many; all clusters."""
    stream = envoy(everything("r1", "a", "b"), "a", "b")
    new = snapshot(
        CLUSTER={"a": "c", "b": "c2"}, ASSIGNMENT={"a": "e", "b": "e2"}, LISTENER={"l": "l"}, ROUTES={"l": "r1"}
    )
    assert drain(stream, new) == [("CLUSTER", ["a=c", "b=c2"]), ("ASSIGNMENT", ["b=e2"])]


def test_deleted_clusters_are_told_by_their_absence():
    """No route names it any more: a response without the cluster."""
    stream = envoy(everything("r1", "a", "b"), "a", "b")
    assert drain(stream, everything("r1", "a")) == [("CLUSTER", ["a=c"])]


def test_what_was_unsubscribed_is_sent_again_when_asked_again():
    """A client forgets what it does not ask for."""
    stream = ClientStream()
    now = everything("r1", "a", "b")
    stream.hear(Kind.ASSIGNMENT, ["a", "b"], "", "")
    drain(stream, now)
    nonce = stream.subscriptions[Kind.ASSIGNMENT].nonce
    stream.hear(Kind.ASSIGNMENT, ["a"], nonce, "")
    assert drain(stream, now) == []
    stream.hear(Kind.ASSIGNMENT, ["a", "b"], nonce, "")
    assert drain(stream, now) == [("ASSIGNMENT", ["b=e"])]


def test_wildcards():
    """None named at first, or `*`; a client that named some and then none wants none."""
    now = everything("r1", "a")
    star = ClientStream()
    star.hear(Kind.CLUSTER, ["*"], "", "")
    assert drain(star, now) == [("CLUSTER", ["a=c"])]
    star.hear(Kind.CLUSTER, ["*"], star.subscriptions[Kind.CLUSTER].nonce, "")
    assert star.subscriptions[Kind.CLUSTER].wildcard
    named = ClientStream()
    named.hear(Kind.CLUSTER, ["a"], "", "")
    drain(named, now)
    named.hear(Kind.CLUSTER, [], named.subscriptions[Kind.CLUSTER].nonce, "")
    assert named.subscriptions[Kind.CLUSTER].wanted == frozenset()
    assert drain(named, everything("r1", "a", "b")) == []


def test_a_cluster_goes_only_after_the_routes_without_it_are_taken():
    """Routes first, in the same snapshot too; a client that refuses them keeps what its old routes name."""
    stream = envoy(everything("r1", "a", "b"), "a", "b")
    less = everything("r2", "a")
    routes = stream.next_push(less, 0.0)
    assert routes.kind is Kind.ROUTES
    assert stream.next_push(less, 1e6) is None, "not answered: its old routes may still be in force"
    stream.hear(Kind.ROUTES, ["l"], routes.nonce, "no such action")
    assert stream.next_push(less, 1e6) is None
    better = everything("r3", "a")
    assert drain(stream, better) == [("ROUTES", ["l=r3"]), ("CLUSTER", ["a=c"])]


def test_a_lane_is_known_once_its_routes_clusters_and_endpoints_are_taken():
    """By every target that the client asks for; who asks for no routes has nothing to know."""

    def routed(*lanes: str) -> Snapshot:
        found = everything("r" + "".join(lanes), "a", "b")
        target = Target("l", Service.WORKER, tuple((lane, cluster) for lane, cluster in zip(lanes, "ab", strict=False)))
        place = (Audience.MESH, Kind.ROUTES)
        routes = {"l": replace(found.resources[place]["l"], spec=target)}
        return Snapshot(found.number, MappingProxyType({**found.resources, place: MappingProxyType(routes)}))

    stream = ClientStream()
    assert stream.knows("new", ["l"], {"l": "b"})
    for kind, names in ((Kind.CLUSTER, ["a"]), (Kind.ASSIGNMENT, ["a"]), (Kind.LISTENER, ["l"]), (Kind.ROUTES, ["l"])):
        stream.hear(kind, names, "", "")
    drain(stream, routed("old"))
    now = routed("old", "new")
    where = now.clusters_of("new")
    assert where == {"l": "b"}
    assert (stream.knows("old", ["l"], {"l": "a"}), stream.knows("new", ["l"], where)) == (True, False)
    assert stream.knows("new", ["other"], {}), "it asks for no target of the lane"
    assert not stream.knows("new", ["l", "other"], {}), "nothing of it is published yet"
    push = stream.next_push(now, 0.0)
    assert not stream.knows("new", ["l"], where), "sent is not taken"
    stream.hear(push.kind, ["l"], push.nonce, "")
    assert not stream.knows("new", ["l"], where), "its cluster is not there yet"
    for kind in (Kind.CLUSTER, Kind.ASSIGNMENT):
        subscription = stream.subscriptions[kind]
        stream.hear(kind, ["a", "b"], subscription.nonce, "")
        assert not stream.knows("new", ["l"], where)
        drain(stream, now)
    assert stream.knows("new", ["l"], where)
    stream.hear(Kind.ROUTES, ["l"], stream.subscriptions[Kind.ROUTES].nonce, "unheard of")
    assert not stream.knows("new", ["l"], where)
