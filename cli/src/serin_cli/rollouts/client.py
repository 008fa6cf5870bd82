"""Calls the control planes that a person means; who does not lead says who does, and is followed.

Knows nothing about how answers are shown.
"""

import asyncio
import getpass
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from serin.control.v1 import rollout_pb2, rollout_pb2_grpc
from serin_mesh.channels import MeshChannel, connect
from serin_mesh.errors import MeshError, Reason
from serin_mesh.health import answers
from serin_mesh.settings import ServiceSettings

from serin_cli.errors import CliError, NoControlPlane, UsageProblem

CALL_S = 10.0
PATIENCE_S = 1.5
"""After so long without an answer a control plane is asked whether it lives: one that hangs is not waited for."""

LIVES_S = 2.0
FIRST_S = PATIENCE_S + LIVES_S
"""A watch says at once how things are; one that does not within this is at a control plane that hangs."""

MAX_HOPS = 3
RETURN_S = 300.0
"""So long a watch waits for a control plane to come back; one that is started again does so within seconds."""

RETRY_S = 0.5
TELL_S = 3.0
NUM_TELLINGS = 4
TELL_AGAIN_S = 0.5
_ASKED_WRONGLY = (Reason.ROLLOUT_INVALID, Reason.PARAMETER_INVALID)


class ControlPlanes:
    """Control planes by address; an async context manager.

    Args:
        addresses: ``host:port`` of each.
        tls_dir: this command's certificate; None: plain, on this machine.
    """

    def __init__(self, addresses: Sequence[str], tls_dir: Path | None = None) -> None:
        self._addresses = list(addresses)
        self._settings = ServiceSettings(instance="serin-cli", tls_dir=tls_dir)
        self._channels: dict[str, MeshChannel] = {}

    async def __aenter__(self) -> "ControlPlanes":
        return self

    async def __aexit__(self, *_: object) -> None:
        for channel in self._channels.values():
            await channel.close()

    async def call(self, method: str, request: Any) -> Any:
        """Call a method of RolloutService on whichever control plane answers it.

        Raises:
            UsageProblem: what was asked cannot be meant.
            CliError: it was refused, or no control plane answers.
        """
        trouble: MeshError | None = None
        queue = list(self._addresses)
        for _ in range(len(queue) + MAX_HOPS):
            if not queue:
                break
            address = queue.pop(0)
            try:
                return await self._ask(address, method, request)
            except MeshError as error:
                trouble = error
                leader = error.metadata.get("leader", "")
                if error.reason is Reason.NOT_LEADING and leader:
                    # Whoever named it leads itself soon if that one does not answer.
                    queue = [leader, address, *(other for other in queue if other not in (leader, address))]
                elif error.reason not in (Reason.NOT_LEADING, Reason.UPSTREAM_UNAVAILABLE, Reason.DEADLINE_EXCEEDED):
                    break
        assert trouble is not None
        raise _told(trouble, self._addresses) from trouble

    async def tell_all(self, method: str, request: Any) -> list[str]:
        """Call a method of RolloutService on every control plane at once; the addresses of those that took it.

        None waits for another, nor longer than its own deadline.
        """
        took = await asyncio.gather(*(self._tell(address, method, request) for address in self._addresses))
        return [address for address, taken in zip(self._addresses, took, strict=True) if taken]

    async def watch(self, rollout_id: str, say: Callable[[str], None]) -> AsyncIterator[rollout_pb2.Rollout]:
        """A rollout now and after each change, until it has ended; goes on when a control plane is back, or elsewhere.

        ``say`` is told, once for each absence, that it is waited for.

        Raises:
            CliError: no control plane answers: at first, or for five minutes.
        """
        now = asyncio.get_running_loop().time
        was_heard, num_failures, gone_at = False, 0, now()
        for address in cycle(self._addresses):
            try:
                async for rollout in self._changes(address, rollout_id):
                    was_heard, num_failures = True, 0
                    yield rollout
                return
            except MeshError as error:
                if error.reason not in (Reason.UPSTREAM_UNAVAILABLE, Reason.NOT_READY, Reason.CANCELLED):
                    raise _told(error, self._addresses) from error
                trouble = error
            num_failures += 1
            if was_heard and num_failures == 1:
                gone_at = now()
            if num_failures % len(self._addresses):
                continue  # to the next of them
            if now() - gone_at >= (RETURN_S if was_heard else FIRST_S):
                raise _told(trouble, self._addresses) from trouble
            if was_heard and num_failures == len(self._addresses):
                minutes, where = RETURN_S / 60, ", ".join(self._addresses)
                away = (
                    "state Redis does not answer" if _is_of_store(trouble) else f"no control plane answers at {where}"
                )
                say(f"{away}: waiting up to {minutes:.0f} min for it to be back")
            await asyncio.sleep(RETRY_S)

    async def _ask(self, address: str, method: str, request: Any) -> Any:
        """Call a method on one; one that hangs is given up long before the deadline.

        Raises:
            MeshError: UPSTREAM_UNAVAILABLE, also if it hangs; or what it said.
        """
        call = asyncio.ensure_future(getattr(self._stub(address), method)(request, timeout=CALL_S))
        try:
            done, _ = await asyncio.wait({call}, timeout=PATIENCE_S)
            if not done and not await self._lives(address) and not call.done():
                raise _hangs(address)
            return await call
        finally:
            call.cancel()
            await asyncio.wait({call})

    async def _lives(self, address: str) -> bool:
        return await answers(address, "control", tls_dir=self._settings.tls_dir, timeout_s=LIVES_S)

    async def _changes(self, address: str, rollout_id: str) -> AsyncIterator[rollout_pb2.Rollout]:
        """What one says of a rollout, until it has ended.

        Raises:
            MeshError: UPSTREAM_UNAVAILABLE, also if it hangs; or what it said.
        """
        changes = aiter(self._stub(address).WatchRollout(rollout_pb2.WatchRolloutRequest(rollout_id=rollout_id)))
        try:
            async with asyncio.timeout(FIRST_S):
                first = await anext(changes, None)
        except TimeoutError:
            raise _hangs(address) from None
        if first is not None:
            yield first.rollout
        async for change in changes:
            yield change.rollout

    async def _tell(self, address: str, method: str, request: Any) -> bool:
        """Call a method on one; whether it took it.

        One that names another leader is asked again: it may not have noticed yet that state Redis is away.
        """
        for _ in range(NUM_TELLINGS):
            try:
                await getattr(self._stub(address), method)(request, timeout=TELL_S)
            except MeshError as error:
                if error.reason is not Reason.NOT_LEADING:
                    return False
                await asyncio.sleep(TELL_AGAIN_S)
            else:
                return True
        return False

    def _stub(self, address: str) -> Any:
        channel = self._channels.get(address)
        if channel is None:
            channel = connect(address, self._settings, deadline_s=CALL_S, echo_lane=False, service="control")
            self._channels[address] = channel
        return rollout_pb2_grpc.RolloutServiceStub(channel)


def whoami() -> str:
    """Who acts, for the history."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no user of that number is known here
        return "somebody"


def _told(error: MeshError, addresses: Sequence[str]) -> CliError:
    if error.reason in _ASKED_WRONGLY:
        return UsageProblem(error.message)
    if error.reason is Reason.UPSTREAM_UNAVAILABLE and not _is_of_store(error):
        return NoControlPlane(
            f"no control plane answers at {', '.join(addresses)}: {error.message}; see `serin status`"
        )
    if error.reason is Reason.DEADLINE_EXCEEDED:
        return CliError(
            f"the control plane lives, and did not answer within {CALL_S:.0f} s; see `serin status` and "
            "`serin logs control`"
        )
    return CliError(error.message)


def _is_of_store(error: MeshError) -> bool:
    """Whether a control plane answers, and says that its state Redis does not."""
    return "state Redis" in error.message


def _hangs(address: str) -> MeshError:
    return MeshError(Reason.UPSTREAM_UNAVAILABLE, f"{address} says nothing: it hangs, or the way there is cut")
