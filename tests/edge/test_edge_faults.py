"""The edge's process: killed, it comes back; stopping, it lets the last answers through; certificates are renewed."""

import asyncio
import os
import signal
import ssl
from pathlib import Path

import httpx
import pytest
from harness.asking import TINY, greedy
from harness.eventually import eventually
from harness.running_mesh import RunningMesh
from harness.server_sent_events import read_events
from harness.tiny_model import write_tiny_model
from serin_mesh.authority import Authority

pytestmark = pytest.mark.long

DECLARATION = """\
models:
  {name}: {{path: {path}, precision: float32, context_length: 4096, kv_blocks: 512}}
"""


@pytest.fixture
def authority() -> Authority:
    """The owner's own authority."""
    return Authority.create("somebody's authority")


@pytest.fixture
def own(tmp_path: Path, authority: Authority):
    """A mesh whose edge shows a certificate of its owner's own."""
    authority.issue("edge", tmp_path / "own")
    flags = ("--edge", "--edge-port", "0", "--edge-cert", f"{tmp_path}/own/cert.pem")
    text = DECLARATION.format(name=TINY, path=write_tiny_model(tmp_path / TINY))
    mesh = RunningMesh(tmp_path / "state", text, (*flags, "--edge-key", f"{tmp_path}/own/key.pem"))
    mesh.start()
    yield mesh
    mesh.stop()


async def test_the_edge_survives_what_happens_to_it(own: RunningMesh, authority: Authority, tmp_path: Path):
    """SIGKILL: started again, and answers. A renewed certificate: shown without a restart. A drain: nothing is cut."""
    trust = ssl.create_default_context(cafile=str(tmp_path / "own" / "ca.pem"))
    headers = {"authorization": f"Bearer {own.key}"}
    async with httpx.AsyncClient(base_url=own.record["edge"], verify=trust, headers=headers, timeout=60) as client:
        assert (await client.get("/v1/models")).status_code == 200

        killed = own.members()["edge"].pid
        os.kill(killed, signal.SIGKILL)

        async def again() -> tuple[int, str]:
            edge = own.members()["edge"]
            return edge.pid, edge.phase

        await eventually(again, lambda now: now[0] not in (None, killed) and now[1] == "ready", "the edge", 60)
        assert (await client.get("/v1/models")).status_code == 200

        before = await shown(own)
        authority.issue("edge", tmp_path / "own")
        await eventually(lambda: shown(own), lambda now: now != before, "the new certificate")

        body = greedy("A long one.", max_tokens=600, stream=True)
        async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            events = read_events(answer)
            await anext(events)
            stopping = asyncio.create_task(asyncio.to_thread(own.stop))
            rest = [event async for event in events]
        assert rest[-1] == "[DONE]"
        assert await stopping == 0


async def shown(mesh: RunningMesh) -> str:
    """The certificate that the edge shows."""
    host, port = mesh.record["edge"].removeprefix("https://").rsplit(":", 1)
    return await asyncio.to_thread(ssl.get_server_certificate, (host, int(port)))
