"""Reports what was observed to every control plane (`serin.control.v1.ObservationService`).

Once a second a batch is made; each control plane has its own queue of batches and gets them in order, each until it is
taken. One that is away costs the others nothing: its queue is bounded, and when it is full the oldest batch goes and
is counted. Knows nothing about how anything is observed.
"""

import asyncio
import math
import secrets
from collections import deque

import structlog
from google.protobuf import timestamp_pb2
from serin.control.v1 import observation_pb2, observation_pb2_grpc
from serin_mesh.channels import ChannelSettings, connect, control_addresses
from serin_mesh.errors import MeshError, Reason

from serin_gateway.observing.buffer import ObservationBuffer
from serin_gateway.observing.observation import Batch, Beginning, Feedback, Observation, ShadowScore
from serin_gateway.recall import RecallOutcome

EVERY_S = 1.0
DEADLINE_S = 2.0
FAREWELL_S = 1.0
MAX_WAITING_OBSERVATIONS = 16_384
AT_ONCE = 128
"""Observations translated in one go; between two goes others get their turn."""

Message = observation_pb2.ReportObservationsRequest
_RECALLS = {
    None: observation_pb2.RECALL_OUTCOME_UNSPECIFIED,
    RecallOutcome.SKIPPED: observation_pb2.RECALL_OUTCOME_SKIPPED,
    RecallOutcome.MISSED: observation_pb2.RECALL_OUTCOME_MISSED,
    RecallOutcome.PREFIX: observation_pb2.RECALL_OUTCOME_PREFIX,
    RecallOutcome.ANSWER: observation_pb2.RECALL_OUTCOME_ANSWER,
    RecallOutcome.FAILED: observation_pb2.RECALL_OUTCOME_FAILED,
}

log = structlog.get_logger()


class ObservationReporter:
    """Reports a buffer; `keep_reporting` is a task of whoever owns it.

    Args:
        settings: where the control planes are, and who we are.
        buffer: what was observed.
    """

    def __init__(self, settings: ChannelSettings, buffer: ObservationBuffer) -> None:
        self._gateway = settings.instance
        self._buffer = buffer
        self._epoch = secrets.randbits(64)
        self._num_batches = 0
        self._planes = [_Plane(address, settings) for address in control_addresses(settings.control)]

    async def keep_reporting(self) -> None:
        """Report, for as long as this task lives, and what is left at its end."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for plane in self._planes:
                    tasks.create_task(plane.keep_sending(), name=f"report to {plane.address}")
                while True:
                    await asyncio.sleep(EVERY_S)
                    await self.put_batches()
        finally:
            await self.put_batches()
            await asyncio.gather(*(plane.say_farewell() for plane in self._planes))

    async def put_batches(self) -> None:
        """Put everything observed so far in line for every control plane."""
        while (batch := self._buffer.take()) is not None:
            self._num_batches += 1
            message = Message(
                gateway=self._gateway, batch=self._num_batches, epoch=self._epoch, dropped_count=batch.num_dropped
            )
            await fill(message, batch)
            for plane in self._planes:
                self._buffer.num_dropped += plane.put(message)


class _Plane:
    """One control plane and the batches it has not taken yet."""

    def __init__(self, address: str, settings: ChannelSettings) -> None:
        self.address = address
        self._settings = settings
        self._waiting: deque[Message] = deque()
        self._num_waiting = 0
        self._num_dropped = 0
        self._news = asyncio.Event()
        self._refused_with: Reason | None = None

    def put(self, message: Message) -> int:
        """Put a batch in line; returns how many observations had to go for it."""
        self._waiting.append(message)
        self._num_waiting += _size(message)
        num_dropped = 0
        while self._num_waiting > MAX_WAITING_OBSERVATIONS:
            num_dropped += self._pop()
        self._num_dropped += num_dropped
        self._news.set()
        return num_dropped

    async def keep_sending(self) -> None:
        async with connect(self.address, self._settings, echo_lane=False, service="control") as channel:
            stub = observation_pb2_grpc.ObservationServiceStub(channel)
            while True:
                while not self._waiting:
                    self._news.clear()
                    await self._news.wait()
                if not await self._send(stub, DEADLINE_S):
                    await asyncio.sleep(EVERY_S)

    async def say_farewell(self) -> None:
        """Send what is left, once, if it is taken at once."""
        if self._waiting:
            async with connect(self.address, self._settings, echo_lane=False, service="control") as channel:
                stub = observation_pb2_grpc.ObservationServiceStub(channel)
                while self._waiting and await self._send(stub, FAREWELL_S):
                    pass

    async def _send(self, stub: "observation_pb2_grpc.ObservationServiceAsyncStub", deadline_s: float) -> bool:
        """Send the oldest batch; False: it was not taken, and stays unless it would never be."""
        message, num_dropped = self._waiting[0], self._num_dropped
        if num_dropped:
            copy = Message()
            copy.CopyFrom(message)
            copy.dropped_count += num_dropped
        try:
            await stub.ReportObservations(copy if num_dropped else message, timeout=deadline_s)
        except MeshError as error:
            if not error.status.retryable and error.reason is not Reason.DEADLINE_EXCEEDED:
                if error.reason is not self._refused_with:
                    log.error("observations.refused", control=self.address, reason=error.reason, message=error.message)
                self._refused_with = error.reason
                if self._waiting and self._waiting[0] is message:
                    self._num_dropped += self._pop()
            return False
        self._refused_with = None
        self._num_dropped -= num_dropped
        if self._waiting and self._waiting[0] is message:  # else it was dropped while it was on its way
            self._pop()
        return True

    def _pop(self) -> int:
        message = self._waiting.popleft()
        self._num_waiting -= _size(message)
        return len(message.observations)


def _size(message: Message) -> int:
    return len(message.observations) + len(message.begun)


async def fill(message: Message, batch: Batch) -> None:
    """Translate a batch into its message, a part at a time."""
    for start in range(0, len(batch.begun), AT_ONCE):
        message.begun.extend(map(_beginning, batch.begun[start : start + AT_ONCE]))
        await asyncio.sleep(0)
    for start in range(0, len(batch.observations), AT_ONCE):
        message.observations.extend(map(_observation, batch.observations[start : start + AT_ONCE]))
        await asyncio.sleep(0)
    message.shadow_scores.extend(map(_score, batch.scores))
    message.feedback.extend(map(_feedback, batch.feedback))


def _beginning(begun: Beginning) -> observation_pb2.AttemptBegun:
    return observation_pb2.AttemptBegun(model=begun.model, lane=begun.lane, session=begun.session)


def _observation(observed: Observation) -> observation_pb2.Observation:
    attempt = observed.attempt
    message = observation_pb2.Observation(
        request_id=observed.request_id,
        model=observed.model,
        lane=attempt.lane,
        session=observed.session,
        reason=attempt.lane_reason,
        first_token_seconds=attempt.first_token_s,
        seconds_per_token=attempt.seconds_per_token,
        uncached_token_count=max(0, attempt.num_prompt_tokens - attempt.num_cached_tokens),
        cached_token_count=attempt.num_cached_tokens,
        worker_load=attempt.worker_load,
        answer_token_count=attempt.num_answer_tokens,
        finish_reasons=attempt.finish_reasons,
        resume_count=attempt.num_resumes,
        worker=attempt.worker,
        refused=attempt.refused,
        recall=_RECALLS[attempt.recall],
        recall_seconds=attempt.recall_s,
        begun_reported=attempt.was_told_of,
    )
    _set_time(message.finished_at, observed.finished_at)
    return message


def _score(score: ShadowScore) -> observation_pb2.ShadowScore:
    return observation_pb2.ShadowScore(
        model=score.model,
        session=score.session,
        stable_lane=score.stable_lane,
        canary_lane=score.canary_lane,
        token_count=score.num_tokens,
        stable_logprob=score.stable_logprob,
        canary_logprob=score.canary_logprob,
        agreement=score.agreement,
    )


def _feedback(feedback: Feedback) -> observation_pb2.Feedback:
    message = observation_pb2.Feedback(
        request_id=feedback.request_id,
        model=feedback.model,
        lane=feedback.lane,
        session=feedback.session,
        score=feedback.score,
    )
    _set_time(message.given_at, feedback.given_at)
    return message


def _set_time(field: timestamp_pb2.Timestamp, at: float) -> None:
    whole = math.floor(at)
    field.seconds, field.nanos = whole, int((at - whole) * 1e9)
