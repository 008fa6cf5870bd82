"""Listens in while servicers are added to a server, to know the names of the services.

Knows nothing about the services; every call goes on to the real server.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import grpc


class ServedNames(grpc.aio.Server):
    """A server that notes what is added to it."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self.names: list[str] = []
        """Full names of the services, in order."""
        self._real = server

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Add handlers that look a method up."""
        handlers = tuple(generic_rpc_handlers)
        for handler in handlers:
            if isinstance(handler, grpc.ServiceRpcHandler):
                self.names.append(handler.service_name())
        self._real.add_generic_rpc_handlers(handlers)

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, Any]) -> None:
        """Add handlers of one service by method name."""
        self._real.add_registered_method_handlers(service_name, method_handlers)

    def add_insecure_port(self, address: str) -> int:
        """Listen without TLS."""
        return self._real.add_insecure_port(address)

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> int:
        """Listen with TLS."""
        return self._real.add_secure_port(address, server_credentials)

    async def start(self) -> None:
        """Start serving."""
        await self._real.start()

    async def stop(self, grace: float | None) -> None:
        """Stop serving."""
        await self._real.stop(grace)

    async def wait_for_termination(self, timeout: float | None = None) -> bool:
        """Wait until it has stopped."""
        return await self._real.wait_for_termination(timeout)
