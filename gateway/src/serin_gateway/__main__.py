"""`python -m serin_gateway`: a gateway as a process. Wires, and does nothing else."""

import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack

from serin.inference.v1 import inference_pb2_grpc
from serin_mesh.announce import Announcement
from serin_mesh.channels import use_control_plane
from serin_mesh.lanes import LaneWatch
from serin_mesh.metrics import registry
from serin_mesh.readiness import Condition, Readiness, State
from serin_mesh.server import HostError, run_main, serve
from serin_mesh.settings import SettingsError, load_settings, mesh_secret

from serin_gateway.house import House
from serin_gateway.metrics import GatewayMetrics
from serin_gateway.rest.api import rest_endpoints
from serin_gateway.rest.door import Door
from serin_gateway.rest.server import RestServer
from serin_gateway.rpc.gate import KeyGate
from serin_gateway.rpc.service import InferenceService
from serin_gateway.settings import GatewaySettings
from serin_gateway.state import StateUnsafe
from serin_gateway.upstream.lanes import PublishedCatalog
from serin_gateway.upstream.targets import ControlPlaneTargets

PROGRAM = "serin-gateway"
MAX_STREAMS = 1024
"""gRPC calls at once on one connection; further ones wait at the client."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run until asked to stop; the exit status says how it went."""
    settings = load_settings(GatewaySettings, argv, PROGRAM)
    return run_main(PROGRAM, _serve(settings))


async def _serve(settings: GatewaySettings) -> None:
    secret = mesh_secret(settings)
    try:
        use_control_plane(settings)
    except ValueError as error:
        raise SettingsError(str(error)) from error
    readiness = Readiness()
    async with AsyncExitStack() as stack:
        watch = await stack.enter_async_context(LaneWatch(settings))
        house = House(settings, secret, PublishedCatalog(watch), ControlPlaneTargets(), GatewayMetrics(registry()))
        try:
            await stack.enter_async_context(house)
        except StateUnsafe as error:
            raise SettingsError(str(error)) from error
        try:
            rest = await stack.enter_async_context(_rest(settings, house, readiness))
        except OSError as error:
            raise HostError(f"--http-port: {settings.http_port}: cannot listen there: {error}") from error
        service = InferenceService(house.collaborators, timeout_s=settings.request_timeout_s)

        async def startup() -> None:
            readiness.starting("waiting for the control plane")
            await watch.first()
            readiness.ready()

        await serve(
            settings,
            "gateway",
            lambda server: inference_pb2_grpc.add_InferenceServiceServicer_to_server(service, server),
            readiness=readiness,
            announce=Announcement(http_endpoint=f"{settings.dial_host}:{rest.port}"),
            startup=startup,
            shutdown=rest.drain,
            default_deadline_s=settings.request_timeout_s,
            metrics_http=False,
            gate=KeyGate(house.collaborators),
            max_streams=MAX_STREAMS,
        )


def _rest(settings: GatewaySettings, house: House, readiness: Readiness) -> RestServer:
    """REST, which drains beside gRPC as soon as the gateway does."""
    door = Door(house.collaborators, rest_endpoints(readiness), timeout_s=settings.request_timeout_s)
    rest = RestServer(
        door,
        settings.http_host or settings.host,
        settings.http_port,
        tls_dir=settings.tls_dir,
        drain_grace_s=settings.drain_grace_s,
    )

    def follow(condition: Condition) -> None:
        if condition.state is State.DRAINING:
            rest.begin_drain(settings.drain_notice_s)
            house.collaborators.idempotency.begin_drain(settings.drain_grace_s)

    readiness.watch(follow)
    return rest


if __name__ == "__main__":
    sys.exit(main())
