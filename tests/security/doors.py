"""Both doors of a gateway in this process, on a house in memory."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from security.senders import Senders
from serin.inference.v1 import inference_pb2_grpc
from serin_gateway.rest.api import rest_endpoints
from serin_gateway.rest.door import Door
from serin_gateway.rest.server import RestServer
from serin_gateway.rpc.gate import KeyGate
from serin_gateway.rpc.service import InferenceService
from serin_gateway.testing import MemoryHouse
from serin_mesh.readiness import Readiness
from serin_mesh.testing import running


class Doors:
    """A house, where its doors are, and clients of both with a key.

    Attributes:
        rest: port of REST.
    """

    def __init__(self, house: MemoryHouse, rest: int, senders: Senders) -> None:
        self.house = house
        self.rest = rest
        self.senders = senders


@asynccontextmanager
async def open_doors(**parts: Any) -> AsyncIterator[Doors]:
    """Serve a house in memory, with these parts instead of its own."""
    house = MemoryHouse(**parts)
    readiness = Readiness()
    readiness.ready()
    service = InferenceService(house.collaborators)
    door = Door(house.collaborators, rest_endpoints(readiness))
    async with (
        RestServer(door, "127.0.0.1", 0, drain_grace_s=5) as server,
        running(
            lambda grpc_server: inference_pb2_grpc.add_InferenceServiceServicer_to_server(service, grpc_server),
            "gateway",
            default_deadline_s=30.0,
            gate=KeyGate(house.collaborators),
        ) as host,
        Senders.open(f"http://127.0.0.1:{server.port}", host.address, await house.key()) as senders,
    ):
        yield Doors(house, server.port, senders)
