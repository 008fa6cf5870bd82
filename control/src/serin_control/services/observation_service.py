"""ObservationService: what gateways report, each batch once, to whoever wants to hear it."""

from typing import Any

from serin.control.v1 import observation_pb2, observation_pb2_grpc

from serin_control.observations.ledger import BatchLedger
from serin_control.observations.worker_memory import WorkerMemory
from serin_control.rollouts.intake import Intake
from serin_control.services.observation_messages import (
    beginning_from,
    check_batch,
    feedback_from,
    observation_from,
    score_from,
)


class ObservationService(observation_pb2_grpc.ObservationServiceServicer):
    """Takes batches, whole or not at all.

    Args:
        intake: who is told.
        memory: counts requests by worker.
    """

    def __init__(self, intake: Intake, memory: WorkerMemory) -> None:
        self._intake = intake
        self._memory = memory
        self._ledger = BatchLedger()
        self.num_observations = 0
        self.num_dropped = 0
        """Observations that gateways say to have dropped."""

    async def ReportObservations(  # noqa: N802 - the method's name in the contract
        self, request: observation_pb2.ReportObservationsRequest, context: Any
    ) -> observation_pb2.ReportObservationsResponse:
        """Take a batch; one that was taken before changes nothing."""
        check_batch(request)
        begun = [(one.model, beginning_from(one)) for one in request.begun]
        observations = [(one.model, observation_from(one)) for one in request.observations]
        scores = [(one.model, score_from(one)) for one in request.shadow_scores]
        feedback = [(one.model, feedback_from(one)) for one in request.feedback]
        # Nothing is awaited from here on: who reads the ledger also tells, so that no batch counts twice or in part.
        if self._ledger.take(request.gateway, request.epoch, request.batch):
            self.num_observations += len(observations)
            self.num_dropped += request.dropped_count
            for model, beginning in begun:  # before the ends: one that has ended already is counted once
                self._intake.begin(model, beginning, request.gateway)
            for model, observation in observations:
                self._memory.attempt_ended(observation)
                self._intake.observe(model, observation, request.gateway)
            for model, score in scores:
                self._intake.score(model, score)
            for model, opinion in feedback:
                self._intake.feedback(model, opinion)
        return observation_pb2.ReportObservationsResponse()
