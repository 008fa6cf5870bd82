"""Calls the control planes that a person means; who does not lead says who does, and is followed.

Knows nothing about how answers are shown.
"""

import asyncio
import getpass
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from serin.control.v1 import rollout_pb2, rollout_pb2_grpc
from serin_mesh.channels import MeshChannel, connect
from serin_mesh.errors import MeshError, Reason
from serin_mesh.settings import ServiceSettings

from serin_cli.errors import CliError, NoControlPlane, UsageProblem

CALL_S = 10.0
MAX_HOPS = 3
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
                return await getattr(self._stub(address), method)(request, timeout=CALL_S)
            except MeshError as error:
                trouble = error
                leader = error.metadata.get("leader", "")
                if error.reason is Reason.NOT_LEADING and leader:
                    queue.insert(0, leader)
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

    async def watch(self, rollout_id: str) -> AsyncIterator[rollout_pb2.Rollout]:
        """A rollout now and after each change, until it has ended; goes on elsewhere when a control plane ends.

        Raises:
            CliError: no control plane answers.
        """
        request = rollout_pb2.WatchRolloutRequest(rollout_id=rollout_id)
        num_silent = 0
        while num_silent <= len(self._addresses) * MAX_HOPS:
            address = self._addresses[num_silent % len(self._addresses)]
            try:
                async for answer in self._stub(address).WatchRollout(request):
                    num_silent = 0
                    yield answer.rollout
                return
            except MeshError as error:
                if error.reason not in (Reason.UPSTREAM_UNAVAILABLE, Reason.NOT_READY, Reason.CANCELLED):
                    raise _told(error, self._addresses) from error
                num_silent += 1
        raise NoControlPlane(f"no control plane answers at {', '.join(self._addresses)}; see `serin status`")

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
    if error.reason is Reason.UPSTREAM_UNAVAILABLE and "state Redis" not in error.message:
        return NoControlPlane(
            f"no control plane answers at {', '.join(addresses)}: {error.message}; see `serin status`"
        )
    return CliError(error.message)
