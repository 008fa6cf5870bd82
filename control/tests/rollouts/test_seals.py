"""A version never changes: what was accepted stands with its files, and whoever announces others gets no traffic."""

from dataclasses import replace

import pytest
from control_builders import instance, pair, ready, registration
from control_engine import ANN, Stage
from control_rollouts import spec, versions
from serin_control.assembly import Control
from serin_control.declared import InitialFile
from serin_control.errors import VersionMismatch
from serin_control.instance import Service, State, Status
from serin_control.plan import ModelPlan, Share
from serin_control.rollouts.desk import Action
from serin_control.rollouts.seals import MAX_SEALS, Seal, Seals, with_traffic
from serin_control.rollouts.store import MemoryRollouts
from serin_control.store import MemoryStore

CONFIG = InitialFile("serin.yaml", "models: {small: {path: x}}")
SAID = (
    "w2 gets no traffic: worker.small@v2 is announced by 'w2' with other files ('0f0f0f') than v2 was accepted with "
    "('a2'), and a version never changes: put those back and start it again, or give the changed files a version of "
    "their own"
)


class Plane:
    """A whole control plane whose instances a test announces."""

    def __init__(self, clock, mesh, rollouts) -> None:
        self.clock = clock
        self.control = Control(mesh, rollouts=rollouts, initial=CONFIG, clock=clock)

    async def start(self) -> "Plane":
        """Start it, with a tokenizer, a worker v1 and a worker v2."""
        await self.control.start()
        self.beat("t1", Service.TOKENIZER, artifact="70")
        self.beat("w1", artifact="a1")
        self.beat("w2", version="v2", artifact="a2")
        await self.look()
        return self

    def beat(self, name, service=Service.WORKER, version="v1", *, artifact) -> None:
        """A process announces itself anew with these files, on a port of its own."""
        plane = self.control.plane
        port = 20_000 + int(self.clock()) % 1_000 * 10 + ("t1", "w1", "w2").index(name)
        ticket = plane.announce(registration(name, service, version=version, port=port))
        plane.beat(ticket, ready(service, artifact))

    async def look(self, times: int = 2) -> None:
        """Let rollouts and traffic follow."""
        for _ in range(times):
            self.clock.advance(0.25)
            await self.control.rollouts.look()
        self.control.plane.redraw()

    def weights(self) -> dict[str, int]:
        """Weight by the worker's version."""
        (model,) = self.control.plane.topologies.value.models
        return {lane.members[1].version: lane.weight for lane in model.lanes}

    async def history(self) -> list[tuple[str, str]]:
        """What was done, newest first."""
        found, _ = await self.control.desk.history("", 100, "")
        return [(act.what, act.reason) for act in found]


async def test_a_promoted_version_with_other_files_gets_nothing(clock):
    """Also after a restart of the control plane; the version before answers meanwhile, and one line says so."""
    mesh, rollouts = MemoryStore(), MemoryRollouts()
    plane = await Plane(clock, mesh, rollouts).start()
    started = await plane.control.desk.start(spec(), "", ANN)
    await plane.look()
    await plane.control.desk.act(started.id, Action.PROMOTE, ANN, "good")
    await plane.look()
    assert plane.weights() == {"v2": 9_999, "v1": 1}
    clock.advance(1)
    with pytest.raises(VersionMismatch, match="other files"):
        plane.beat("w2", version="v2", artifact="0f0f0f")
    await plane.look(5)
    stands_in = (
        "model small: nothing of worker v2 takes calls: worker v1, which had the traffic before, answers until it "
        "does: `serin status` shows what is the matter with it"
    )
    assert plane.weights() == {"v1": 10_000}
    assert set(plane.control.alarms.sentences()) == {SAID, stands_in}
    line = (
        "refuse",
        "small: worker v2 is announced with other files (0f0f0f) than it was accepted with (a2): what announces them "
        "gets no traffic",
    )
    assert (await plane.history()).count(line) == 1
    await plane.control.save()
    again = Plane(clock, mesh, rollouts)
    clock.advance(1)
    await again.control.start()
    again.beat("t1", Service.TOKENIZER, artifact="70")
    again.beat("w1", artifact="a1")
    with pytest.raises(VersionMismatch, match="other files"):
        again.beat("w2", version="v2", artifact="0f0f0f")
    await again.look()
    assert again.weights() == {"v1": 10_000}
    clock.advance(1)
    again.beat("w2", version="v2", artifact="a2")
    await again.look()
    assert again.weights() == {"v2": 9_999, "v1": 1}
    assert again.control.alarms.sentences() == ()
    assert (await again.history()).count(line) == 1


async def test_what_is_served_first_stands_and_what_is_judged_does_not(clock):
    """A declared version is accepted as it is first seen; a canary may still change, and is taken back for it."""
    plane = await Plane(clock, MemoryStore(), MemoryRollouts()).start()
    assert plane.control.rollouts.book.seals["small"].clusters == {"tokenizer.small@v1": "70", "worker.small@v1": "a1"}
    started = await plane.control.desk.start(spec(), "", ANN)
    await plane.look()
    clock.advance(1)
    plane.beat("w2", version="v2", artifact="0f0f0f")
    await plane.look()
    ended = await plane.control.desk.get(started.id)
    assert "v2 is announced with other files than when the rollout began" in ended.reason
    clock.advance(1)
    with pytest.raises(VersionMismatch, match="than v1 was accepted with"):
        plane.beat("w1", artifact="ee")
    assert plane.control.rollouts.book.seals["small"].clusters.keys() == {"tokenizer.small@v1", "worker.small@v1"}


async def test_what_was_stored_before_the_files_were_known_is_read_before_anybody_is_heard(clock):
    """An instance that was stored as ready with other files is refused at once, before its first heartbeat."""
    mesh, rollouts = MemoryStore(), MemoryRollouts()
    plane = await Plane(clock, mesh, rollouts).start()
    await plane.control.save()
    stored = await mesh.read_mesh()
    changed = tuple(
        replace(one, status=ready(artifact="ee")) if one.registration.instance == "w1" else one
        for one in stored.instances
    )
    await mesh.write_mesh(replace(stored, instances=changed))
    again = Plane(clock, mesh, rollouts)
    await again.control.start()
    held = {one.registration.instance: one for one in again.control.plane.registry.instances()}
    assert (held["w1"].status, held["w1"].foreign) == (Status(), "ee")
    assert held["t1"].status.state is State.READY


async def test_others_lead_with_the_same_files(clock):
    """What one control plane accepted holds for the one that leads next, whatever is announced then."""
    store = MemoryRollouts()
    first = Stage(clock, store)
    await first.look()
    known = first.engine.book.seals["small"]
    assert {seal.pair for seal in known.seals} == {(Service.TOKENIZER, "v1"), (Service.WORKER, "v1")}
    store.lapse()
    other = [instance("w0", artifact="ee"), instance("t", Service.TOKENIZER)]
    second = Stage(clock, store, "c2", other)
    await second.look()
    assert second.engine.book.seals["small"] == known
    assert second.sealed == known.clusters


def test_a_promotion_accepts_what_was_judged():
    """Whatever was known of its versions, and only where its files are known."""
    known = Seals("small", (Seal(Service.TOKENIZER, "v1", "70"), Seal(Service.WORKER, "v2", "a2", "b2")))
    found = known.accepted({Service.TOKENIZER: "70", Service.WORKER: "c2"}, versions("v2"))
    assert found.clusters == {"tokenizer.small@v1": "70", "worker.small@v2": "c2"}
    assert known.accepted({}, versions("v2")) == known


def test_only_so_many_versions_are_remembered_beside_those_with_traffic():
    """The oldest is forgotten first, one with traffic never."""
    many = Seals("small", tuple(Seal(Service.WORKER, f"v{n}", f"a{n}") for n in range(1, MAX_SEALS + 3)))
    left = many.looked_at({(Service.WORKER, "v1")}, pair("v1"))
    assert [seal.version for seal in left.seals] == ["v1", *(f"v{n}" for n in range(3, MAX_SEALS + 3))]


def test_sets_that_are_judged_do_not_stand():
    """The versions that a canary shares with what stands do."""
    plan = ModelPlan("small", shares=(Share(versions("v1"), 99), Share(versions("v2"), 1), Share(versions("v3"), 0)))
    assert with_traffic(plan, (versions("v2"), None)) == {(Service.TOKENIZER, "v1"), (Service.WORKER, "v1")}
