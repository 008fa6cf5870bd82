"""How guards end a request: what was refused, or what could not be looked at. Neither ever quotes text."""

from serin_mesh.errors import MeshError, Reason

from serin_gateway.guards.screen import GuardFailed, Refusal


def content_refused(where: str, refusal: Refusal) -> MeshError:
    """The error for input that was refused: what kind of thing was found where."""
    return MeshError(
        Reason.CONTENT_REFUSED,
        f"{where}: the guard {refusal.detector.value!r} found {refusal.kind} and refuses it; take it out and ask again",
        parameter=where,
        guard=refusal.detector.value,
        kind=refusal.kind,
    )


def guard_unavailable(failed: GuardFailed) -> MeshError:
    """The error where a detector could not look at what may not pass unseen; the same text would fail it again."""
    return MeshError(
        Reason.GUARD_UNAVAILABLE,
        f"the guard {failed.detector.value!r} could not look at this ({failed.why}), and nothing may pass it unseen",
        guard=failed.detector.value,
        should_retry="false",
    )


def too_many_waiting() -> MeshError:
    """The error where more waits to be looked at than may."""
    return MeshError(
        Reason.GUARD_UNAVAILABLE, "too many texts wait to be looked at by guards; try again shortly", retry_after_s="1"
    )
