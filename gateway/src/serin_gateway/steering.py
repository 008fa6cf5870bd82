"""What callers say beside a request to decide who asks and who answers, alike at both doors.

A header over REST, metadata over gRPC. Knows nothing about what becomes of it.
"""

from collections.abc import Iterable

from serin_mesh.call import LANE_KEY

from serin_gateway.ask import MAX_SESSION_BYTES, refuse
from serin_gateway.routing.cascade_journey import HINT_KEY

SESSION_KEY = "x-session-id"
_ACCEPTED = {LANE_KEY: "a lane", HINT_KEY: "first, then or auto", SESSION_KEY: "an identifier of the session"}


def check_steering(said: Iterable[tuple[str, str]]) -> None:
    """Whether what is there says something: an empty value is a variable that was never set, not a decision.

    A session that is longer than is kept of it would be one with others.

    Raises:
        MeshError: PARAMETER_INVALID, with its name.
    """
    for name, value in said:
        if name in _ACCEPTED and not value.strip():
            raise refuse(name, f"is empty; accepted: {_ACCEPTED[name]}, or left out")
        if name == SESSION_KEY and len(value.encode("latin-1", "replace")) > MAX_SESSION_BYTES:
            raise refuse(name, f"accepted: at most {MAX_SESSION_BYTES} bytes")


def check_credentials(key: str | None, api_key: str | None) -> None:
    """Whether a caller who shows two keys shows the same one twice: of two, a proxy may have read the other one.

    Args:
        key: the one that decides.
        api_key: what `x-api-key` is.

    Raises:
        MeshError: PARAMETER_INVALID.
    """
    if api_key is not None and key != api_key:
        raise refuse("authorization", "is not the key of x-api-key; accepted: one of them, or the same key in both")
