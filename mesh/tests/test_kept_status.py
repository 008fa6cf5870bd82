"""A failed write waits for the status that explains it, and for no longer than its grace."""

import asyncio

from serin_mesh import kept_status
from serin_mesh.kept_status import keep_status


class Core:
    """What a grpc.aio call has inside, as far as this needs it."""

    def __init__(self) -> None:
        self.status = None
        self.given_up = asyncio.Event()

    def done(self) -> bool:
        """Whether a status is known."""
        return self.status is not None

    def set_internal_error(self, details: str) -> None:
        """What grpcio does when a write fails."""
        self.status = details
        self.given_up.set()

    async def send_serialized_message(self, message: bytes) -> None:
        """Send nothing."""

    receive_serialized_message = send_serialized_message


class Call:
    """A call around a core."""

    def __init__(self, core: Core) -> None:
        self._cython_call = core


async def test_a_status_that_is_there_stays() -> None:
    """The service's own answer is never replaced."""
    core = Core()
    call = Call(core)
    keep_status(call)
    core.status = "REGISTRATION_INVALID"
    call._cython_call.set_internal_error("write failed")
    assert call._cython_call.status == "REGISTRATION_INVALID"
    assert not core.given_up.is_set()


async def test_a_status_that_never_comes_is_an_internal_error(monkeypatch) -> None:
    """Nobody waits for ever for an explanation."""
    monkeypatch.setattr(kept_status, "STATUS_GRACE_S", 0.01)
    core = Core()
    call = Call(core)
    keep_status(call)
    call._cython_call.set_internal_error("write failed")
    assert not call._cython_call.done()
    await core.given_up.wait()
    assert core.status == "write failed"


def test_other_calls_are_left_alone() -> None:
    """Where grpcio is built differently nothing is touched."""
    call = Call(object())
    before = call._cython_call
    keep_status(call)
    assert call._cython_call is before
