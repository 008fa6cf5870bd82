"""A control plane's rollouts without a control plane: what runs is what a test says, and time moves by hand."""

from control_builders import instance, pair
from serin_control.alarms import Alarms
from serin_control.instance import Service
from serin_control.judge.observation import Observation
from serin_control.lane_memory import LaneMemory
from serin_control.plan import ModelPlan, Share, TrafficPlan
from serin_control.rollouts.act import Actor
from serin_control.rollouts.desk import Desk
from serin_control.rollouts.engine import Engine, Mesh
from serin_control.rollouts.leadership import Leadership
from serin_control.rollouts.store import MemoryRollouts
from serin_control.testing import ScriptedCourt
from serin_control.topology import Topology, draw

ANN = Actor("ann", "cli")


def declared(**weights: int) -> TrafficPlan:
    """Model small with these versions and weights, tokenizer and worker of one version together."""
    shares = tuple(Share(((Service.TOKENIZER, v), (Service.WORKER, v)), weight) for v, weight in weights.items())
    return TrafficPlan({"small": ModelPlan("small", shares=shares)})


class Stage:
    """One control plane's rollouts on a store that others may share."""

    def __init__(self, clock, store=None, name: str = "c1", instances=None, court=None, **desk) -> None:
        self.clock = clock
        self.store = store or MemoryRollouts()
        self.court = court or ScriptedCourt()
        self.alarms = Alarms()
        self.plan = declared(v1=100)
        self.running = instances if instances is not None else [*pair("v1"), instance("w2", version="v2")]
        self.steered = TrafficPlan()
        self.memory = LaneMemory(clock)
        self.settled = True
        self.sealed = {}
        mesh = Mesh(
            lambda: tuple(self.running), lambda: self.plan, self._steer, lambda: self.settled, seal=self._hold_to
        )
        leadership = Leadership(self.store, name, f"127.0.0.1:{len(name)}", clock)
        self.engine = Engine(self.store, self.court, mesh, leadership, self.alarms, clock=clock, wall_clock=clock)
        self.desk = Desk(self.engine, **desk)
        self._steering = lambda plan: plan

    def _steer(self, steering) -> None:
        self._steering = steering
        self.weights()

    def _hold_to(self, sealed) -> None:
        self.sealed = sealed

    async def look(self, seconds: float = 0.25) -> None:
        """Let time pass, and look once."""
        self.clock.advance(seconds)
        await self.engine.look()

    def weights(self) -> dict[str, int]:
        """Weight of each published lane, by its worker's version, as the plan is steered now."""
        return {lane.members[1].version: lane.weight for model in self.topology().models for lane in model.lanes}

    def topology(self) -> Topology:
        """What is published, as the plan is steered now."""
        topology = draw(self._steering(self.plan), tuple(self.running), self.memory.carried).topology
        self.memory.note(topology)
        return topology

    def service_shares(self, service: Service = Service.GATEWAY) -> dict[str, int]:
        """How versions of a service that all models share do so."""
        return dict(self._steering(self.plan).service_shares[service])

    def arbiter(self, rollout_id: str = "small-1"):
        """The judge of a rollout."""
        return self.court.arbiters[rollout_id]

    def observe(self, num_requests: int, lane: str = "", first: int = 0) -> None:
        """So many requests on the canary end well, each of its own session."""
        (trial,) = self.engine.bench.running()
        for number in range(first, first + num_requests):
            seen = Observation(f"r{number}", lane or trial.canary_lane, number, self.clock())
            self.engine.bench.observe("small", seen)
