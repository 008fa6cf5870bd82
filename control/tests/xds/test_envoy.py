"""The real Envoy carries calls by our xDS: gRPC and REST to gateways, plain gRPC by target, lanes alike."""

import asyncio
import json
import ssl
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest
from control_envoy import enveloped, fetch, gateway
from control_running import controlled, echo, lanes, topology_where
from serin.inference.v1 import inference_pb2, inference_pb2_grpc
from serin_control.envoy_bootstrap import main
from serin_control.instance import Service
from serin_control.xds.edge import EdgeSettings

CONFIG = "models: {small: {versions: {v1: {path: x, weight: 50}, v2: {path: y, weight: 50}}}}"
REPOSITORY = Path(__file__).parents[3]


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
        await stub.ListModels(inference_pb2.ListModelsRequest(), timeout=60, wait_for_ready=True)
        parts = [part async for part in stub.Generate(inference_pb2.GenerateRequest(), timeout=60)]
        assert len(parts) == 3
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channel.unary_unary("/echo.Echo/Say")(b"", timeout=60)
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert await fetch(edge, "/v1/models") == "/v1/models"
    assert await fetch(edge, "/ready") == "/ready"
    hidden = json.loads(await fetch(edge, "/metrics", status=404))
    assert hidden["error"]["message"] == "nothing is served here"
    assert control.alarms.sentences() == ()


async def test_plain_grpc_callers_follow_lanes_through_envoy(house):
    """By authority: weights without a lane, exactly one version with it, no other lane."""
    control, _, where = house
    options = [("grpc.default_authority", "worker.small")]
    async with grpc.aio.insecure_channel(await where("mesh"), options=options) as channel:
        say = channel.unary_unary("/echo.Echo/Say")

        async def counts(calls: int, **metadata: str) -> dict[str, int]:
            pairs = tuple((key.replace("_", "-"), value) for key, value in metadata.items())
            names = [(await say(b"", timeout=60, metadata=pairs, wait_for_ready=True)).decode() for _ in range(calls)]
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
        await say(b"", timeout=60, wait_for_ready=True)
        await control.plane.declared.apply(CONFIG.replace("50}, v2", "0}, v2"))
        while True:
            names = {(await say(b"", timeout=60)).decode() for _ in range(30)}
            if names == {"w2"}:
                break


async def test_everything_is_encrypted_off_loopback(tmp_path, tls_dirs):
    """Envoy shows its identity to control plane and gateways, takes only theirs, and speaks TLS with the world.

    Files that are replaced are in use without a restart.
    """
    edge_dir = str(tls_dirs("edge"))
    edge = EdgeSettings(
        public_certificate=f"{edge_dir}/cert.pem", public_key=f"{edge_dir}/key.pem", mesh_certificates=edge_dir
    )
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
            await stub.ListModels(inference_pb2.ListModelsRequest(), timeout=60)
        assert control.alarms.sentences() == ()
        before = await shown(edge_address)
        tls_dirs.renew("edge")
        while await shown(edge_address) == before:  # noqa: ASYNC110 - Envoy tells nobody
            await asyncio.sleep(0.05)
        assert await fetch(edge_address, "/v1/models", tls=world) == "/v1/models"


async def shown(address: str) -> str:
    """The certificate that somebody shows."""
    host, port = address.rsplit(":", 1)
    return await asyncio.to_thread(ssl.get_server_certificate, (host, int(port)))


def test_the_committed_bootstrap_is_current(capsys):
    """`deploy/envoy/envoy.yaml` is what its first line says."""
    text = (REPOSITORY / "deploy/envoy/envoy.yaml").read_text()
    command, _, rest = text.partition("\n")
    assert main(command.partition("serin_control.envoy_bootstrap ")[2].split()) == 0
    assert capsys.readouterr().out == rest
