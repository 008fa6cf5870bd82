"""Faults 15 and 16: the stores are killed, or hang. Answers go on; what is unknown is said to be unknown."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from harness.asking import greedy
from harness.clients import plain_http
from harness.eventually import eventually
from harness.keys import mint
from harness.running_mesh import RunningMesh
from harness.valkey import Valkey
from prometheus_client.parser import text_string_to_metric_families
from serin_gateway.keys import Role
from serin_gateway.limits.limiter import Limits

CHAT = "/v1/chat/completions"
BODY = greedy("Without a store.", max_tokens=12) | {"allow_cached_answer": True}
"""So that the cache is asked, though one worker alone has to be chosen from."""
ASKING_VERBS = {"authenticate", "admit", "recall", "settle"}
UNKNOWN_KEY = "sk-serin-" + "u" * 40


@pytest.fixture(autouse=True)
async def unharmed(mesh: RunningMesh, stores: dict[str, Valkey]) -> AsyncIterator[None]:
    """Each test begins when the gateway has seen that both stores answer, and leaves both alive."""
    await known_to_be_back(mesh)
    yield
    for store in stores.values():
        store.go_on()
        store.stop()
        store.start()


async def known_to_be_back(mesh: RunningMesh) -> httpx.Response:
    """Wait until the gateway asks the state store again: then a key that nobody has is wrong, not unknown."""
    return await eventually(
        lambda: post(mesh, UNKNOWN_KEY), lambda answer: answer.status_code == 401, "the state store's return"
    )


async def post(mesh: RunningMesh, key: str) -> httpx.Response:
    """Ask the usual question with a key."""
    async with plain_http(base_url=mesh.rest, timeout=30) as client:
        return await client.post(CHAT, json=BODY, headers={"authorization": f"Bearer {key}"})


async def text(mesh: RunningMesh, key: str) -> str:
    """The answer to the usual question; fails where there is none."""
    response = await post(mesh, key)
    assert response.status_code == 200, response.text
    content: str = response.json()["choices"][0]["message"]["content"]
    return content


@pytest.mark.parametrize("harm", ["kill", "hang"])
async def test_answers_go_on_without_the_cache_store(mesh: RunningMesh, stores: dict[str, Valkey], harm: str):
    """Only misses: the text is the same, before, during and after."""
    before = await text(mesh, mesh.key)
    getattr(stores["cache"], harm)()
    during = await asyncio.gather(*(text(mesh, mesh.key) for _ in range(12)))
    assert set(during) == {before}


@pytest.mark.parametrize("harm", ["kill", "hang"])
async def test_known_keys_go_on_without_the_state_store(mesh: RunningMesh, stores: dict[str, Valkey], harm: str):
    """A key that was seen lately answers; an unknown one is 503 AUTH_UNAVAILABLE, never 401; afterwards all is well."""
    before = await text(mesh, mesh.key)
    getattr(stores["state"], harm)()
    during = [await text(mesh, mesh.key) for _ in range(12)]
    assert set(during) == {before}
    unknown = await post(mesh, UNKNOWN_KEY)
    assert unknown.status_code == 503
    assert unknown.json()["error"]["reason"] == "AUTH_UNAVAILABLE"
    assert float(unknown.headers["retry-after"]) > 0

    if harm == "hang":
        stores["state"].go_on()
    else:
        stores["state"].start()
    await known_to_be_back(mesh)
    assert await text(mesh, mesh.key) == before


@pytest.mark.parametrize("harm", ["kill", "hang"])
async def test_limits_stay_conservative_without_the_state_store(mesh: RunningMesh, stores, harm: str):
    """A gateway that cannot ask the store grants less than the limit, not more, and counts what it granted before."""
    key, _ = await mint(mesh, limits=Limits(requests_per_minute=8))
    granted = [(await post(mesh, key)).status_code for _ in range(2)]
    assert granted == [200, 200]
    getattr(stores["state"], harm)()
    statuses = [(await post(mesh, key)).status_code for _ in range(10)]
    assert set(statuses) <= {200, 429}
    assert 429 in statuses, "limits hold"
    assert 200 in statuses, "answers go on"
    assert granted.count(200) + statuses.count(200) < 8, "a local gateway grants only its share"


async def test_no_request_waits_for_a_store_that_hangs(mesh: RunningMesh, stores: dict[str, Valkey]):
    """Fault 16: both stores hang; after the first seconds no verb that asks them takes as long as one of those.

    Limits alone wait for a store that was there: for a second, three times in a row.
    """
    viewer, _ = await mint(mesh, role=Role.VIEWER)
    assert (await post(mesh, viewer)).status_code == 200
    for store in stores.values():
        store.hang()
    assert [(await post(mesh, mesh.key)).status_code for _ in range(4)] == [200] * 4
    before = await slow_verbs(mesh, viewer)
    statuses = [(await post(mesh, mesh.key)).status_code for _ in range(12)]
    assert statuses == [200] * 12
    assert await slow_verbs(mesh, viewer) == before


async def slow_verbs(mesh: RunningMesh, key: str) -> dict[str, float]:
    """How often each verb that asks a store has taken more than a second."""
    async with plain_http(base_url=mesh.rest, timeout=30) as client:
        page = (await client.get("/metrics", headers={"authorization": f"Bearer {key}"})).raise_for_status().text
    count: dict[str, float] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            verb = sample.labels.get("verb", "")
            if sample.name == "serin_gateway_verb_seconds_count" and verb in ASKING_VERBS:
                count[verb] = count.get(verb, 0) + sample.value
            elif (
                sample.name == "serin_gateway_verb_seconds_bucket"
                and sample.labels["le"] == "1.0"
                and verb in ASKING_VERBS
            ):
                count[verb] = count.get(verb, 0) - sample.value
    assert set(count) == ASKING_VERBS
    return count


async def test_a_running_stream_does_not_notice(mesh: RunningMesh, stores: dict[str, Valkey], client):
    """Both stores die while an answer streams: it ends as it would have."""
    ask = greedy("Stream on.", max_tokens=400)
    whole = (await client.chat.completions.create(**ask)).choices[0].message.content
    streamed = ""
    async for chunk in await client.chat.completions.create(**ask, stream=True):
        if not streamed:
            for store in stores.values():
                store.kill()
        streamed += chunk.choices[0].delta.content or ""
    assert streamed == whole
