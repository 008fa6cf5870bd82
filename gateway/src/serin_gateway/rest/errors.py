"""Errors as each API writes them: one dialect for each.

Every reason of the mesh's table has one body in each. Knows nothing about how a response is sent.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from serin_mesh.errors import MeshError, Reason

_CODES = {
    Reason.PARAMETER_INVALID: "invalid_value",
    Reason.PARAMETER_UNSUPPORTED: "unsupported_parameter",
    Reason.PARAMETER_UNKNOWN: "unknown_parameter",
    Reason.PROMPT_TOO_LONG: "context_length_exceeded",
    Reason.CONTENT_REFUSED: "content_policy_violation",
    Reason.KEY_MISSING: "missing_api_key",
    Reason.KEY_INVALID: "invalid_api_key",
    Reason.RATE_LIMITED: "rate_limit_exceeded",
}

CLIENT_CLOSED_REQUEST = 499
OVERLOADED = 529
"""What the Anthropic API says where others say 503."""


class ToldInStream(MeshError):
    """An error of which the stream has told its client already."""

    def __init__(self, error: MeshError) -> None:
        super().__init__(error.reason, error.message, **error.metadata)


@dataclass(frozen=True, slots=True)
class Dialect:
    """How an API writes errors.

    Attributes:
        name: of its schema in the OpenAPI document.
        status: the HTTP status of an error.
        body: the body of an error response, of a request with this identifier.
        in_stream: the same inside a stream that has begun, behind what was written last.
        schema: what a body looks like.
        request_id_header: where its SDK looks for the request's identifier, beside `x-request-id`; empty: nowhere.
    """

    name: str
    status: Callable[[MeshError], int]
    body: Callable[[MeshError, str], bytes]
    in_stream: Callable[[MeshError, str, bytes], bytes]
    schema: Mapping[str, Any]
    request_id_header: bytes = b""


def error_code(error: MeshError) -> str:
    """The OpenAI API's name for what went wrong, where it has one; else our reason in its style."""
    if error.reason is Reason.NOT_FOUND and error.metadata.get("parameter") == "previous_response_id":
        return "previous_response_not_found"
    return _CODES.get(error.reason, error.reason.value.lower())


def error_body(error: MeshError, request_id: str = "") -> bytes:
    """As the OpenAI API: `code` is its name for the reason where there is one, `reason` is ours."""
    body: dict[str, Any] = {
        "message": error.message,
        "type": error.status.openai_type,
        "param": error.metadata.get("parameter"),
        "code": error_code(error),
        "reason": error.reason.value,
    }
    return orjson.dumps({"error": body})


def anthropic_body(error: MeshError, request_id: str) -> bytes:
    """As the Anthropic API, with our reason beside its type."""
    body = {"type": error.status.anthropic_type, "message": error.message, "reason": error.reason.value}
    return orjson.dumps({"type": "error", "error": body, "request_id": request_id})


def _anthropic_status(error: MeshError) -> int:
    return OVERLOADED if error.status.anthropic_type == "overloaded_error" else error.status.http


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required, "properties": properties}


_TEXT, _TEXT_OR_NULL = {"type": "string"}, {"type": ["string", "null"]}

OPENAI = Dialect(
    "Error",
    lambda error: error.status.http,
    error_body,
    lambda error, request_id, written: b"data: " + error_body(error) + b"\n\n",
    _object(
        ["error"],
        error=_object(
            ["message", "type", "param", "code"],
            message=_TEXT,
            type=_TEXT,
            param=_TEXT_OR_NULL,
            code=_TEXT_OR_NULL,
            reason=_TEXT,
        ),
    ),
)
_NUMBER = re.compile(rb'data: \{"type":"[a-z_.]+","sequence_number":([0-9]{1,18})')


def _error_event(error: MeshError, request_id: str, written: bytes) -> bytes:
    """The Responses API's `error` event; its number goes on from what was written."""
    numbers = _NUMBER.findall(written)
    body = {
        "type": "error",
        "sequence_number": int(numbers[-1]) + 1 if numbers else 0,
        "code": error_code(error),
        "message": error.message,
        "param": error.metadata.get("parameter"),
        "reason": error.reason.value,
    }
    return b"event: error\ndata: " + orjson.dumps(body) + b"\n\n"


RESPONSES = dataclasses.replace(OPENAI, in_stream=_error_event)
"""Errors are the OpenAI API's; in a stream they are events."""
ANTHROPIC = Dialect(
    "AnthropicError",
    _anthropic_status,
    anthropic_body,
    lambda error, request_id, written: b"event: error\ndata: " + anthropic_body(error, request_id) + b"\n\n",
    _object(
        ["type", "error", "request_id"],
        type=_TEXT,
        error=_object(["type", "message"], type=_TEXT, message=_TEXT, reason=_TEXT),
        request_id=_TEXT,
    ),
    b"request-id",
)


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
