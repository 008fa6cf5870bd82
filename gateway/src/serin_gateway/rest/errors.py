"""Errors as the OpenAI API writes them.

Every reason of the mesh's table has one body; `code` is OpenAI's name for it where there is one, `reason` is ours.
Knows nothing about how a response is sent.
"""

from typing import Any

import orjson
from serin_mesh.errors import MeshError, Reason

_CODES = {
    Reason.PARAMETER_INVALID: "invalid_value",
    Reason.PARAMETER_UNSUPPORTED: "unsupported_parameter",
    Reason.PARAMETER_UNKNOWN: "unknown_parameter",
    Reason.PROMPT_TOO_LONG: "context_length_exceeded",
    Reason.KEY_MISSING: "missing_api_key",
    Reason.KEY_INVALID: "invalid_api_key",
    Reason.RATE_LIMITED: "rate_limit_exceeded",
}

CLIENT_CLOSED_REQUEST = 499


def error_body(error: MeshError) -> bytes:
    """The body of an error response, and of an error inside a stream."""
    body: dict[str, Any] = {
        "message": error.message,
        "type": error.status.openai_type,
        "param": error.metadata.get("parameter"),
        "code": _CODES.get(error.reason, error.reason.value.lower()),
        "reason": error.reason.value,
    }
    return orjson.dumps({"error": body})


def error_headers(error: MeshError) -> list[tuple[bytes, bytes]]:
    """What tells an SDK whether and when to try again."""
    headers = []
    retry_after_s = error.metadata.get("retry_after_s")
    if retry_after_s is None and error.status.retryable and error.metadata.get("should_retry") != "false":
        retry_after_s = "1"
    if retry_after_s is not None:
        headers.append((b"retry-after", retry_after_s.encode()))
    should_retry = error.status.retryable and error.metadata.get("should_retry") != "false"
    headers.append((b"x-should-retry", b"true" if should_retry else b"false"))
    headers.append((b"serin-reason", error.reason.value.encode()))
    return headers


def internal_error(request_id: str) -> MeshError:
    """What a caller is told about a defect of ours."""
    return MeshError(Reason.INTERNAL, f"something went wrong here; the log has it under request id {request_id}")
