"""Leases: who is heard, who is suspect, who is gone, and what is kept when too much falls silent together."""

import pytest
from control_builders import ready, registration
from serin_control.errors import LeaseSuperseded, RegistrationInvalid, VersionMismatch
from serin_control.instance import Digests, Service, State, Status
from serin_control.registry import LeaseTerms, Registry, Ticket


def states(registry: Registry) -> dict[str, State]:
    """State of each instance by name."""
    return {held.registration.instance: held.state for held in registry.instances()}


def announce(registry: Registry, name: str, status: Status | None = None, **who) -> Ticket:
    """Announce an instance and let it say that it is ready."""
    ticket = registry.announce(registration(name, **who), 0.0)
    registry.beat(ticket, status or ready())
    return ticket


@pytest.fixture
def registry(clock) -> Registry:
    """An empty registry on the test's clock."""
    return Registry(clock)


def pass_time(registry: Registry, clock, seconds: float, heard: dict[Ticket, Status] | None = None) -> None:
    """Let time pass in quarter seconds; ``heard`` go on beating."""
    for _ in range(round(seconds * 4)):
        clock.advance(0.25)
        for ticket, status in (heard or {}).items():
            registry.beat(ticket, status)
        registry.tick()


def test_heartbeats_hold_a_lease(registry, clock):
    """An instance that beats is ready for ever, and nothing changes meanwhile."""
    ticket = announce(registry, "a")
    before = registry.revision
    pass_time(registry, clock, 60, {ticket: ready()})
    assert states(registry) == {"a": State.READY}
    assert registry.revision == before


def test_broken_stream_is_suspect_for_one_lease(registry, clock):
    """A broken stream keeps its instance for three heartbeats, then it is gone if others of its cluster stay."""
    tickets = {announce(registry, name): ready() for name in ("b", "c")}
    lost = announce(registry, "a")
    pass_time(registry, clock, 1, {**tickets, lost: ready()})
    registry.lose(lost)
    assert states(registry)["a"] is State.SUSPECT
    pass_time(registry, clock, 3, tickets)
    assert states(registry)["a"] is State.SUSPECT
    pass_time(registry, clock, 0.25, tickets)
    assert states(registry) == {"b": State.READY, "c": State.READY}


def test_announcing_again_takes_the_lease_over(registry, clock):
    """A reconnect within the lease goes on as before; the old stream's end means nothing any more."""
    old = announce(registry, "a")
    registry.lose(old)
    new = registry.announce(registration("a"), 5.0)
    assert states(registry) == {"a": State.READY}
    registry.lose(old)
    registry.withdraw(old)
    assert states(registry) == {"a": State.READY}
    with pytest.raises(LeaseSuperseded):
        registry.beat(old, ready())
    registry.withdraw(new)
    assert states(registry) == {}


def test_a_new_process_on_the_old_ports_is_a_new_registration(registry, clock):
    """What it was is served on until its first heartbeat; from then on state and time are the new process's."""
    old = announce(registry, "a")
    registry.lose(old)
    new = registry.announce(registration("a"), 5.0)
    (held,) = registry.instances()
    assert (held.state, held.registered_at) == (State.READY, 0.0)
    registry.beat(new, Status(State.STARTING, 0.1, "loading"))
    (held,) = registry.instances()
    assert (held.state, held.registered_at) == (State.STARTING, 5.0)
    registry.beat(new, ready())
    (held,) = registry.instances()
    assert (held.state, held.registered_at) == (State.READY, 5.0)


def test_silence_on_a_standing_stream_is_suspect(registry, clock):
    """A stopped process keeps its stream; two missing heartbeats make it suspect, one answer makes it ready."""
    tickets = {announce(registry, name): ready() for name in ("b", "c")}
    quiet = announce(registry, "a")
    pass_time(registry, clock, 2.25, tickets)
    assert states(registry)["a"] is State.SUSPECT
    registry.beat(quiet, ready())
    assert states(registry)["a"] is State.READY


def test_more_than_half_of_a_cluster_is_kept(registry, clock):
    """Three of five that fall silent within a heartbeat are kept, and go when enough of the others came instead."""
    living = {announce(registry, name): ready() for name in ("a", "b")}
    for name in ("c", "d", "e"):
        announce(registry, name)
        clock.advance(0.3)
    pass_time(registry, clock, 60, living)
    assert states(registry) == dict.fromkeys("ab", State.READY) | dict.fromkeys("cde", State.SUSPECT)
    assert [held.lost for held in registry.instances()] == [False, False, True, True, True]
    living[announce(registry, "f")] = ready()
    pass_time(registry, clock, 1, living)
    assert states(registry) == dict.fromkeys("abf", State.READY)


def test_half_of_a_cluster_goes(registry, clock):
    """Exactly half is not more than half."""
    living = {announce(registry, name): ready() for name in ("a", "b")}
    announce(registry, "c"), announce(registry, "d")
    pass_time(registry, clock, 4, living)
    assert states(registry) == dict.fromkeys("ab", State.READY)


def test_the_last_of_a_cluster_stays_until_another_is_ready(registry, clock):
    """An empty cluster never replaces a full one; a newcomer that still loads does not either."""
    announce(registry, "a")
    pass_time(registry, clock, 60)
    assert states(registry) == {"a": State.SUSPECT}
    newcomer = registry.announce(registration("b"), 0.0)
    pass_time(registry, clock, 5, {newcomer: Status(State.STARTING, 0.5, "loading weights")})
    assert states(registry) == {"a": State.SUSPECT, "b": State.STARTING}
    pass_time(registry, clock, 1, {newcomer: ready()})
    assert states(registry) == {"b": State.READY}


def test_what_is_kept_is_kept_for_a_day(registry, clock):
    """A cluster that nobody misses goes in the end."""
    announce(registry, "a")
    pass_time(registry, clock, 4)
    clock.advance(LeaseTerms().max_kept_s)
    registry.tick()
    assert states(registry) == {}


def test_starting_and_draining_instances_are_not_kept(registry, clock):
    """Only what serves is worth keeping."""
    announce(registry, "a", Status(State.STARTING))
    draining = announce(registry, "b")
    registry.beat(draining, Status(State.DRAINING))
    pass_time(registry, clock, 4)
    assert states(registry) == {}


def test_restored_instances_have_one_lease_to_come_back(registry, clock):
    """After a restart what was stored is suspect; who announces goes on, who does not goes or is kept."""
    before = Registry(clock)
    for name in ("a", "b", "c"):
        announce(before, name)
    registry.restore(before.instances())
    assert set(states(registry).values()) == {State.SUSPECT}
    living = {registry.announce(registration(name), 9.0): ready() for name in ("a", "b")}
    registry.restore(before.instances())
    assert states(registry) == {"a": State.READY, "b": State.READY, "c": State.SUSPECT}
    pass_time(registry, clock, 3.5, living)
    assert states(registry) == {"a": State.READY, "b": State.READY}
    assert registry.instances()[0].registered_at == 9.0, "it registered again"


@pytest.mark.parametrize(
    ("digests", "said"),
    [
        (
            Digests("f0", ready().digests.vocabulary, ready().digests.kv, "cpu"),
            "files 'f0' and 'a1': give changed files a version of their own",
        ),
        (Digests("a1", "f0", ready().digests.kv, "cpu"), "different digests: vocabulary 'f0' and "),
        (
            Digests("a1", ready().digests.vocabulary, "f0", "cpu"),
            "different digests: KV (weights, precision, block layout) 'f0' and",
        ),
        (
            Digests("a1", ready().digests.vocabulary, "f0", "cpu"),
            "the same engine settings (precision, quantize, device)",
        ),
        (Digests("f0", ready().digests.vocabulary, "f0", "cpu"), "version of their own"),
    ],
)
def test_a_version_with_other_digests_is_refused(registry, clock, digests, said):
    """Siblings hold the same files; who says otherwise counts as starting, and hears what differs."""
    announce(registry, "a")
    liar = registry.announce(registration("b"), 0.0)
    other = Status(State.READY, 1.0, digests=digests, capacity=ready().capacity)
    with pytest.raises(VersionMismatch, match=r"worker\.small@v1 is announced by 'b' and by 'a'") as caught:
        registry.beat(liar, other)
    assert said in str(caught.value)
    assert states(registry) == {"a": State.READY, "b": State.STARTING}
    assert registry.instances()[1].refusal == str(caught.value)


def test_who_is_refused_is_believed_once_its_sibling_has_gone(registry, clock):
    """The reason stands while it announces itself again and again, and falls with the first heartbeat that can be."""
    sibling = announce(registry, "a")
    other = ready(artifact="ff")
    for _ in range(3):
        again = registry.announce(registration("b"), 0.0)
        assert states(registry).get("b", State.STARTING) is State.STARTING
        with pytest.raises(VersionMismatch):
            registry.beat(again, other)
        registry.lose(again)
    assert "different digests" in registry.instances()[1].refusal
    registry.withdraw(sibling)
    registry.beat(registry.announce(registration("b"), 0.0), other)
    (held,) = registry.instances()
    assert (held.state, held.refusal) == (State.READY, "")


def test_a_refusal_goes_with_its_lease(registry, clock):
    """Who is refused and falls silent is gone; a new process of its name begins anew."""
    sibling = announce(registry, "a")
    for _ in range(2):
        refused = registry.announce(registration("b"), 0.0)
        with pytest.raises(VersionMismatch):
            registry.beat(refused, ready(artifact="ff"))
    registry.announce(registration("b", port=4999), 0.0)
    assert registry.instances()[1].refusal == ""
    pass_time(registry, clock, 4, {sibling: ready()})
    assert states(registry) == {"a": State.READY}


def test_another_device_is_no_mismatch(registry, clock):
    """The numerics class of a sibling may differ."""
    announce(registry, "a")
    same = ready().digests
    gpu = Status(
        State.READY, 1.0, digests=Digests(same.artifact, same.vocabulary, same.kv, "cuda"), capacity=ready().capacity
    )
    announce(registry, "b", gpu)
    assert states(registry) == {"a": State.READY, "b": State.READY}


def test_the_dead_veto_nothing(registry, clock):
    """New files under an old version are taken once every instance of the old is dead, and never mixed with it."""
    announce(registry, "a")
    pass_time(registry, clock, 4)
    announce(registry, "b", ready(artifact="ff"))
    assert states(registry) == {"b": State.READY}


def test_a_restart_on_the_same_port_replaces_itself(registry, clock):
    """A process that came back under a new name is not there twice."""
    announce(registry, "a", port=4000)
    announce(registry, "b", port=4000)
    assert states(registry) == {"b": State.READY}


def test_nobody_takes_a_name_or_endpoint_of_another_living_service(registry, clock):
    """A worker cannot push a gateway aside."""
    announce(registry, "a", Status(State.READY), service=Service.GATEWAY, port=4000)
    with pytest.raises(RegistrationInvalid, match="held by a living gateway"):
        registry.announce(registration("a", port=4001), 0.0)
    with pytest.raises(RegistrationInvalid, match=r"127\.0\.0\.1:4000 is held by gateway 'a'"):
        registry.announce(registration("b", port=4000), 0.0)
    pass_time(registry, clock, 3)
    announce(registry, "b", port=4000)
    assert states(registry) == {"b": State.READY}


def test_draining_keeps_digests(registry, clock):
    """An instance that drains is still what it was, also when it does not repeat it."""
    ticket = announce(registry, "a")
    registry.beat(ticket, Status(State.DRAINING))
    (held,) = registry.instances()
    assert held.state is State.DRAINING
    assert held.status.digests == ready().digests
