"""ConfigService: the configuration in force, replaced as a whole or not at all."""

from collections.abc import AsyncIterator
from typing import Any

from serin.control.v1 import config_pb2, config_pb2_grpc

from serin_control.declared import Declared
from serin_control.services.refusals import as_mesh_errors


class ConfigService(config_pb2_grpc.ConfigServiceServicer):
    """Serves the declared configuration. Revision 0 with empty text: there is none yet."""

    def __init__(self, declared: Declared) -> None:
        self._declared = declared

    async def ApplyConfig(  # noqa: N802 - the method's name in the contract
        self, request: config_pb2.ApplyConfigRequest, context: Any
    ) -> config_pb2.ApplyConfigResponse:
        """Replace it."""
        with as_mesh_errors():
            changes = await self._declared.apply(request.yaml, request.expected_revision)
        return config_pb2.ApplyConfigResponse(revision=self._saved()[0], changes=changes)

    async def GetConfig(  # noqa: N802 - as above
        self, request: config_pb2.GetConfigRequest, context: Any
    ) -> config_pb2.GetConfigResponse:
        """What is in force."""
        revision, yaml = self._saved()
        return config_pb2.GetConfigResponse(revision=revision, yaml=yaml)

    async def WatchConfig(  # noqa: N802 - as above
        self, request: config_pb2.WatchConfigRequest, context: Any
    ) -> AsyncIterator[config_pb2.WatchConfigResponse]:
        """What is in force now, and again after each change."""
        async for declaration in self._declared.current.watch():
            yield config_pb2.WatchConfigResponse(revision=declaration.saved.revision, yaml=declaration.saved.yaml)

    def _saved(self) -> tuple[int, str]:
        declaration = self._declared.current.value
        return (declaration.saved.revision, declaration.saved.yaml) if declaration else (0, "")
