"""The layers that every service has, in order."""

from collections.abc import Callable, Mapping

from serin_mesh.interceptors.admission import require_deadline, require_readiness
from serin_mesh.interceptors.canonical_log import log_calls
from serin_mesh.interceptors.counting import count_calls
from serin_mesh.interceptors.failures import send_failures
from serin_mesh.interceptors.identity import Callers, identify_callers
from serin_mesh.interceptors.lane_echo import echo_lane
from serin_mesh.interceptors.onion import Onion
from serin_mesh.interceptors.outcome import note_outcome
from serin_mesh.interceptors.tracing import trace_calls
from serin_mesh.interceptors.watches import Watches
from serin_mesh.readiness import Readiness


def standard_onion(
    *,
    readiness: Readiness,
    encrypted: bool,
    callers: Callers,
    own_lanes: Callable[[], Mapping[str, int]],
    default_deadline_s: float | None,
    watches: Watches,
) -> Onion:
    """The onion of a service, outermost layer first."""
    return Onion(
        [
            send_failures,
            trace_calls,
            log_calls,
            count_calls,
            note_outcome,
            identify_callers(encrypted=encrypted, callers=callers),
            require_readiness(readiness),
            require_deadline(default_deadline_s),
            watches.layer,
            echo_lane(own_lanes),
        ]
    )
