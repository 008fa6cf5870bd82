"""One served call as the layers see it.

Knows nothing about any layer; layers leave notes for each other here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import grpc

from serin_mesh.call import LANE_KEY, REQUEST_KEY, ServedCall, new_request_id
from serin_mesh.errors import Reason
from serin_mesh.methods import is_infrastructure, is_open_ended
from serin_mesh.one_line import is_one_line

MAX_REQUEST_ID_BYTES = 128


@dataclass(slots=True)
class Rpc:
    """A call on its way through the onion."""

    method: str
    context: "grpc.aio.ServicerContext[Any, Any]"
    request: Any
    """The request, or the iterator of requests."""
    metadata: Mapping[str, str | bytes]
    served: ServedCall
    is_infrastructure: bool
    is_open_ended: bool
    code: grpc.StatusCode = grpc.StatusCode.OK
    reason: Reason | None = None

    @classmethod
    def arrived(cls, method: str, request: Any, context: "grpc.aio.ServicerContext[Any, Any]") -> "Rpc":
        """A call that has just come in."""
        metadata = dict(context.invocation_metadata() or ())
        served = ServedCall(method, _text(metadata.get(REQUEST_KEY)) or new_request_id(), _text(metadata.get(LANE_KEY)))
        return cls(method, context, request, metadata, served, is_infrastructure(method), is_open_ended(method))


def _text(value: str | bytes | None) -> str:
    """A caller's identifier; one that is too long to be one, or unprintable, is taken as absent."""
    return value if isinstance(value, str) and len(value) <= MAX_REQUEST_ID_BYTES and is_one_line(value) else ""
