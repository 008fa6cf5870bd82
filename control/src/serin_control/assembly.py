"""The control plane put together: one object with everything that is served and everything that runs.

Used by `__main__` and by whoever wants a control plane inside their own process (tests do).
"""

import asyncio
import time
from collections.abc import Callable

import grpc
from serin.control.v1 import (
    config_pb2_grpc,
    lane_pb2_grpc,
    observation_pb2_grpc,
    registry_pb2_grpc,
    rollout_pb2_grpc,
)
from serin_mesh.channels import ChannelSettings
from serin_mesh.settings import ServiceSettings

from serin_control.alarms import Alarms, Observer
from serin_control.declared import InitialFile
from serin_control.latest import Latest
from serin_control.observations.golden_runner import GoldenRunner
from serin_control.observations.mesh_asker import MeshAsker
from serin_control.observations.scorers import DeclaredScorer
from serin_control.observations.worker_memory import WorkerMemory
from serin_control.plane import ControlPlane
from serin_control.registry import LeaseTerms
from serin_control.rollouts.arbiter import Court
from serin_control.rollouts.court import JudgeCourt
from serin_control.rollouts.desk import Desk
from serin_control.rollouts.engine import Engine, Mesh
from serin_control.rollouts.intake import Intake
from serin_control.rollouts.leadership import Leadership
from serin_control.rollouts.shown import NewestRollouts
from serin_control.rollouts.store import MemoryRollouts, RolloutStore
from serin_control.services.config_service import ConfigService
from serin_control.services.lane_service import LaneService
from serin_control.services.observation_service import ObservationService
from serin_control.services.registry_service import RegistryService
from serin_control.services.rollout_service import RolloutService
from serin_control.store import MemoryStore, StateStore
from serin_control.topology import Topology
from serin_control.warming import Warming
from serin_control.xds.edge import EdgeSettings
from serin_control.xds.publisher import Publisher
from serin_control.xds.routing import targets_of
from serin_control.xds.server import AdsServer

OPERATORS = ("cli", "operator")
"""Identities that may change what is declared."""

CALLERS = {
    "/serin.control.v1.ConfigService/ApplyConfig": OPERATORS,
    "/serin.control.v1.RegistryService/Announce": ("gateway", "tokenizer", "worker", "cache"),
    "/serin.control.v1.RolloutService/StartRollout": OPERATORS,
    "/serin.control.v1.RolloutService/ActOnRollout": OPERATORS,
    "/serin.control.v1.RolloutService/Rollback": OPERATORS,
    "/serin.control.v1.RolloutService/Freeze": OPERATORS,
    "/serin.control.v1.RolloutService/SuspendRollouts": OPERATORS,
    "/serin.control.v1.ObservationService/ReportObservations": ("gateway",),
}
"""Who may call what when callers have identities; everything else is open to every service of the mesh."""


class Control:
    """A control plane. Call :meth:`start`, add it to a server with :meth:`register`, keep :meth:`run` running.

    Args:
        store: what survives; default: memory.
        rollouts: where rollouts survive; default: memory.
        court: appoints the judges of rollouts.
        name, address: of this control plane, for the others; an empty address is not known.
        initial: the file to begin with.
        edge: how Envoy should listen.
        terms: of leases.
        on_alarm: told of every alarm that is raised or cleared.
        intake: told what is observed, in place of the rollouts.
        channels: how services are called.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        store: StateStore | None = None,
        *,
        rollouts: RolloutStore | None = None,
        court: Court | None = None,
        name: str = "control",
        address: str = "",
        initial: InitialFile | None = None,
        edge: EdgeSettings | None = None,
        terms: LeaseTerms | None = None,
        on_alarm: Observer = lambda key, sentence, raised: None,
        intake: Intake | None = None,
        channels: ChannelSettings | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.alarms = Alarms(on_alarm)
        self.plane = ControlPlane(
            store or MemoryStore(), initial=initial, terms=terms, alarms=self.alarms, steered=True, clock=clock
        )
        kept = rollouts or MemoryRollouts()
        plane = self.plane
        mesh = Mesh(
            plane.registry.instances, plane.declared_plan, plane.steer, plane.is_settled, plane.save, plane.seal
        )
        leadership = Leadership(kept, name, address, clock)
        self.rollouts = Engine(kept, court or JudgeCourt(), mesh, leadership, self.alarms, clock=clock)
        self.newest = NewestRollouts(self.rollouts)
        self.published: Latest[Topology] = Latest()
        self.publisher = Publisher(self.published, edge or EdgeSettings(), self.alarms, clock)
        self.ads = AdsServer(self.publisher.snapshots, self.alarms, clock)
        self._warming = Warming(
            self.plane.topologies,
            self.published,
            lambda model, lane: self.ads.knows(lane.id, targets_of(model, lane)),
            clock,
        )
        self.desk = Desk(self.rollouts, has_edge=self.ads.has_edge)
        bench = self.rollouts.bench
        self._memory = WorkerMemory(intake or bench, self.plane.topologies)
        self.observations = ObservationService(intake or bench, self._memory)
        asker = MeshAsker(channels or ServiceSettings(), self.plane.topologies)
        self.golden = GoldenRunner(bench, asker, DeclaredScorer(), intake or bench, self.alarms)

    def register(self, server: grpc.aio.Server) -> None:
        """Add every service to a server."""
        registry_pb2_grpc.add_RegistryServiceServicer_to_server(RegistryService(self.plane, self._memory), server)
        lane_pb2_grpc.add_LaneServiceServicer_to_server(LaneService(self.publisher.served), server)
        config_pb2_grpc.add_ConfigServiceServicer_to_server(ConfigService(self.plane.declared), server)
        rollout_pb2_grpc.add_RolloutServiceServicer_to_server(RolloutService(self.desk), server)
        observation_pb2_grpc.add_ObservationServiceServicer_to_server(self.observations, server)
        self.ads.add_to(server)

    async def start(self) -> None:
        """Load what survived.

        Raises:
            ConfigInvalid: the initial file is wrong and nothing better is known.
        """
        await self.rollouts.start()  # first: what rollouts want of traffic must be known before any of it is published
        await self.plane.start()

    async def run(self) -> None:
        """Keep everything going until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.plane.run(), name="plane")
            tasks.create_task(self._warming.run(), name="warming")
            tasks.create_task(self.publisher.run(), name="publisher")
            tasks.create_task(self.rollouts.run(), name="rollouts")
            tasks.create_task(self.newest.run(), name="newest rollouts")
            tasks.create_task(self.golden.run(), name="golden")

    async def save(self) -> None:
        """Store what is known now; for the end, after :meth:`run`."""
        await self.plane.save()
        await self.rollouts.stop()
