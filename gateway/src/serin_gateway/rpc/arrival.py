"""What a gRPC call's metadata says about it, before its message is read. Knows nothing about messages."""

from collections.abc import Iterable, Mapping
from typing import Any

import grpc
import structlog
from serin_mesh.call import LANE_KEY, REQUEST_KEY, new_request_id, request_id, served_call

from serin_gateway.ask import refuse
from serin_gateway.collaborators import Arrival, is_request_id
from serin_gateway.routing.cascade_journey import HINT_KEY
from serin_gateway.rpc.repeatable import IDEMPOTENCY_KEY
from serin_gateway.steering import SESSION_KEY, check_credentials, check_steering

DEFAULT_TIMEOUT_S = 600.0
CLIENT_REQUEST_KEY = "x-request-id"
"""What clients outside of the mesh call a request by, as over REST."""
_ONCE = frozenset({"authorization", "x-api-key", LANE_KEY, HINT_KEY, IDEMPOTENCY_KEY, SESSION_KEY})
"""Metadata that decides something: of two, whoever stands between may have read the other one."""


def arrival_of(context: "grpc.aio.ServicerContext[Any, Any]", timeout_s: float = DEFAULT_TIMEOUT_S) -> Arrival:
    """A call that has come in.

    Args:
        context: of the call.
        timeout_s: longest time for one answer.

    Raises:
        MeshError: PARAMETER_INVALID, something that decides is there twice, or says nothing.
    """
    metadata = texts_of(context.invocation_metadata() or ())
    check_steering(metadata.items())
    key = key_in(metadata)
    check_credentials(key, metadata.get("x-api-key"))
    left_s = context.time_remaining()
    return Arrival(
        "grpc",
        _request_id(metadata),
        key=key,
        session_id=metadata.get(SESSION_KEY, ""),
        pinned_lane=metadata.get(LANE_KEY, ""),
        cascade_hint=metadata.get(HINT_KEY, ""),
        timeout_s=timeout_s if left_s is None else min(timeout_s, left_s),
        ignored=[CLIENT_REQUEST_KEY] if not is_request_id(metadata.get(CLIENT_REQUEST_KEY, "none")) else (),
    )


def texts_of(pairs: Iterable[tuple[str, str | bytes]]) -> dict[str, str]:
    """The metadata that is text.

    Raises:
        MeshError: PARAMETER_INVALID, something that decides is there twice.
    """
    texts = [(name, value) for name, value in pairs if isinstance(value, str)]
    decisive = [name for name, _ in texts if name in _ONCE]
    if len(decisive) > len(set(decisive)):
        raise refuse(next(name for name in decisive if decisive.count(name) > 1), "is there twice; accepted: once")
    return dict(texts)


def key_in(metadata: Mapping[str, str]) -> str | None:
    """The key that a call shows, as over REST."""
    scheme, _, key = metadata.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else metadata.get("x-api-key")


def _request_id(metadata: Mapping[str, str]) -> str:
    """The mesh's own identifier of the request, else the client's, else a new one; everything goes by it from here."""
    ours, served = request_id(), served_call()
    given = [metadata.get(name, "") for name in (REQUEST_KEY, CLIENT_REQUEST_KEY)]
    taken = next((one for one in (*given, ours) if is_request_id(one)), None) or new_request_id()
    if taken != ours:
        if served is not None:
            served.request_id = taken
        structlog.contextvars.bind_contextvars(request_id=taken)
    return taken
