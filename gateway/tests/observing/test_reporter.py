"""Observations reach every control plane, in order, each batch until it is taken."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from serin.control.v1 import observation_pb2, observation_pb2_grpc
from serin_gateway.attempt_receipt import AttemptReceipt
from serin_gateway.observing.buffer import ObservationBuffer
from serin_gateway.observing.observation import Beginning, Feedback, Observation, ShadowScore
from serin_gateway.recall import RecallOutcome
from serin_gateway.settings import GatewaySettings
from serin_gateway.upstream import observations
from serin_gateway.upstream.observations import ObservationReporter
from serin_mesh.errors import MeshError, Reason
from serin_mesh.settings import ServiceSettings
from serin_mesh.testing import running


class Plane(observation_pb2_grpc.ObservationServiceServicer):
    """A control plane that keeps what it takes; `refuse` makes it take nothing."""

    def __init__(self) -> None:
        self.taken: list[observation_pb2.ReportObservationsRequest] = []
        self.refuse: MeshError | None = None
        self.asked = asyncio.Event()
        self._news = asyncio.Event()

    async def ReportObservations(self, request, context):  # noqa: N802 - the method's name in the contract
        """Take a batch."""
        self.asked.set()
        if self.refuse is not None:
            raise self.refuse
        if request.batch not in {batch.batch for batch in self.taken}:  # again: its answer was not waited for
            self.taken.append(request)
        self._news.set()
        return observation_pb2.ReportObservationsResponse()

    async def until_taken(self, count: int) -> None:
        """Wait for so many batches."""
        while len(self.taken) < count:
            self._news.clear()
            await self._news.wait()

    def register(self, server) -> None:
        """Serve it."""
        observation_pb2_grpc.add_ObservationServiceServicer_to_server(self, server)


@pytest.fixture(autouse=True)
def often(monkeypatch):
    """Twenty batches a second."""
    monkeypatch.setattr(observations, "EVERY_S", 0.05)


@asynccontextmanager
async def reporting(buffer: ObservationBuffer, *addresses: str):
    """A reporter at work."""
    settings = GatewaySettings(control=",".join(addresses), instance="gateway-1")
    task = asyncio.create_task(ObservationReporter(settings, buffer).keep_reporting())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def observation(number: int = 1, **fields) -> Observation:
    """An attempt that ended well."""
    attempt = AttemptReceipt(lane="aa", reason="ok", **fields)
    return Observation(f"req-{number}", "small", 2**64 - 1, 1_700_000_000.25, attempt)


async def test_everything_that_was_observed_arrives_as_it_was():
    """Attempts, scores and feedback; absent stays absent."""
    buffer, plane = ObservationBuffer(), Plane()
    buffer.observe(
        observation(
            worker="w1",
            placed_at=1.0,
            first_at=1.5,
            last_at=2.5,
            worker_load=3,
            num_placements=2,
            num_prompt_tokens=10,
            num_cached_tokens=4,
            num_answer_tokens=6,
            longest_answer=5,
            finish_reasons={"stop": 1, "length": 1},
            refused=False,
            recall=RecallOutcome.PREFIX,
            recall_s=0.25,
        )
    )
    buffer.begin(Beginning("small", "aa", 2**64 - 1))
    buffer.observe(observation(2, was_told_of=True))
    buffer.score(ShadowScore("small", 5, "aa", "bb", 7, -1.0, -1.5, 0.5))
    buffer.feedback(Feedback("req-1", "small", "aa", 5, 0.5, 3.0))
    async with running(plane.register, "control") as host, reporting(buffer, host.address):
        await plane.until_taken(1)
    (batch,) = plane.taken
    assert (batch.gateway, batch.batch) == ("gateway-1", 1)
    first, second = batch.observations
    assert (first.request_id, first.model, first.lane, first.session) == ("req-1", "small", "aa", 2**64 - 1)
    assert (first.finished_at.seconds, first.finished_at.nanos) == (1_700_000_000, 250_000_000)
    assert (first.first_token_seconds, first.seconds_per_token) == (0.5, 0.25)
    assert (first.uncached_token_count, first.cached_token_count, first.answer_token_count) == (6, 4, 6)
    assert (first.worker, first.worker_load, first.resume_count) == ("w1", 3, 1)
    assert dict(first.finish_reasons) == {"stop": 1, "length": 1}
    assert (first.HasField("refused"), first.refused, first.HasField("schema_valid")) == (True, False, False)
    assert (first.recall, first.recall_seconds) == (observation_pb2.RECALL_OUTCOME_PREFIX, 0.25)
    (begun,) = batch.begun
    assert (begun.model, begun.lane, begun.session) == ("small", "aa", 2**64 - 1)
    assert (first.begun_reported, second.begun_reported) == (False, True)
    assert not second.HasField("refused")
    assert second.recall == observation_pb2.RECALL_OUTCOME_UNSPECIFIED
    (score,), (feedback,) = batch.shadow_scores, batch.feedback
    assert (score.stable_lane, score.canary_lane, score.token_count, score.agreement) == ("aa", "bb", 7, 0.5)
    assert (feedback.request_id, feedback.score, feedback.given_at.seconds) == ("req-1", 0.5, 3)


async def test_a_lane_that_lost_its_answer_is_told_of_as_such():
    """Another lane saved it: its own gets no credit for that, the other one neither credit nor blame."""
    buffer, plane = ObservationBuffer(), Plane()
    buffer.observe(observation(taken_over_by="bb"))
    async with running(plane.register, "control") as host, reporting(buffer, host.address):
        await plane.until_taken(1)
    (batch,) = plane.taken
    assert [(one.lane, one.reason) for one in batch.observations] == [("aa", "LANE_LOST")]


async def test_every_control_plane_hears_everything_once_and_in_order():
    """One that refuses for a while gets what it missed; the other does not wait for it, nor hears anything twice."""
    buffer, here, away = ObservationBuffer(), Plane(), Plane()
    away.refuse = MeshError(Reason.NOT_READY, "not yet")
    async with (
        running(here.register, "control") as one,
        running(away.register, "control") as two,
        reporting(buffer, one.address, two.address),
    ):
        for number in range(1, 4):
            buffer.observe(observation(number))
            await here.until_taken(number)
        await away.asked.wait()
        assert away.taken == []
        away.refuse = None
        await away.until_taken(3)
    for plane in (here, away):
        assert [batch.batch for batch in plane.taken] == [1, 2, 3]
        assert len({batch.epoch for batch in plane.taken}) == 1
        assert [one.request_id for batch in plane.taken for one in batch.observations] == ["req-1", "req-2", "req-3"]


async def test_what_a_control_plane_missed_too_much_of_is_counted(monkeypatch):
    """The oldest batches go; the next one that is taken says how many observations went with them."""
    monkeypatch.setattr(observations, "MAX_WAITING_OBSERVATIONS", 2)
    buffer, plane = ObservationBuffer(), Plane()
    plane.refuse = MeshError(Reason.NOT_READY, "not yet")
    settings = GatewaySettings(control="127.0.0.1:1", instance="g")
    reporter = ObservationReporter(settings, buffer)
    for number in range(1, 5):
        buffer.observe(observation(number))
        await reporter.put_batches()
    assert buffer.num_dropped == 2
    plane.refuse = None
    async with running(plane.register, "control") as host:
        reporter._planes[0].address = host.address
        await reporter._planes[0].say_farewell()
    assert [batch.batch for batch in plane.taken] == [3, 4]
    assert [batch.dropped_count for batch in plane.taken] == [2, 0]


async def test_a_batch_that_is_refused_for_good_is_not_sent_for_ever():
    """It is dropped and counted, and the next one is sent."""
    buffer, plane = ObservationBuffer(), Plane()
    plane.refuse = MeshError(Reason.PARAMETER_INVALID, "no such thing")
    async with running(plane.register, "control") as host, reporting(buffer, host.address):
        buffer.observe(observation(1))
        await plane.asked.wait()
        plane.refuse = None
        buffer.observe(observation(2))
        await plane.until_taken(1)
    assert [one.request_id for one in plane.taken[-1].observations] == ["req-2"]
    assert plane.taken[-1].dropped_count == 1


async def test_an_end_in_order_loses_nothing(monkeypatch):
    """What was observed since the last batch is sent before the reporter ends."""
    monkeypatch.setattr(observations, "EVERY_S", 600.0)
    buffer, plane = ObservationBuffer(), Plane()
    async with running(plane.register, "control", settings=ServiceSettings()) as host:
        async with reporting(buffer, host.address):
            await asyncio.sleep(0)
            buffer.observe(observation())
        assert len(plane.taken) == 1


async def test_without_control_planes_nothing_piles_up():
    """A gateway by itself observes and forgets."""
    buffer = ObservationBuffer()
    reporter = ObservationReporter(GatewaySettings(), buffer)
    buffer.observe(observation())
    await reporter.put_batches()
    assert buffer.take() is None
