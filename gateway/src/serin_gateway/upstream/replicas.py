"""Calls that any tokenizer of a lane may answer and that change nothing: made again where that may help.

Which one takes a call, the control plane's routes decide. Knows nothing about what is asked.
"""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import grpc
from serin_mesh.errors import MeshError, Reason

from serin_gateway.catalog import RETRY_AFTER_S
from serin_gateway.tokenizer import CallScope
from serin_gateway.upstream.pulses import Pulses

TIMEOUT_S = 10.0
"""Of one call."""
PAUSES_S = (0.0, 0.05, 0.2)
"""Pauses before a call is made again."""

T = TypeVar("T")


class Replicas:
    """The tokenizers of any lane.

    Args:
        pulses: their signs of life. Where none of a lane speaks, nobody waits for an answer.
    """

    def __init__(self, pulses: Pulses) -> None:
        self._pulses = pulses

    def expect(self, scope: CallScope) -> None:
        """Refuse where nobody would answer.

        Raises:
            MeshError: UPSTREAM_UNAVAILABLE, all of the lane used to report and say nothing any more.
        """
        if self._are_silent(scope):
            raise _away(scope)

    async def ask(self, scope: CallScope, call: "Callable[[], grpc.aio.UnaryUnaryCall[Any, T]]") -> T:
        """The answer; asked again on another replica when the first one is going away or falls silent.

        Raises:
            MeshError: what the last call failed with; UPSTREAM_UNAVAILABLE, nobody answers.
        """
        for pause_s in (*PAUSES_S, None):
            try:
                return await self._while_heard(scope, call)
            except MeshError as error:
                if error.reason is Reason.DEADLINE_EXCEEDED and scope.timeout_s > TIMEOUT_S:
                    raise _unavailable(f"tokenizer.{scope.model} did not answer within {TIMEOUT_S:g} s") from error
                if error.reason not in (Reason.UPSTREAM_UNAVAILABLE, Reason.NOT_READY):
                    raise
                if pause_s is None or self._are_silent(scope):
                    if error.reason is Reason.NOT_READY:
                        raise
                    # What the transport says of it names machines, which are not the caller's matter.
                    raise _away(scope) from error
                await asyncio.sleep(pause_s)
        raise AssertionError("the last call returns or raises")

    async def _while_heard(self, scope: CallScope, make: "Callable[[], grpc.aio.UnaryUnaryCall[Any, T]]") -> T:
        """The answer to one call. It is given up as soon as one who spoke when it began falls silent: it may be there.

        Raises:
            MeshError: what it failed with; UPSTREAM_UNAVAILABLE, it was given up, or nobody spoke when it began.
        """
        self.expect(scope)
        speaking = [endpoint for endpoint in scope.lane.tokenizers if not self._pulses.is_silent(endpoint)]
        call, is_given_up = make(), False

        def fallen_silent() -> None:
            nonlocal is_given_up
            is_given_up = True
            call.cancel()

        for endpoint in speaking:
            self._pulses.listen(endpoint, fallen_silent)
        try:
            return await call
        except asyncio.CancelledError:
            call.cancel()
            task = asyncio.current_task()
            if is_given_up and not (task is not None and task.cancelling()):
                raise _silent() from None  # it is the call that was cancelled, by us, not the task
            raise
        finally:
            for endpoint in speaking:
                self._pulses.forget(endpoint, fallen_silent)

    def _are_silent(self, scope: CallScope) -> bool:
        """Whether all tokenizers of a lane used to report and say nothing any more."""
        endpoints = scope.lane.tokenizers
        return bool(endpoints) and all(map(self._pulses.is_silent, endpoints))


def timeout_s(scope: CallScope) -> float:
    """How long a call may take: its own time, and no longer than its request's."""
    return max(0.001, min(TIMEOUT_S, scope.timeout_s))


def _away(scope: CallScope) -> MeshError:
    away = f"no tokenizer of {scope.model!r} can be reached at the moment; try again shortly"
    return _unavailable(away, retry_after_s=RETRY_AFTER_S)


def _silent() -> MeshError:
    return _unavailable("the tokenizer has said nothing for some seconds")


def _unavailable(message: str, **metadata: str) -> MeshError:
    return MeshError(Reason.UPSTREAM_UNAVAILABLE, message, service="tokenizer", **metadata)
