"""What a mesh remembers of its requests: `serin explain` tells it, feedback finds it, over both doors and the shell."""

import asyncio
import json

import grpc
import pytest
from harness.asking import TINY, greedy
from harness.clients import plain_http
from harness.explaining import explained
from harness.keys import mint
from harness.running_mesh import MeshFailed, RunningMesh
from openai import AsyncOpenAI
from serin.inference.v1 import inference_pb2, inference_pb2_grpc
from serin_gateway.limits.limiter import Limits


async def test_a_request_is_explained(mesh: RunningMesh, client: AsyncOpenAI):
    """Tenant, lane, worker, tokens, time by verb; nothing of what was asked or answered."""
    secret = "what does the secret canary sing"
    completion = await client.chat.completions.create(**greedy(secret, max_tokens=8))
    said = await explained(mesh, completion.id)
    assert said.startswith(f"{completion.id.removeprefix('chatcmpl-')}: answered")
    assert f"lane      {completion.system_fingerprint}" in said
    assert f"(worker.{TINY}@v1)" in said
    assert f"{completion.usage.prompt_tokens} prompt tokens" in said
    for word in ("tenant default", "chat.completions over rest", "tokenize ", "generate "):
        assert word in said
    assert "canary" not in said
    record = json.loads(await explained(mesh, completion.id, "--json"))
    assert (record["reason"], record["attempts"][0]["num_answer_tokens"]) == ("ok", 8)


async def test_a_refusal_is_explained(mesh: RunningMesh):
    """Reason and sentence, as the caller was told."""
    key, _ = await mint(mesh, limits=Limits(requests_per_minute=1))
    async with plain_http(base_url=mesh.rest, headers={"authorization": f"Bearer {key}"}) as http:
        answers = [await http.post("/v1/chat/completions", json=greedy("Hi", max_tokens=1)) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429]
    said = await explained(mesh, answers[1].headers["x-request-id"])
    assert "refused: RATE_LIMITED: " + answers[1].json()["error"]["message"] in said


async def test_an_unknown_request_is_said_in_one_line(mesh: RunningMesh):
    """Exit code 1 and what is remembered."""
    with pytest.raises(MeshFailed, match="no request of this name is remembered"):
        await asyncio.to_thread(mesh.serin, "explain", "req-never-was")


async def test_feedback_over_both_doors(mesh: RunningMesh, client: AsyncOpenAI, http, front_door):
    """The first on a request counts, whichever door it comes through; others' requests do not exist."""
    completion = await client.chat.completions.create(**greedy("Hi", max_tokens=2))
    body = {"request_id": completion.id, "score": "up"}
    first = await http.post("/v1/feedback", json=body)
    assert (first.status_code, first.json()["counted"]) == (200, True)
    stub = inference_pb2_grpc.InferenceServiceStub(front_door)
    metadata = [("authorization", f"Bearer {mesh.key}")]
    request_id = completion.id.removeprefix("chatcmpl-")
    again = await stub.SendFeedback(
        inference_pb2.SendFeedbackRequest(request_id=request_id, score=0.0), timeout=20, metadata=metadata
    )
    assert not again.counted
    with pytest.raises(grpc.aio.AioRpcError) as unknown:
        await stub.SendFeedback(
            inference_pb2.SendFeedbackRequest(request_id="req-never", score=0.0), timeout=20, metadata=metadata
        )
    assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
