"""Unguarded routes: whatever is found on the application, and on every port of the mesh, asks who is calling."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import grpc
import pytest
from harness.asking import TINY
from harness.clients import plain_http
from harness.instances import await_instances
from harness.keys import mint
from harness.running_mesh import RunningMesh
from serin.inference.v1 import inference_pb2, inference_pb2_grpc
from serin_gateway.keys import Role
from serin_gateway.rest.api import rest_endpoints
from serin_gateway.rest.endpoint import Endpoint
from serin_mesh.readiness import Readiness

OPEN = {"/live", "/ready"}
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE")


def endpoints() -> Sequence[Endpoint]:
    """All that the application has."""
    return rest_endpoints(Readiness()).all


def path_of(endpoint: Endpoint) -> str:
    """A path that the endpoint answers."""
    before, opening, _ = endpoint.path.partition("{")
    return f"{before}{TINY}" if opening else before


async def unguarded(rest: str, found: Sequence[Endpoint]) -> list[str]:
    """Methods of paths that answer somebody without a key."""
    paths = {path_of(one) for one in found}
    open_to_all = []
    async with plain_http(base_url=rest, timeout=30) as stranger:
        for path in sorted(paths):
            for method in METHODS:
                response = await stranger.request(method, path)
                if response.status_code != 401:
                    open_to_all.append(f"{method} {path}")
    return open_to_all


async def test_every_route_but_two_needs_a_key(mesh: RunningMesh):
    """Found on the application object itself, asked over the wire with every method there is."""
    answered = await unguarded(mesh.rest, endpoints())
    assert {line.split()[1] for line in answered} == OPEN
    assert {line.split()[0] for line in answered if "/live" in line} == {"GET", "HEAD"}, answered


async def test_the_walk_would_find_one_more(mesh: RunningMesh):
    """The check can fail: a route that answers strangers is told by its name."""
    more = replace(endpoints()[0], path="/ready")
    assert "GET /ready" in await unguarded(mesh.rest, [more])
    assert await unguarded(mesh.rest, [replace(more, path="/v1/models")]) == []


async def test_every_route_needs_its_role(mesh: RunningMesh):
    """Each role is refused what only a higher one may, before the route looks at anything else."""
    async with plain_http(base_url=mesh.rest, timeout=30) as client:
        for role in Role:
            key, _ = await mint(mesh, role=role)
            for endpoint in endpoints():
                if endpoint.is_open or role.covers(endpoint.needs):
                    continue
                response = await client.request(
                    endpoint.method, path_of(endpoint), headers={"authorization": f"Bearer {key}"}, content=b"x"
                )
                told = response.json()["error"]["reason"]
                assert (response.status_code, told) == (403, "ROLE_INSUFFICIENT"), f"{endpoint.path} as {role}"


async def test_every_call_needs_a_key(mesh: RunningMesh, front_door: grpc.aio.Channel):
    """Found in the service's own description."""
    service = inference_pb2.DESCRIPTOR.services_by_name["InferenceService"]
    stub = inference_pb2_grpc.InferenceServiceStub(front_door)
    assert len(service.methods) >= 5
    for method in service.methods:
        request = getattr(inference_pb2, method.input_type.name)()
        call = getattr(stub, method.name)(request, timeout=60)
        assert await call.code() is grpc.StatusCode.UNAUTHENTICATED, method.name


@pytest.mark.parametrize(
    "path",
    [
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.channelz.v1.Channelz/GetServers",
        "/grpc.admin.v1.Admin/Get",
    ],
)
async def test_nobody_describes_itself(mesh: RunningMesh, path: str):
    """Reflection and channelz are off on every port of the mesh."""
    instances = await await_instances(mesh, bool)
    addresses = {one.registration.endpoint for one in instances} | {mesh.grpc, mesh.control}
    assert len(addresses) >= 5

    async def code_of(address: str) -> grpc.StatusCode:
        async with grpc.aio.insecure_channel(address) as channel:
            return await channel.unary_unary(path)(b"", timeout=60).code()

    codes = await asyncio.gather(*(code_of(address) for address in sorted(addresses)))
    assert set(codes) == {grpc.StatusCode.UNIMPLEMENTED}


async def test_other_http_ports_tell_no_more_than_how_they_are(mesh: RunningMesh):
    """Services behind the gateway show metrics and probes on loopback, and nothing else."""
    instances = await await_instances(mesh, bool)
    inner = {one.registration.http_endpoint for one in instances} - {mesh.rest.removeprefix("http://")}
    assert inner
    async with plain_http(timeout=60) as stranger:
        for address in inner:
            for path in ("/", "/debug/pprof", "/v1/models", "/metrics/../x", "/admin/keys", "//metrics", "/METRICS"):
                status = (await stranger.get(f"http://{address}{path}")).status_code
                assert status in (400, 404, 405), f"{path} at {address}"
