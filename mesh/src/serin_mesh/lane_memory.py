"""The lane that a conversation is on, so that an internal caller's next call meets the lane of its last one.

A conversation is one served call, or a block under :func:`conversation`, or else the current task and what it starts
later. Knows nothing about metadata or channels.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_lanes: ContextVar[dict[str, str] | None] = ContextVar("serin_lanes", default=None)


def remembered_lanes() -> dict[str, str]:
    """Lanes by model of the current conversation; begins one if there is none."""
    lanes = _lanes.get()
    if lanes is None:
        lanes = {}
        _lanes.set(lanes)
    return lanes


def begin_conversation(lanes: dict[str, str] | None = None) -> None:
    """Forget all lanes for the rest of the task, or begin with known ones."""
    _lanes.set(lanes if lanes is not None else {})


@contextmanager
def conversation() -> Iterator[None]:
    """A block whose calls meet one lane for each model, whatever was on before."""
    token = _lanes.set({})
    try:
        yield
    finally:
        _lanes.reset(token)


def model_of(target: str) -> str:
    """Model that a target serves: ``small`` of ``xds:///worker.small``; empty for plain addresses and ``xds:///cache``."""
    scheme, _, name = target.partition(":///")
    return name.partition(".")[2] if scheme == "xds" and name else ""
