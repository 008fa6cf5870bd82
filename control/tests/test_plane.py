"""The control plane's loop: restarts lose nothing, a start without memory says nothing, a dead store stops nothing."""

import pytest
from control_builders import ready, registration
from serin_control.declared import InitialFile
from serin_control.errors import StoreDown
from serin_control.instance import Service, State
from serin_control.lane_memory import FORGET_AFTER_S
from serin_control.plane import ControlPlane
from serin_control.store import MemoryStore

CONFIG = InitialFile("serin.yaml", "models: {small: {path: x}}")


class Faulty(MemoryStore):
    """A store that can be down."""

    down = False

    def __getattribute__(self, name):
        if name.startswith(("read_", "write_")) and object.__getattribute__(self, "down"):

            async def away(*_):
                raise StoreDown("state Redis: away")

            return away
        return object.__getattribute__(self, name)


@pytest.fixture
def store() -> Faulty:
    """A store that works until told otherwise."""
    return Faulty()


async def started(store, clock) -> ControlPlane:
    """A control plane at its start."""
    plane = ControlPlane(store, initial=CONFIG, clock=clock)
    await plane.start()
    return plane


def fill(plane: ControlPlane) -> list:
    """A tokenizer and a worker announce themselves."""
    tickets = []
    for name, service in (("t1", Service.TOKENIZER), ("w1", Service.WORKER)):
        ticket = plane.announce(registration(name, service))
        plane.beat(ticket, ready(service))
        tickets.append(ticket)
    plane.redraw()
    return tickets


async def test_a_restart_publishes_what_was_stored_at_once(store, clock):
    """The same topology, all suspect, before anybody announced."""
    before = await started(store, clock)
    fill(before)
    await before.save()
    after = await started(store, clock)
    assert [lane.id for lane in after.topologies.value.models[0].lanes] == [
        lane.id for lane in before.topologies.value.models[0].lanes
    ]
    assert {instance.state for instance in after.registry.instances()} == {State.SUSPECT}
    fill(after)
    assert after.topologies.value == before.topologies.value


async def test_a_start_without_memory_says_nothing_until_everybody_could_announce(store, clock):
    """Full clients are not told that the mesh is empty; a complete mesh, or one lease's time, ends the silence."""
    plane = await started(store, clock)
    assert plane.topologies.value is None
    fill(plane)
    assert plane.topologies.value.complete
    patient = await started(Faulty(), clock)
    clock.advance(3.5)
    patient.redraw()
    assert patient.topologies.value is not None
    assert not patient.topologies.value.complete


async def test_a_store_that_is_down_is_an_alarm_and_nothing_else(store, clock):
    """Announcements are taken, lanes published; when it is back everything is written and the alarm is gone."""
    store.down = True
    plane = await started(store, clock)
    fill(plane)
    await plane.save()
    assert plane.topologies.value.complete
    assert "state Redis: away: what is known serves on" in " ".join(plane.alarms.sentences())
    store.down = False
    await plane.save()
    assert plane.alarms.sentences() == ()
    assert len((await store.read_mesh()).instances) == 2
    assert (await store.read_config()).revision == 1


async def test_stored_instances_come_back_when_the_store_does(store, clock):
    """A start without the store learns later what was stored, and forgets nothing it heard meanwhile."""
    before = await started(store, clock)
    fill(before)
    await before.save()
    store.down = True
    after = await started(store, clock)
    after.announce(registration("w9"))
    store.down = False
    await after.save()
    assert {held.registration.instance for held in after.registry.instances()} == {"t1", "w1", "w9"}


async def test_heartbeats_change_nothing_that_is_published(store, clock):
    """Watchers hear of changes, not of time."""
    plane = await started(store, clock)
    tickets = fill(plane)
    versions = (plane.topologies.version, plane.standing.version)
    for _ in range(20):
        clock.advance(0.5)
        for ticket, service in zip(tickets, (Service.TOKENIZER, Service.WORKER), strict=True):
            plane.beat(ticket, ready(service))
        plane.registry.tick()
        plane.redraw()
    assert (plane.topologies.version, plane.standing.version) == versions


async def test_a_lane_that_is_away_is_stored_until_it_is_forgotten(store, clock):
    """A control plane that restarts meanwhile knows it too; what stays away leaves nothing behind."""
    plane = await started(store, clock)
    _, worker = fill(plane)
    await plane.save()
    carried = (await store.read_mesh()).carried
    assert len(carried["small"]) == 1
    plane.withdraw(worker)
    plane.redraw()
    await plane.save()
    assert (await store.read_mesh()).carried == carried
    after = await started(store, clock)
    clock.advance(FORGET_AFTER_S)
    for one in (plane, after):
        await one.save()
        assert (await store.read_mesh()).carried == {}


async def test_it_is_settled_once_everything_stored_was_heard_again(store, clock):
    """Or after a lease's time and a heartbeat: until then an empty registry means nothing."""
    before = await started(store, clock)
    assert before.is_settled()
    fill(before)
    await before.save()
    after = await started(store, clock)
    assert not after.is_settled()
    clock.advance(4.1)
    assert after.is_settled()
    again = await started(store, clock)
    assert not again.is_settled()
    fill(again)
    assert again.is_settled()


async def test_nothing_is_published_before_rollouts_were_heard(store, clock):
    """Else a start would give a rollout's traffic back; after half a minute the mesh is served without them."""
    fill(await started(store, clock))
    plane = ControlPlane(store, initial=CONFIG, steered=True, clock=clock)
    await plane.start()
    fill(plane)
    assert plane.topologies.value is None
    plane.steer(lambda plan: plan)
    assert plane.topologies.value.complete
    patient = ControlPlane(Faulty(), initial=CONFIG, steered=True, clock=clock)
    await patient.start()
    fill(patient)
    clock.advance(30.5)
    patient.redraw()
    assert patient.topologies.value.complete
