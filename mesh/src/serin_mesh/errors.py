"""The one table of errors: reason, gRPC status, HTTP status, OpenAI type, Anthropic type; and the way over the wire.

    MeshError          what a handler raises and a caller of a stub catches; it carries a Reason
      (SettingsError   lives in settings.py: it ends a process and never crosses a wire)

Over the wire an error is a gRPC status with exactly one ``google.rpc.ErrorInfo``. Knows nothing about HTTP bodies: a
gateway shapes those from the table.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]  # it ships stubs, unmarked
from grpc_status import rpc_status

DOMAIN = "serin"
"""Domain of every ``google.rpc.ErrorInfo`` that the mesh sends."""


class Reason(enum.StrEnum):
    """What went wrong, for programs. The sentence for people is the error's message."""

    PARAMETER_INVALID = "PARAMETER_INVALID"
    PARAMETER_UNSUPPORTED = "PARAMETER_UNSUPPORTED"
    PARAMETER_UNKNOWN = "PARAMETER_UNKNOWN"
    MALFORMED_BODY = "MALFORMED_BODY"
    BODY_TOO_LARGE = "BODY_TOO_LARGE"
    PROMPT_TOO_LONG = "PROMPT_TOO_LONG"
    TEMPLATE_REJECTED = "TEMPLATE_REJECTED"
    TEMPLATE_ARGUMENT_UNKNOWN = "TEMPLATE_ARGUMENT_UNKNOWN"
    TEMPLATE_LIMIT = "TEMPLATE_LIMIT"
    CONTENT_REFUSED = "CONTENT_REFUSED"
    GRAMMAR_INVALID = "GRAMMAR_INVALID"
    GRAMMAR_LIMIT = "GRAMMAR_LIMIT"
    ADAPTER_NOT_FOUND = "ADAPTER_NOT_FOUND"
    KEY_MISSING = "KEY_MISSING"
    KEY_INVALID = "KEY_INVALID"
    ROLE_INSUFFICIENT = "ROLE_INSUFFICIENT"
    IDENTITY_REFUSED = "IDENTITY_REFUSED"
    MODEL_NOT_FOUND = "MODEL_NOT_FOUND"
    NOT_FOUND = "NOT_FOUND"
    METHOD_NOT_ALLOWED = "METHOD_NOT_ALLOWED"
    IDEMPOTENCY_CONFLICT = "IDEMPOTENCY_CONFLICT"
    RATE_LIMITED = "RATE_LIMITED"
    QUEUE_FULL = "QUEUE_FULL"
    AUTH_UNAVAILABLE = "AUTH_UNAVAILABLE"
    GUARD_UNAVAILABLE = "GUARD_UNAVAILABLE"
    NOT_READY = "NOT_READY"
    LANE_GONE = "LANE_GONE"
    LANE_LOST = "LANE_LOST"
    POISON_REQUEST = "POISON_REQUEST"
    VOCABULARY_MISMATCH = "VOCABULARY_MISMATCH"
    KV_MISMATCH = "KV_MISMATCH"
    VERSION_MISMATCH = "VERSION_MISMATCH"
    REGISTRATION_INVALID = "REGISTRATION_INVALID"
    CONFIG_INVALID = "CONFIG_INVALID"
    CONFIG_CONFLICT = "CONFIG_CONFLICT"
    ROLLOUT_INVALID = "ROLLOUT_INVALID"
    ROLLOUT_CONFLICT = "ROLLOUT_CONFLICT"
    ROLLOUTS_FROZEN = "ROLLOUTS_FROZEN"
    VERSION_GONE = "VERSION_GONE"
    NOT_LEADING = "NOT_LEADING"
    DEADLINE_MISSING = "DEADLINE_MISSING"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    CANCELLED = "CANCELLED"
    NUMERICS_FAILED = "NUMERICS_FAILED"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    NOT_IMPLEMENTED = "NOT_IMPLEMENTED"
    UPSTREAM_UNAVAILABLE = "UPSTREAM_UNAVAILABLE"
    INTERNAL = "INTERNAL"


class MeshError(Exception):
    """A failure that crosses rooms.

    Args:
        reason: what a program switches on.
        message: one sentence a person can act on; never holds prompt text.
        metadata: further facts by name, for example ``parameter="top_p"`` or ``retry_after_s="2"``.
    """

    def __init__(self, reason: Reason, message: str, **metadata: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata: Mapping[str, str] = MappingProxyType(metadata)

    @property
    def status(self) -> "StatusRow":
        """This error's row of the table."""
        return STATUS[self.reason]

    def __repr__(self) -> str:
        return f"MeshError({self.reason.value}, {self.message!r})"


@dataclass(frozen=True, slots=True)
class StatusRow:
    """How one reason looks to each kind of caller; ``retryable``: the same call may succeed later, elsewhere."""

    grpc: grpc.StatusCode
    http: int
    openai_type: str
    anthropic_type: str
    retryable: bool = False


_code = grpc.StatusCode
_invalid = StatusRow(_code.INVALID_ARGUMENT, 400, "invalid_request_error", "invalid_request_error")
_too_large = StatusRow(_code.INVALID_ARGUMENT, 413, "invalid_request_error", "request_too_large")
_unauthenticated = StatusRow(_code.UNAUTHENTICATED, 401, "authentication_error", "authentication_error")
_forbidden = StatusRow(_code.PERMISSION_DENIED, 403, "permission_error", "permission_error")
_not_found = StatusRow(_code.NOT_FOUND, 404, "invalid_request_error", "not_found_error")
_limited = StatusRow(_code.RESOURCE_EXHAUSTED, 429, "rate_limit_error", "rate_limit_error", retryable=True)
_overloaded = StatusRow(_code.RESOURCE_EXHAUSTED, 503, "server_error", "overloaded_error", retryable=True)
_unavailable = StatusRow(_code.UNAVAILABLE, 503, "server_error", "overloaded_error", retryable=True)
_mismatch = StatusRow(_code.FAILED_PRECONDITION, 503, "server_error", "overloaded_error", retryable=True)
_precondition = StatusRow(_code.FAILED_PRECONDITION, 409, "invalid_request_error", "invalid_request_error")
_failed = StatusRow(_code.INTERNAL, 500, "server_error", "api_error")

STATUS: Mapping[Reason, StatusRow] = MappingProxyType(
    {
        Reason.PARAMETER_INVALID: _invalid,
        Reason.PARAMETER_UNSUPPORTED: _invalid,
        Reason.PARAMETER_UNKNOWN: _invalid,
        Reason.MALFORMED_BODY: _invalid,
        Reason.BODY_TOO_LARGE: _too_large,
        Reason.PROMPT_TOO_LONG: _invalid,
        Reason.TEMPLATE_REJECTED: _invalid,
        Reason.TEMPLATE_ARGUMENT_UNKNOWN: _invalid,
        Reason.TEMPLATE_LIMIT: _invalid,
        Reason.CONTENT_REFUSED: _invalid,
        Reason.GRAMMAR_INVALID: _invalid,
        Reason.GRAMMAR_LIMIT: _invalid,
        Reason.ADAPTER_NOT_FOUND: _not_found,
        Reason.KEY_MISSING: _unauthenticated,
        Reason.KEY_INVALID: _unauthenticated,
        Reason.ROLE_INSUFFICIENT: _forbidden,
        Reason.IDENTITY_REFUSED: _forbidden,
        Reason.MODEL_NOT_FOUND: _not_found,
        Reason.NOT_FOUND: _not_found,
        Reason.METHOD_NOT_ALLOWED: StatusRow(
            _code.UNIMPLEMENTED, 405, "invalid_request_error", "invalid_request_error"
        ),
        Reason.IDEMPOTENCY_CONFLICT: _precondition,
        Reason.RATE_LIMITED: _limited,
        Reason.QUEUE_FULL: _overloaded,
        Reason.AUTH_UNAVAILABLE: _unavailable,
        Reason.GUARD_UNAVAILABLE: _unavailable,
        Reason.NOT_READY: _unavailable,
        Reason.LANE_GONE: _unavailable,
        Reason.LANE_LOST: _unavailable,
        Reason.POISON_REQUEST: _failed,
        Reason.VOCABULARY_MISMATCH: _mismatch,
        Reason.KV_MISMATCH: _mismatch,
        Reason.VERSION_MISMATCH: _precondition,
        Reason.REGISTRATION_INVALID: _invalid,
        Reason.CONFIG_INVALID: _invalid,
        Reason.CONFIG_CONFLICT: StatusRow(
            _code.ABORTED, 409, "conflict_error", "invalid_request_error", retryable=True
        ),
        Reason.ROLLOUT_INVALID: _invalid,
        Reason.ROLLOUT_CONFLICT: _precondition,
        Reason.ROLLOUTS_FROZEN: _precondition,
        Reason.VERSION_GONE: _precondition,
        Reason.NOT_LEADING: _unavailable,
        Reason.DEADLINE_MISSING: _invalid,
        Reason.DEADLINE_EXCEEDED: StatusRow(_code.DEADLINE_EXCEEDED, 504, "timeout_error", "timeout_error"),
        Reason.CANCELLED: StatusRow(_code.CANCELLED, 499, "invalid_request_error", "api_error"),
        Reason.NUMERICS_FAILED: _failed,
        Reason.OUT_OF_MEMORY: _overloaded,
        Reason.NOT_IMPLEMENTED: StatusRow(_code.UNIMPLEMENTED, 501, "invalid_request_error", "invalid_request_error"),
        Reason.UPSTREAM_UNAVAILABLE: _unavailable,
        Reason.INTERNAL: _failed,
    }
)

MAX_MESSAGE_CHARACTERS = 2000
"""Longer messages are cut on the wire: statuses travel in HTTP/2 trailers, which peers bound at 8 KiB."""


def to_status(error: MeshError) -> grpc.Status:
    """The gRPC status of an error, for ``context.abort_with_status``."""
    rich = status_pb2.Status(code=error.status.grpc.value[0], message=error.message[:MAX_MESSAGE_CHARACTERS])
    info = error_details_pb2.ErrorInfo(reason=error.reason.value, domain=DOMAIN)
    for key, value in error.metadata.items():
        info.metadata[key] = value[:MAX_MESSAGE_CHARACTERS]
    rich.details.add().Pack(info)
    status: grpc.Status = rpc_status.to_status(rich)  # type: ignore[no-untyped-call]
    return status


def from_rpc_error(error: grpc.RpcError) -> MeshError:
    """What a failed call means: our own error as it was raised, or a foreign status by its code."""
    code: grpc.StatusCode = error.code()
    details = error.details() or ""
    trailing: Any = error.trailing_metadata() or ()  # declared as one pair, and really pairs
    for key, value in trailing:
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            ours = _unpack(value)
            if ours is not None:
                return ours
    reason = _foreign_reason(code, details)
    return MeshError(reason, f"{code.name}: {details}" if details else code.name)


def from_status(status: grpc.Status) -> MeshError:
    """The error that :func:`to_status` made a status of, or a foreign status by its code."""
    for key, value in status.trailing_metadata or ():
        ours = _unpack(value) if key == "grpc-status-details-bin" and isinstance(value, bytes) else None
        if ours is not None:
            return ours
    return MeshError(_foreign_reason(status.code, status.details or ""), status.details or status.code.name)


def from_facts(code: int, reason: str, message: str, facts: Mapping[str, str]) -> MeshError:
    """A failure that came as fields of a message; a reason that only newer services know counts by its gRPC status.

    Args:
        code: number of the gRPC status.
        reason: as in ErrorInfo.
        message: the sentence.
        facts: the metadata.
    """
    if reason in Reason.__members__:
        return MeshError(Reason(reason), message, **facts)
    status = next((one for one in grpc.StatusCode if one.value[0] == code), grpc.StatusCode.UNKNOWN)
    return MeshError(_foreign_reason(status, message), message, **facts)


def _unpack(value: bytes) -> MeshError | None:
    rich = status_pb2.Status.FromString(value)
    for detail in rich.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info) and info.domain == DOMAIN and info.reason in Reason.__members__:
            return MeshError(Reason(info.reason), rich.message, **dict(info.metadata))
    return None


def _foreign_reason(code: grpc.StatusCode, details: str) -> Reason:
    if code is grpc.StatusCode.UNAVAILABLE:
        # Routes answer for lanes that are gone: Envoy with the route's own text, grpcio with a text of its own.
        gone = "inappropriate action" in details or details.startswith(Reason.LANE_GONE)
        return Reason.LANE_GONE if gone else Reason.UPSTREAM_UNAVAILABLE
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return Reason.BODY_TOO_LARGE if "larger than max" in details else Reason.QUEUE_FULL
    return _FOREIGN.get(code, Reason.INTERNAL)


_FOREIGN = {
    grpc.StatusCode.CANCELLED: Reason.CANCELLED,
    grpc.StatusCode.INVALID_ARGUMENT: Reason.PARAMETER_INVALID,
    grpc.StatusCode.DEADLINE_EXCEEDED: Reason.DEADLINE_EXCEEDED,
    grpc.StatusCode.NOT_FOUND: Reason.NOT_FOUND,
    grpc.StatusCode.PERMISSION_DENIED: Reason.IDENTITY_REFUSED,
    grpc.StatusCode.UNAUTHENTICATED: Reason.KEY_INVALID,
    grpc.StatusCode.UNIMPLEMENTED: Reason.NOT_IMPLEMENTED,
}
