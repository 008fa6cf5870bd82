"""A rollout of the gateway, whose calls the edge splits: half of them, all of them, back; gateways that are killed."""

import asyncio
import json
import secrets
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import grpc
import httpx
import psutil
import pytest
from harness.asking import TINY, greedy
from harness.eventually import eventually
from harness.running_mesh import RunningMesh
from harness.tiny_model import write_tiny_model
from serin.inference.v1 import inference_pb2, inference_pb2_grpc

pytestmark = pytest.mark.long

DECLARATION = """\
gateway: {{version: v1}}
models:
  {name}: {{path: {path}, precision: float32, context_length: 512, kv_blocks: 128}}
"""
NUM_ASKED = 30
AT_ONCE = 4
FLAGS = ("--model", TINY, "--service", "gateway", "--to", "v2", "--intent", "same", "--steps", "50%")


@pytest.fixture(scope="module")
def edged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    """A mesh with an edge and two versions of the gateway."""
    folder = tmp_path_factory.mktemp("gateways")
    text = DECLARATION.format(name=TINY, path=write_tiny_model(folder / TINY))
    mesh = RunningMesh(folder / "state", text, ("--edge", "--edge-port", "0", "--edge-mesh-port", "0"))
    mesh.start()
    mesh.serin("add", "gateway", "--version", "v2")
    yield mesh
    mesh.stop()


@pytest.fixture
async def http(edged: RunningMesh) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the edge."""
    trust = ssl.create_default_context(cafile=edged.record["edge_trust"])
    headers = {"authorization": f"Bearer {edged.key}"}
    async with httpx.AsyncClient(base_url=edged.record["edge"], verify=trust, headers=headers, timeout=60) as client:
        yield client


async def served(edged: RunningMesh, http: httpx.AsyncClient) -> Counter[str]:
    """Ask, each time in a session of its own; how many of the requests each gateway served. None may fail."""
    ids = [secrets.token_hex(8) for _ in range(NUM_ASKED)]
    for one in ids:
        headers = {"x-request-id": one, "x-session-id": one}
        answer = await http.post("/v1/chat/completions", json=greedy("Hi.", max_tokens=2), headers=headers)
        assert answer.status_code == 200, answer.text

    async def look() -> Counter[str]:
        found: Counter[str] = Counter()
        for log in (edged.state / "logs").glob("gateway*.log"):
            for text in log.read_text(encoding="utf-8").splitlines():
                line = json.loads(text) if text.startswith("{") else {}
                if line.get("event") == "request.finished" and line["request_id"] in ids:
                    found[log.stem] += 1
        return found

    return await eventually(look, lambda found: found.total() == NUM_ASKED, "the gateways' lines")


def start(edged: RunningMesh) -> str:
    """Starts a rollout that nobody but a person promotes; its id."""
    return edged.serin("rollout", "start", *FLAGS, "--manual", "--accept-weak").split()[-1]


async def share_out(edged: RunningMesh, http: httpx.AsyncClient, *gateways: str) -> Counter[str]:
    """Wait until exactly these gateways serve; how many of some requests each one served."""
    return await eventually(
        lambda: served(edged, http), lambda found: set(found) == set(gateways), f"only {gateways}", timeout_s=60
    )


async def test_a_gateway_is_rolled_out_and_back(edged: RunningMesh, http: httpx.AsyncClient):
    """Nothing before the start, about half in the step, everything after the promotion, nothing after a rollback."""
    assert set(await served(edged, http)) == {"gateway"}
    rollout = start(edged)
    found = await share_out(edged, http, "gateway", "gateway.v2.0")
    assert 3 < found["gateway.v2.0"] < NUM_ASKED - 3
    edged.serin("rollout", "promote", rollout)
    await share_out(edged, http, "gateway.v2.0")
    assert json.loads(edged.serin("rollout", "get", rollout, "--json"))["state"] == "promoted"
    edged.serin("rollback", "--model", TINY, "--service", "gateway")
    await share_out(edged, http, "gateway")


async def kill(edged: RunningMesh, name: str, ask: Callable[[], Awaitable[None]]) -> int:
    """Kill a gateway; ask, several at once, from its death until another process has its place. How often it asked."""
    killed = edged.members()[name].pid
    process = psutil.Process(killed)
    process.kill()
    await asyncio.to_thread(process.wait, 10)  # it may take a call for as long as it is not dead
    num_calls = 0
    while (row := edged.members()[name]).pid in (None, killed) or row.phase != "ready":
        await asyncio.gather(*(ask() for _ in range(AT_ONCE)))
        num_calls += AT_ONCE
    return num_calls


async def test_a_gateway_that_is_killed_fails_no_call(
    edged: RunningMesh, http: httpx.AsyncClient, front_door: grpc.aio.Channel, bearer
):
    """Every call that begins after its death is answered by the other one; a canary loses its share, and says why."""
    rollout = start(edged)
    await share_out(edged, http, "gateway", "gateway.v2.0")
    stub = inference_pb2_grpc.InferenceServiceStub(front_door)

    async def ask() -> None:
        await stub.ListModels(inference_pb2.ListModelsRequest(), timeout=30, metadata=bearer)
        answer = await http.get("/v1/models")
        assert answer.status_code == 200, answer.text

    assert await kill(edged, "gateway.v2.0", ask) > AT_ONCE
    said = edged.serin("rollout", "explain", rollout)
    assert "\nWhy: v2 fell silent (it crashed, hung or was cut off): its traffic went back to v1.\n" in said, said
    assert f"`serin rollout resume {rollout}`" in said
    assert set(await served(edged, http)) == {"gateway"}

    edged.serin("rollout", "resume", rollout)
    await share_out(edged, http, "gateway", "gateway.v2.0")
    assert await kill(edged, "gateway", ask) > AT_ONCE
    assert json.loads(edged.serin("rollout", "get", rollout, "--json"))["state"] == "running"
    await share_out(edged, http, "gateway", "gateway.v2.0")
