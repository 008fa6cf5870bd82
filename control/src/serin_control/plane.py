"""The control plane's own loop: what is heard and declared becomes the topology, and what must survive is stored.

Ties registry, configuration, lanes and store together; knows nothing about gRPC or xDS.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from serin_control.alarms import Alarms
from serin_control.declared import Declared, InitialFile
from serin_control.errors import StoreDown
from serin_control.instance import Instance, Registration, Status
from serin_control.lane_memory import LaneMemory
from serin_control.latest import Latest
from serin_control.plan import TrafficPlan, declared_plan
from serin_control.registry import LeaseTerms, Registry, Ticket
from serin_control.store import SavedMesh, StateStore
from serin_control.topology import Topology, draw

TICK_S = 0.25
STORE_EVERY_S = 1.0
PATIENCE_S = 30.0
"""So long a start waits for what rollouts want of traffic before it says anything without them."""

Steer = Callable[[TrafficPlan], TrafficPlan]
"""Makes of the declared plan the one that rollouts want."""


@dataclass(frozen=True, slots=True)
class Standing:
    """All instances and all standing alarms."""

    instances: tuple[Instance, ...]
    alarms: tuple[str, ...]


class ControlPlane:
    """One control plane. Call :meth:`start`, then keep :meth:`run` running.

    Args:
        store: what survives.
        initial: the file of `--config-file`.
        terms: of leases.
        alarms: where to report what is wrong.
        steered: somebody will call :meth:`steer`; nothing is published before, unless that takes too long.
        clock: seconds, monotonic.
        wall_clock: seconds since 1970.
    """

    def __init__(
        self,
        store: StateStore,
        *,
        initial: InitialFile | None = None,
        terms: LeaseTerms | None = None,
        alarms: Alarms | None = None,
        steered: bool = False,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.alarms = alarms or Alarms()
        self.registry = Registry(clock, terms)
        self.declared = Declared(store, self.alarms, initial)
        self.topologies: Latest[Topology] = Latest()
        self.standing: Latest[Standing] = Latest()
        self._store = store
        self._clock = clock
        self._wall_clock = wall_clock
        self._started_at = clock()
        self._steer: Steer | None = None
        self._awaits_steering = steered
        self._is_begun = False
        self._is_settled = False
        self._memory = LaneMemory(clock)
        self._mesh_is_known = False
        self._restored = False
        self._written = SavedMesh()
        self._news = asyncio.Event()
        self._unsaved = asyncio.Event()

    def announce(self, registration: Registration) -> Ticket:
        """Take the lease of an instance; see :meth:`Registry.announce`."""
        try:
            return self.registry.announce(registration, self._wall_clock())
        finally:
            self._news.set()

    def beat(self, ticket: Ticket, status: Status) -> None:
        """Hear an instance; see :meth:`Registry.beat`."""
        try:
            self.registry.beat(ticket, status)
        finally:
            self._news.set()

    def lose(self, ticket: Ticket) -> None:
        """The stream of an instance broke."""
        self.registry.lose(ticket)
        self._news.set()

    def withdraw(self, ticket: Ticket) -> None:
        """An instance is gone for good."""
        self.registry.withdraw(ticket)
        self._news.set()

    async def start(self) -> None:
        """Load what survived. A store that is down is no reason not to serve.

        Raises:
            ConfigInvalid: the initial file is wrong and nothing better is known.
        """
        await self.declared.start()
        await self._sync()
        self._is_begun = True
        self.redraw()

    def seal(self, artifacts: Mapping[str, str]) -> None:
        """Hold versions to the files that they were accepted with; see :meth:`Registry.seal`."""
        self.registry.seal(artifacts)
        self._news.set()

    def steer(self, steer: Steer) -> None:
        """Let traffic follow this from now on, and until it is called again."""
        self._steer = steer
        self._awaits_steering = False
        if self._is_begun:
            self.redraw()

    def declared_plan(self) -> TrafficPlan:
        """What the configuration in force declares, without rollouts."""
        declaration = self.declared.current.value
        return declared_plan(declaration.config) if declaration else TrafficPlan()

    def is_settled(self) -> bool:
        """Whether what runs is known: everything that was stored was heard again, or had a lease's time to be."""
        waited = self._clock() - self._started_at > self.registry.terms.ttl_s + self.registry.terms.heartbeat_s
        heard = self._mesh_is_known and not any(instance.suspect for instance in self.registry.instances())
        self._is_settled = self._is_settled or waited or heard
        return self._is_settled

    async def save(self) -> None:
        """Store what is known now, if the store answers."""
        await self._sync()

    async def run(self) -> None:
        """Follow time, news and the store until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_ticking(), name="ticks")
            tasks.create_task(self._keep_drawing(), name="drawing")
            tasks.create_task(self._keep_storing(), name="storing")
            tasks.create_task(self._follow_configuration(), name="configuration")

    def redraw(self) -> None:
        """Draw the topology of what is declared and heard, and publish it if it is worth publishing."""
        declared = self.declared_plan()
        plan = self._steer(declared) if self._steer is not None else declared
        instances = self.registry.instances()
        drawn = draw(plan, instances, self._memory.carried)
        self._memory.note(drawn.topology)
        self.alarms.replace("mesh/", drawn.alarms)
        if SavedMesh(instances, self._memory.carried) != self._written:
            self._unsaved.set()
        if self._may_publish(drawn.topology):
            self.topologies.set(drawn.topology)
        self.standing.set(Standing(instances, self.alarms.sentences()))

    def _may_publish(self, topology: Topology) -> bool:
        """After a start with nothing stored, everybody gets one lease's time to announce before anything is said.

        Else a control plane that lost its memory would tell full clients that the mesh is empty; and one that has not
        heard of a rollout yet would give its traffic back.
        """
        waited_s = self._clock() - self._started_at
        if self._awaits_steering and waited_s <= PATIENCE_S:
            return False
        waited = waited_s > self.registry.terms.ttl_s
        return self.topologies.version > 0 or self._restored or topology.complete or waited

    async def _keep_ticking(self) -> None:
        while True:
            self.registry.tick()
            self._news.set()
            await asyncio.sleep(TICK_S)

    async def _keep_drawing(self) -> None:
        drawn_at: tuple[int, int, int, tuple[str, ...]] | None = None
        while True:
            await self._news.wait()
            self._news.clear()
            waited_s = self._clock() - self._started_at
            waited = sum(waited_s > limit for limit in (self.registry.terms.ttl_s, PATIENCE_S))
            now = (self.registry.revision, self.declared.current.version, waited, self.alarms.sentences())
            if now != drawn_at:
                self.redraw()
                drawn_at = (*now[:3], self.alarms.sentences())

    async def _follow_configuration(self) -> None:
        async for _ in self.declared.current.watch():
            self._news.set()

    async def _keep_storing(self) -> None:
        while True:
            try:
                async with asyncio.timeout(STORE_EVERY_S):
                    await self._unsaved.wait()
            except TimeoutError:
                pass  # time to look whether another control plane changed the configuration
            await self._sync()
            await asyncio.sleep(TICK_S)  # changes come in bursts: write them together

    async def _sync(self) -> None:
        """Bring the store and this process together, as far as the store answers."""
        try:
            if not self._mesh_is_known:
                self._remember(await self._store.read_mesh())
                self._mesh_is_known = True
            await self.declared.refresh()
            self._unsaved.clear()
            mesh = SavedMesh(self.registry.instances(), self._memory.carried)
            if mesh != self._written:
                await self._store.write_mesh(mesh)
                self._written = mesh
                self.alarms.clear("state/unreadable")  # they were overwritten
        except StoreDown as error:
            self._unsaved.set()
            self.alarms.raise_(
                "state", f"{error}: what is known serves on, until it answers changes are refused and rollouts wait"
            )
        else:
            self.alarms.clear("state")

    def _remember(self, mesh: SavedMesh) -> None:
        self.registry.restore(mesh.instances)
        self._memory.restore(mesh.carried)
        self._written = mesh
        self._restored = bool(mesh.instances)
        if mesh.unreadable:
            names = ", ".join(mesh.unreadable)
            self.alarms.raise_("state/unreadable", f"stored records that cannot be read, left out: {names}")
        self._news.set()
