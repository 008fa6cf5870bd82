"""One mesh with an edge for the tests of this folder: two versions of a model, with two vocabularies."""

import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
import serin_control.xds  # noqa: F401 - imports envoy-data-plane without the warnings that it raises
from harness.running_mesh import RunningMesh
from harness.two_vocabularies import pair_declaration, write_pair
from openai import AsyncOpenAI

WEIGHTS = {"a": 70, "b": 30}
FLAGS = ("--edge", "--edge-port", "0", "--edge-mesh-port", "0")


@pytest.fixture(scope="package")
def edged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    """The mesh; tests may ask it anything, and must not harm its processes."""
    folder = tmp_path_factory.mktemp("edged-mesh")
    write_pair(folder)
    versions = {version: folder / version for version in WEIGHTS}
    running = RunningMesh(folder / "state", pair_declaration(versions, WEIGHTS), FLAGS)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def trust(edged: RunningMesh) -> ssl.SSLContext:
    """Trusts what a shell that evaluated `serin env` trusts."""
    return ssl.create_default_context(cafile=edged.record["edge_trust"])


@pytest.fixture
async def openai(edged: RunningMesh, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AsyncOpenAI]:
    """The official SDK, set up by nothing but the environment that `serin env` prints; it does not retry."""
    for line in edged.serin("env").splitlines():
        name, _, value = line.removeprefix("export ").partition("=")
        monkeypatch.setenv(name, value.strip("'"))
    async with AsyncOpenAI(max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture
def roots(edged: RunningMesh) -> bytes:
    """The same, for gRPC."""
    return Path(edged.record["edge_trust"]).read_bytes()


@pytest.fixture
async def front_door(edged: RunningMesh, roots: bytes) -> AsyncIterator[grpc.aio.Channel]:
    """A gRPC channel to the edge, over TLS."""
    target = edged.record["edge"].removeprefix("https://")
    async with grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(roots)) as channel:
        yield channel


@pytest.fixture
def bearer(edged: RunningMesh) -> tuple[tuple[str, str]]:
    """Metadata that holds the mesh's own key."""
    return (("authorization", f"Bearer {edged.key}"),)
