"""Memory of workers reaches whoever judges it, by lane, with the requests that were seen to end there."""

import pytest
from control_builders import pair, registration
from control_intake import IntakeLog
from serin_control.config import parse_config
from serin_control.instance import Service
from serin_control.judge.observation import Observation, ProcessMemory
from serin_control.latest import Latest
from serin_control.observations.worker_memory import EVERY_S, WorkerMemory
from serin_control.plan import declared_plan
from serin_control.topology import Topology, draw

CONFIG = "models: {small: {versions: {v1: {path: x, weight: 50}, v2: {path: y, weight: 50}}}}"


@pytest.fixture
def topologies() -> Latest[Topology]:
    """Two lanes of one model."""
    latest: Latest[Topology] = Latest()
    plan = declared_plan(parse_config(CONFIG))
    latest.set(draw(plan, pair("v1", num_workers=2) + pair("v2"), {}).topology)
    return latest


def ended(worker: str) -> Observation:
    """A request that a worker ended."""
    return Observation("r", "l", 1, 0.0, worker=worker)


def test_a_sample_names_lane_memory_and_requests(topologies, clock):
    """One every few seconds; requests of other workers do not count."""
    log = IntakeLog()
    memory = WorkerMemory(log, topologies, clock)
    (model,) = topologies.value.models
    lane = next(lane.id for lane in model.lanes if dict(lane.versions)[Service.WORKER] == "v1")
    for worker in ("w0-small-v1", "w0-small-v1", "w1-small-v1", ""):
        memory.attempt_ended(ended(worker))
    who = registration("w0-small-v1")
    began = clock.now
    memory.heard(who, 1000)
    memory.heard(who, 2000)  # too soon
    clock.advance(EVERY_S)
    memory.heard(who, 3000)
    assert log.heard == [
        ("small", ProcessMemory(lane, "w0-small-v1", began, 1000, 2)),
        ("small", ProcessMemory(lane, "w0-small-v1", began + EVERY_S, 3000, 2)),
    ]


def test_what_says_nothing_is_passed_over(topologies, clock):
    """Services without a model, workers that do not know or are in no lane, tokenizers."""
    log = IntakeLog()
    memory = WorkerMemory(log, topologies, clock)
    memory.heard(registration("g", Service.GATEWAY), 1)
    memory.heard(registration("t-small-v1", Service.TOKENIZER), 1)
    memory.heard(registration("w0-small-v1"), 0)
    memory.heard(registration("elsewhere"), 1)
    memory.heard(registration("w0-small-v1", model="other"), 1)
    WorkerMemory(log, Latest(), clock).heard(registration("w0-small-v1"), 1)
    assert log.heard == []


def test_a_clock_that_is_set_back_silences_nobody(topologies, clock):
    """The next sample counts from there."""
    log = IntakeLog()
    memory = WorkerMemory(log, topologies, clock)
    memory.heard(registration("w0-small-v1"), 1)
    clock.advance(-3600)
    memory.heard(registration("w0-small-v1"), 1)
    assert len(log.heard) == 2
