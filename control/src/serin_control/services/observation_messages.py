"""Observations from the wire, checked one by one. Knows nothing about who reports them, or what becomes of them."""

import math
import re

from serin.control.v1 import observation_pb2
from serin_mesh.errors import MeshError, Reason

from serin_control.judge.observation import Beginning, Feedback, Observation, Recall, ShadowScore

MAX_OBSERVATIONS = 4096
MAX_SCORES = 1024
MAX_FEEDBACK = 1024
MAX_SECONDS = 86_400.0
MAX_TOKENS = 2**31
_RECALLS = {
    observation_pb2.RECALL_OUTCOME_SKIPPED: Recall.SKIPPED,
    observation_pb2.RECALL_OUTCOME_MISSED: Recall.MISSED,
    observation_pb2.RECALL_OUTCOME_PREFIX: Recall.PREFIX,
    observation_pb2.RECALL_OUTCOME_ANSWER: Recall.ANSWER,
    observation_pb2.RECALL_OUTCOME_FAILED: Recall.FAILED,
}
FINISH_REASONS = frozenset({"stop", "length", "tool_calls", "content_filter"})

_NAME = re.compile(r"[a-zA-Z0-9._-]{1,128}\Z")
_MODEL = re.compile(r"[a-z0-9._-]{1,64}\Z")
_LANE = re.compile(r"[0-9a-z._-]{1,64}\Z")
_REASON = re.compile(r"ok\Z|[A-Z][A-Z0-9_]{0,63}\Z")


def check_batch(request: observation_pb2.ReportObservationsRequest) -> None:
    """Refuse a batch that names no sender or is too large.

    Raises:
        MeshError: PARAMETER_INVALID with the field's name.
    """
    _check("gateway", bool(_NAME.match(request.gateway)), request.gateway, "the name of an instance")
    _check("batch", request.batch > 0, request.batch, "1 or more")
    for name, found, most in (
        ("observations", len(request.observations), MAX_OBSERVATIONS),
        ("begun", len(request.begun), MAX_OBSERVATIONS),
        ("shadow_scores", len(request.shadow_scores), MAX_SCORES),
        ("feedback", len(request.feedback), MAX_FEEDBACK),
    ):
        _check(name, found <= most, found, f"at most {most}")


def beginning_from(message: observation_pb2.AttemptBegun) -> Beginning:
    """One attempt that began.

    Raises:
        MeshError: PARAMETER_INVALID, it is incomplete.
    """
    _check_place("begun", message.model, message.lane)
    return Beginning(message.lane, message.session)


def observation_from(message: observation_pb2.Observation) -> Observation:
    """One attempt.

    Raises:
        MeshError: PARAMETER_INVALID, it is incomplete.
    """
    _check_place("observations", message.model, message.lane or "-")
    _check("observations.reason", bool(_REASON.match(message.reason)), message.reason, '"ok" or a reason')
    for name, seconds in (
        ("first_token_seconds", message.first_token_seconds),
        ("seconds_per_token", message.seconds_per_token),
        ("recall_seconds", message.recall_seconds),
    ):
        _check(f"observations.{name}", 0 <= seconds <= MAX_SECONDS, seconds, f"0 to {MAX_SECONDS:.0f}")
    unknown = message.finish_reasons.keys() - FINISH_REASONS
    _check("observations.finish_reasons", not unknown, sorted(unknown), ", ".join(sorted(FINISH_REASONS)))
    return Observation(
        request_id=message.request_id,
        lane=message.lane,
        session=message.session,
        finished_at=message.finished_at.seconds + message.finished_at.nanos / 1e9,
        reason=message.reason,
        first_token_s=message.first_token_seconds,
        seconds_per_token=message.seconds_per_token,
        num_uncached_tokens=message.uncached_token_count,
        num_cached_tokens=message.cached_token_count,
        worker_load=message.worker_load,
        num_answer_tokens=message.answer_token_count,
        finish_reasons=dict(message.finish_reasons),
        num_resumes=message.resume_count,
        worker=message.worker,
        schema_valid=message.schema_valid if message.HasField("schema_valid") else None,
        refused=message.refused if message.HasField("refused") else None,
        recall=_RECALLS.get(message.recall, Recall.UNKNOWN),
        recall_s=message.recall_seconds,
        was_told_of=message.begun_reported,
    )


def score_from(message: observation_pb2.ShadowScore) -> ShadowScore:
    """One text that was scored on two lanes.

    Raises:
        MeshError: PARAMETER_INVALID, it is incomplete.
    """
    _check_place("shadow_scores", message.model, message.stable_lane, message.canary_lane)
    _check("shadow_scores.token_count", 0 < message.token_count < MAX_TOKENS, message.token_count, "1 or more")
    for name, value in (("stable_logprob", message.stable_logprob), ("canary_logprob", message.canary_logprob)):
        _check(f"shadow_scores.{name}", math.isfinite(value) and value <= 1e-3, value, "nats, at most 0")
    _check("shadow_scores.agreement", 0 <= message.agreement <= 1, message.agreement, "0 to 1")
    return ShadowScore(
        session=message.session,
        stable_lane=message.stable_lane,
        canary_lane=message.canary_lane,
        num_tokens=message.token_count,
        stable_logprob=message.stable_logprob,
        canary_logprob=message.canary_logprob,
        agreement=message.agreement,
    )


def feedback_from(message: observation_pb2.Feedback) -> Feedback:
    """What a caller thought of an answer.

    Raises:
        MeshError: PARAMETER_INVALID, it is incomplete.
    """
    _check_place("feedback", message.model, message.lane)
    _check("feedback.score", 0 <= message.score <= 1, message.score, "0 to 1")
    return Feedback(request_id=message.request_id, lane=message.lane, session=message.session, score=message.score)


def _check_place(what: str, model: str, *lanes: str) -> None:
    _check(f"{what}.model", bool(_MODEL.match(model)), model, "the name of a model")
    for lane in lanes:
        _check(f"{what}.lane", bool(_LANE.match(lane)), lane, "a lane")


def _check(field: str, holds: bool, value: object, accepted: str) -> None:
    if not holds:
        raise MeshError(
            Reason.PARAMETER_INVALID, f"{field}: {value!r:.80} is not accepted; accepted: {accepted}", parameter=field
        )
