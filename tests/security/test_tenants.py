"""Tenants and budgets: nothing of one is found by another, and calls at once cannot overshoot, over both doors."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import httpx
import pytest
from harness.asking import TINY, greedy
from harness.clients import plain_http
from harness.running_mesh import RunningMesh
from harness.wire_errors import error_info
from redis.asyncio import Redis
from security.attack import CHAT
from serin.generation.v1 import sampling_pb2
from serin.inference.v1 import inference_pb2, inference_pb2_grpc
from serin_gateway.keys import RedisKeyStore, Role, key_secret, mint_key
from serin_gateway.keys.records import Ability
from serin_gateway.limits.limiter import Limits


async def key_of(mesh: RunningMesh, tenant: str, **options: Any) -> str:
    """A new key of a project."""
    secret = key_secret((mesh.state / "mesh.secret").read_bytes().strip())
    key, record = mint_key(secret, role=Role.APP, tenant=tenant, **options)
    async with Redis.from_url(mesh.record["state_redis"]) as redis:
        await RedisKeyStore(redis).create(record)
    return key


class Caller:
    """Asks over both doors with one key."""

    def __init__(self, http: httpx.AsyncClient, channel: grpc.aio.Channel, key: str) -> None:
        self._http = http
        self._stub = inference_pb2_grpc.InferenceServiceStub(channel)
        self._key = key

    async def post(self, body: Any, path: str = CHAT, **headers: str) -> httpx.Response:
        """Ask over REST."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self._http.post(path, json=body, headers={"authorization": f"Bearer {self._key}"} | named)

    async def rest_tokens(self, max_tokens: int) -> int | str:
        """Tokens that an answer over REST cost, or why there was none."""
        response = await self.post(greedy("Go on", max_tokens=max_tokens))
        told = response.json()
        return told["usage"]["total_tokens"] if response.is_success else told["error"]["reason"]

    async def rpc_tokens(self, max_tokens: int, **metadata: str) -> int | str:
        """The same over gRPC."""
        sampling = sampling_pb2.SamplingParameters(max_tokens=max_tokens, temperature=0)
        request = inference_pb2.GenerateRequest(model=TINY, prompt="Go on", sampling=sampling)
        pairs = [("authorization", f"Bearer {self._key}"), *((n.replace("_", "-"), v) for n, v in metadata.items())]
        try:
            events = [event async for event in self._stub.Generate(request, metadata=pairs, timeout=60)]
        except grpc.aio.AioRpcError as error:
            return error_info(error).reason
        usage = events[-1].summary.usage
        return usage.prompt_token_count + usage.completion_token_count


@pytest.fixture
async def callers(mesh: RunningMesh) -> AsyncIterator[Any]:
    """Makes callers of keys."""
    async with plain_http(base_url=mesh.rest, timeout=60) as http, grpc.aio.insecure_channel(mesh.grpc) as channel:

        async def made(tenant: str, **options: Any) -> Caller:
            return Caller(http, channel, await key_of(mesh, tenant, **options))

        yield made


async def test_requests_at_once_are_counted_once(callers: Any):
    """Of 24 at once over both doors exactly the limit's number is answered."""
    caller = await callers("budget-requests", limits=Limits(requests_per_minute=7))
    ends = await asyncio.gather(*(caller.rest_tokens(1) if at % 2 else caller.rpc_tokens(1) for at in range(24)))
    assert sum(isinstance(end, int) for end in ends) == 7
    assert {end for end in ends if isinstance(end, str)} == {"RATE_LIMITED"}


@pytest.mark.parametrize("limit", ["tokens_per_minute", "tokens_per_day"])
async def test_tokens_at_once_cannot_overshoot(callers: Any, limit: str):
    """What all of them could use is reserved first: the sum of what was used stays within."""
    caller = await callers(f"budget-{limit.replace('_', '-')}", limits=Limits(**{limit: 700}))
    ends = await asyncio.gather(*(caller.rest_tokens(150) if at % 2 else caller.rpc_tokens(150) for at in range(16)))
    used = [end for end in ends if isinstance(end, int)]
    assert used
    assert sum(used) <= 700
    assert {end for end in ends if isinstance(end, str)} == {"RATE_LIMITED"}


async def test_many_answers_cost_what_all_of_them_may(callers: Any):
    """`n` and lists of prompts multiply what is reserved: 64 answers are not the price of one."""
    caller = await callers("budget-many", limits=Limits(tokens_per_minute=2000))
    for body, path in (
        (greedy("x", max_tokens=100) | {"n": 64}, CHAT),
        ({"model": TINY, "prompt": ["x"] * 64, "max_tokens": 100}, "/v1/completions"),
    ):
        response = await caller.post(body, path)
        assert (response.status_code, response.json()["error"]["reason"]) == (429, "RATE_LIMITED")


async def test_an_idempotency_key_is_its_owners(callers: Any):
    """The same key and the same request by another tenant, or another key, is another request: nothing is replayed."""
    mine, theirs = await callers("idem-mine"), await callers("idem-theirs")
    drawn = {"model": TINY, "messages": [{"role": "user", "content": "Draw"}], "max_tokens": 24, "temperature": 2}
    first = await mine.post(drawn, idempotency_key="the-same-for-both")
    again = await mine.post(drawn, idempotency_key="the-same-for-both")
    other = await theirs.post(drawn, idempotency_key="the-same-for-both")
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json()["choices"] == first.json()["choices"]
    assert other.status_code == 200
    assert "idempotent-replayed" not in other.headers
    assert other.json()["choices"] != first.json()["choices"]


async def test_a_request_is_its_tenants(callers: Any):
    """Feedback on another tenant's request is feedback on nothing: the same words as for one that never was."""
    mine, theirs = await callers("feedback-mine"), await callers("feedback-theirs")
    request_id = (await mine.post(greedy("Hi", max_tokens=1))).headers["x-request-id"]
    told = [
        await theirs.post({"request_id": named, "score": 0}, "/v1/feedback") for named in (request_id, "req-never-was")
    ]
    assert [one.status_code for one in told] == [404, 404]
    assert told[0].json()["error"]["message"] == told[1].json()["error"]["message"]


async def test_cached_work_is_its_tenants(callers: Any):
    """A prompt that one tenant has cached, and an answer that it has stored, are new to another."""
    mine, theirs = await callers("cache-mine"), await callers("cache-theirs")
    body = greedy("A long prompt that is worth keeping, of more than two blocks. " * 2, max_tokens=4)
    body["allow_cached_answer"] = True
    await mine.post(body)
    warm = await mine.post(body)
    cold = await theirs.post(body)
    assert warm.json()["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
    assert cold.json()["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    salted = await mine.post(body | {"cache_salt": "narrower"})
    assert salted.json()["usage"]["prompt_tokens_details"]["cached_tokens"] == 0


async def test_a_key_does_what_it_was_made_for(callers: Any):
    """A key for looking at models asks none; a key for one model knows no other; over both doors."""
    looking = await callers("made-for", abilities=[Ability.MODELS])
    assert await looking.rest_tokens(1) == await looking.rpc_tokens(1) == "ROLE_INSUFFICIENT"
    other = await callers("made-for", models=["small"])
    assert await other.rest_tokens(1) == await other.rpc_tokens(1) == "MODEL_NOT_FOUND"
    gone = await callers("made-for", lifetime_s=-1.0)
    assert await gone.rest_tokens(1) == await gone.rpc_tokens(1) == "KEY_INVALID"
