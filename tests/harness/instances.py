"""Who is in a mesh, as its control plane says."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

import grpc
from serin.control.v1 import registry_pb2, registry_pb2_grpc

from harness.running_mesh import RunningMesh

TIMEOUT_S = 60.0


async def watch_instances(mesh: RunningMesh) -> AsyncGenerator[Sequence[registry_pb2.Instance]]:
    """All instances, at first and after each change."""
    async with grpc.aio.insecure_channel(mesh.control) as channel:
        watch = registry_pb2_grpc.RegistryServiceStub(channel).WatchInstances
        async for response in watch(registry_pb2.WatchInstancesRequest(), timeout=TIMEOUT_S):
            yield list(response.instances)


async def await_instances(
    mesh: RunningMesh, condition: Callable[[Sequence[registry_pb2.Instance]], bool]
) -> Sequence[registry_pb2.Instance]:
    """Wait until a condition on the instances holds."""
    async with aclosing(watch_instances(mesh)) as watch:
        async for instances in watch:
            if condition(instances):
                return instances
    raise AssertionError("the control plane ended the watch")


async def ready_registrations(mesh: RunningMesh, service: int, model: str = "") -> list[registry_pb2.Registration]:
    """Who the ready instances of a service are, at least one."""

    def wanted(instances: Sequence[registry_pb2.Instance]) -> list[registry_pb2.Registration]:
        return [
            instance.registration
            for instance in instances
            if instance.registration.service == service
            and instance.registration.model == model
            and instance.heartbeat.state == registry_pb2.INSTANCE_STATE_READY
        ]

    return wanted(await await_instances(mesh, lambda instances: bool(wanted(instances))))


async def ready_endpoints(mesh: RunningMesh, service: int, model: str = "") -> list[str]:
    """`host:port` of the ready instances of a service, at least one."""
    return [registration.endpoint for registration in await ready_registrations(mesh, service, model)]


async def endpoint_of(mesh: RunningMesh, service: int, model: str = "") -> str:
    """`host:port` of one ready instance of a service."""
    return (await ready_endpoints(mesh, service, model))[0]
