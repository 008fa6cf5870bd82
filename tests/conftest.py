"""The mesh that tests of this folder ask, shared by all test processes of a run, and clients of it."""

import contextlib
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import httpx
import pytest
from openai import AsyncOpenAI
from xdist.scheduler import LoadFileScheduling

sys.path.insert(0, str(Path(__file__).parent))

from harness.asking import TINY
from harness.clients import plain_http, plain_openai
from harness.running_mesh import RunningMesh
from harness.shared import shared
from harness.tiny_encoder import VECTORS, write_tiny_encoder
from harness.tiny_model import write_tiny_model

PATIENT = {"SERIN_LIMITS_WAIT_S": "10"}
"""A gateway that never applies limits alone, however busy the machine is: what it lets in is exact."""
ROOT = Path(__file__).resolve().parent.parent
DEMO_MODEL = ROOT / "deploy" / "models" / "small" / "v2"


class ByMesh(LoadFileScheduling):
    """Test processes take whole files; those that need a mesh of their own go to the same one, which starts it once.

    That mesh ends with its last file (`scope="package"`): one that idles costs every other test.
    """

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        if file.startswith("tests/faults/"):
            return "crowd" if "history" in file or "streams_survive" in file else "mesh"
        return "edge" if file.startswith("tests/edge/") else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadFileScheduling:
    """Who runs what."""
    return ByMesh(config, log)


def declaration(tiny: Path, *, tokenizers: int = 1, workers: int = 1, encoder: Path | None = None) -> str:
    """A `serin.yaml`: the demo model, a model with random weights that never stops by itself, and one nobody serves.

    Beside them names that are routed: a cascade of the two, a model that another one stands in for, a project's alias.
    With ``encoder``, a model that computes embeddings too.
    """
    price = "{input: 20000, output: 0}"
    vectors = "" if encoder is None else f"  {VECTORS}: {{path: {encoder}, price: {price}}}\n"
    return f"""\
models:
  small:
    aliases: [demo]
    precision: float32
    numerics: invariant
    versions:
      v2: {{path: {DEMO_MODEL}}}
  {TINY}:
    path: {tiny}
    precision: float32
    numerics: invariant
    context_length: 4096
    kv_blocks: 2048
    tokenizers: {tokenizers}
    workers: {workers}
  nobody:
    path: {tiny}
    tokenizers: 0
    workers: 0
  spare:
    path: {tiny}
    tokenizers: 0
    workers: 0
    fallback: [nobody, small]
{vectors}cascades:
  smart: {{first: {TINY}, then: small, escalate_when: {{mean_logprob_below: -0.5, hint: true}}}}
tenants:
  default:
    projects:
      routed: {{aliases: {{{TINY}: small}}}}
guards:
  policies:
    guarded:
      pii: {{input: mask, output: mask, countries: [us]}}
      blocked: {{input: refuse, output: mask, terms: ["42", "forbidden fruit"]}}
  projects: {{guarded: guarded}}
"""


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder that all test processes of this run share."""
    base = tmp_path_factory.getbasetemp()
    return base if worker_id == "master" else base.parent


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model with random weights."""
    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def mesh(run_folder: Path) -> Iterator[RunningMesh]:
    """The mesh; tests may ask it anything, and must not harm its processes."""
    folder = run_folder / "shared-mesh"
    tiny, encoder = folder / TINY, folder / VECTORS
    folder.mkdir(exist_ok=True)
    running = RunningMesh(folder / "state", declaration(tiny, encoder=encoder), environment=PATIENT)

    @contextlib.contextmanager
    def started() -> Iterator[None]:
        write_tiny_model(tiny)
        write_tiny_encoder(encoder)
        running.start()
        try:
            yield
        finally:
            running.stop()

    with shared(folder, started()):
        yield running


@pytest.fixture
async def client(mesh: RunningMesh) -> AsyncIterator[AsyncOpenAI]:
    """The official SDK with the mesh's own key; it does not retry, so that tests see every failure."""
    async with plain_openai(f"{mesh.rest}/v1", mesh.key) as openai:
        yield openai


@pytest.fixture
async def http(mesh: RunningMesh) -> AsyncIterator[httpx.AsyncClient]:
    """A plain HTTP client with the mesh's own key."""
    headers = {"authorization": f"Bearer {mesh.key}"}
    async with plain_http(base_url=mesh.rest, headers=headers, timeout=60) as plain:
        yield plain


@pytest.fixture
async def front_door(mesh: RunningMesh) -> AsyncIterator[grpc.aio.Channel]:
    """A plain gRPC channel to the gateway."""
    async with grpc.aio.insecure_channel(mesh.grpc) as channel:
        yield channel
