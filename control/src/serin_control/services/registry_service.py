"""RegistryService: leases over streams, and everything that runs for whoever wants to look."""

from collections.abc import AsyncIterator
from typing import Any

from serin.control.v1 import registry_pb2, registry_pb2_grpc
from serin_mesh.call import caller
from serin_mesh.errors import MeshError, Reason

from serin_control.errors import RegistrationInvalid
from serin_control.instance import Registration
from serin_control.observations.worker_memory import WorkerMemory
from serin_control.plane import ControlPlane
from serin_control.registry import Ticket
from serin_control.services.addresses import resolved
from serin_control.services.messages import registration_from, standing_message, status_from
from serin_control.services.refusals import as_mesh_errors


class RegistryService(registry_pb2_grpc.RegistryServiceServicer):
    """Serves a :class:`ControlPlane`'s registry.

    Args:
        plane: the control plane.
        memory: told how much memory instances hold.
    """

    def __init__(self, plane: ControlPlane, memory: WorkerMemory | None = None) -> None:
        self._plane = plane
        self._memory = memory

    async def Announce(  # noqa: N802 - the method's name in the contract
        self, request_iterator: AsyncIterator[registry_pb2.AnnounceRequest], context: Any
    ) -> AsyncIterator[registry_pb2.AnnounceResponse]:
        """Hold a lease while the stream lives; a stream that ends without a withdrawal leaves it suspect."""
        ticket: Ticket | None = None
        registration: Registration | None = None
        terms = self._plane.registry.terms
        try:
            async for request in request_iterator:
                with as_mesh_errors():
                    match request.WhichOneof("message"):
                        case "registration" if ticket is None:
                            registration = await self._admit(request.registration)
                            ticket = self._plane.announce(registration)
                            yield registry_pb2.AnnounceResponse(
                                heartbeat_seconds=terms.heartbeat_s, lease_seconds=terms.ttl_s
                            )
                        case "heartbeat" if ticket is not None:
                            self._plane.beat(ticket, status_from(request.heartbeat))
                            if self._memory is not None and registration is not None:
                                self._memory.heard(registration, request.heartbeat.resident_byte_count)
                        case "withdrawal" if ticket is not None:
                            self._plane.withdraw(ticket)
                            ticket = None
                            return
                        case _:
                            raise RegistrationInvalid("a registration comes first, and once; then heartbeats")
        finally:
            if ticket is not None:
                self._plane.lose(ticket)

    async def WatchInstances(  # noqa: N802 - as above
        self, request: registry_pb2.WatchInstancesRequest, context: Any
    ) -> AsyncIterator[registry_pb2.WatchInstancesResponse]:
        """Everything now, and again after each change."""
        async for standing in self._plane.standing.watch():
            yield standing_message(standing)

    async def _admit(self, message: registry_pb2.Registration) -> Registration:
        registration = registration_from(message)
        who = caller()
        if not who.is_any(registration.service):
            raise MeshError(
                Reason.IDENTITY_REFUSED,
                f"the caller's certificate names {who.service or 'no service'}; it announces a {registration.service}",
            )
        return await resolved(registration)
