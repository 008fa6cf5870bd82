"""Memory of worker processes, from their heartbeats to whoever judges whether it leaks.

A worker's memory is reported with the number of requests that were seen to end on it. Knows nothing about heartbeats'
wire, or about what a leak is.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator

from serin_control.instance import Registration, Service
from serin_control.judge.observation import Observation, ProcessMemory
from serin_control.latest import Latest
from serin_control.rollouts.intake import Intake
from serin_control.topology import Topology

EVERY_S = 5.0
MAX_INSTANCES = 10_000


class WorkerMemory:
    """Turns heartbeats into samples, one of each worker every few seconds.

    Args:
        intake: who wants them.
        topologies: tells which lanes a worker is in.
        clock: Unix seconds.
    """

    def __init__(self, intake: Intake, topologies: Latest[Topology], clock: Callable[[], float] = time.time) -> None:
        self._intake = intake
        self._topologies = topologies
        self._clock = clock
        self._sampled_at: dict[str, float] = {}
        self._num_requests: Counter[str] = Counter()

    def attempt_ended(self, observation: Observation) -> None:
        """Count a request that a worker ended."""
        if observation.worker:
            self._num_requests[observation.worker] += 1

    def heard(self, registration: Registration, resident_bytes: int) -> None:
        """An instance said how much memory it holds; 0: it does not know."""
        name, now = registration.instance, self._clock()
        if registration.service is not Service.WORKER or not resident_bytes:
            return
        since_s = now - self._sampled_at.get(name, 0.0)
        if 0 <= since_s < EVERY_S:  # a clock that was set back does not silence it
            return
        if len(self._sampled_at) >= MAX_INSTANCES:
            self._forget()
        self._sampled_at[name] = now
        for lane in self._lanes(registration):
            sample = ProcessMemory(lane, name, now, resident_bytes, self._num_requests[name])
            self._intake.memory(registration.model, sample)

    def _lanes(self, registration: Registration) -> Iterator[str]:
        topology = self._topologies.value
        for model in topology.models if topology else ():
            for lane in model.lanes if model.plan.name == registration.model else ():
                names = {one.registration.instance for member in lane.members for one in member.instances}
                if registration.instance in names:
                    yield lane.id

    def _forget(self) -> None:
        """Begin anew; instances come and go, and a sample more or less changes nothing."""
        self._sampled_at.clear()
        self._num_requests.clear()
