"""Names that lead on, in a real mesh: a cascade that escalates, a model that stands in, a project's own alias."""

import httpx
import pytest
from harness.asking import TINY, greedy
from harness.clients import plain_http, plain_openai
from harness.explaining import explained
from harness.running_mesh import RunningMesh
from openai import AsyncOpenAI

QUESTION = "What is the capital of Norway?"


async def test_a_cascade_gives_the_larger_models_answer_where_the_first_is_unsure(http: httpx.AsyncClient):
    """Random weights are sure of nothing; the demo model answers, whole and streamed, and explain tells the story."""
    asked = greedy(QUESTION, model="smart")
    answer = await http.post("/v1/chat/completions", json=asked)
    body = answer.json()
    assert (body["model"], body["choices"][0]["message"]["content"]) == ("small", "Oslo")
    assert answer.headers["serin-route"] == "smart:escalated:mean_logprob"
    assert (answer.headers["serin-model"], answer.headers["serin-lane"]) == ("small", body["system_fingerprint"])
    streamed = await http.post("/v1/chat/completions", json={**asked, "stream": True})
    assert streamed.headers["serin-route"] == "smart:escalated:mean_logprob"
    assert streamed.text.count('"content":') >= len("Oslo")


async def test_a_caller_keeps_the_first_model(http: httpx.AsyncClient):
    """By the header; its answer streams as if it had been asked by name."""
    asked = greedy(QUESTION, model="smart", max_tokens=8)
    kept = await http.post("/v1/chat/completions", json=asked, headers={"serin-cascade": "first"})
    named = await http.post("/v1/chat/completions", json={**asked, "model": TINY})
    assert kept.headers["serin-route"] == "smart:kept:hint"
    assert kept.json()["choices"][0]["message"] == named.json()["choices"][0]["message"]


async def test_a_model_that_nobody_serves_is_stood_in_for(client: AsyncOpenAI):
    """Its first fallback is not served either, the second is."""
    raw = await client.chat.completions.with_raw_response.create(**greedy(QUESTION, model="spare"))
    assert (raw.parse().model, raw.parse().choices[0].message.content) == ("small", "Oslo")
    assert raw.headers["serin-route"] == "spare:fallback:NOT_READY, nobody:fallback:NOT_READY"


async def test_a_projects_alias_hides_a_model(mesh: RunningMesh):
    """For its keys alone; both models' tokens are in the ledger under their own names."""
    key = mesh.serin("key", "create", "--role", "app", "--project", "routed").split()
    secret = next(word for word in key if word.startswith("sk-serin-"))
    async with plain_openai(f"{mesh.rest}/v1", secret) as client:
        answer = await client.chat.completions.create(**greedy(QUESTION, model=TINY))
        assert (answer.model, answer.choices[0].message.content) == ("small", "Oslo")
    async with plain_http(base_url=mesh.rest, headers={"authorization": f"Bearer {secret}"}) as http:
        listed = {one["id"]: one.get("alias_of") for one in (await http.get("/v1/models")).json()["data"]}
    assert listed[TINY] == "small"


async def test_a_request_that_was_escalated_can_be_explained(http: httpx.AsyncClient, mesh: RunningMesh):
    """Which rule, which models, whose answer was thrown away."""
    answer = await http.post("/v1/chat/completions", json=greedy(QUESTION, model="smart"))
    told = await explained(mesh, answer.headers["x-request-id"])
    assert "asked for as smart" in told
    assert "the first model was not sure of its answer" in told
    assert f"attempt 1 {TINY}, " in told
    assert "billed, and not given" in told


@pytest.mark.parametrize("model", ["smart", "spare"])
async def test_vectors_come_from_the_model_that_was_asked_for(http: httpx.AsyncClient, model: str):
    """A cascade is refused by name, and nothing stands in for a model."""
    answer = await http.post("/v1/embeddings", json={"model": model, "input": "text"})
    assert answer.status_code == (400 if model == "smart" else 503)
