"""What the room refuses, as the mesh's own errors."""

from collections.abc import Iterator
from contextlib import contextmanager

from serin_mesh.errors import MeshError, Reason

from serin_control.config import ConfigInvalid
from serin_control.errors import (
    ConfigConflict,
    ControlError,
    LeaseSuperseded,
    NotLeading,
    RegistrationInvalid,
    RolloutConflict,
    RolloutInvalid,
    RolloutNotFound,
    RolloutsFrozen,
    StoreDown,
    VersionGone,
    VersionMismatch,
)

_REASONS: dict[type[ControlError], Reason] = {
    RegistrationInvalid: Reason.REGISTRATION_INVALID,
    VersionMismatch: Reason.VERSION_MISMATCH,
    LeaseSuperseded: Reason.CANCELLED,
    ConfigConflict: Reason.CONFIG_CONFLICT,
    StoreDown: Reason.UPSTREAM_UNAVAILABLE,
    RolloutInvalid: Reason.ROLLOUT_INVALID,
    RolloutConflict: Reason.ROLLOUT_CONFLICT,
    RolloutsFrozen: Reason.ROLLOUTS_FROZEN,
    RolloutNotFound: Reason.NOT_FOUND,
    VersionGone: Reason.VERSION_GONE,
    NotLeading: Reason.NOT_LEADING,
}


@contextmanager
def as_mesh_errors() -> Iterator[None]:
    """Raise what the room refuses as :class:`MeshError`."""
    try:
        yield
    except ConfigInvalid as error:
        raise MeshError(Reason.CONFIG_INVALID, str(error)) from error
    except NotLeading as error:
        raise MeshError(Reason.NOT_LEADING, str(error), leader=error.leader) from error
    except ControlError as error:
        raise MeshError(_REASONS.get(type(error), Reason.INTERNAL), str(error)) from error
