"""Keys over both doors: missing, wrong, revoked, too low a role, over a limit."""

import asyncio

import grpc
import httpx
import pytest
from harness.asking import TINY, greedy
from harness.clients import plain_http
from harness.eventually import eventually
from harness.keys import mint, revoke
from harness.running_mesh import RunningMesh
from harness.wire_errors import error_info
from serin.generation.v1 import sampling_pb2
from serin.inference.v1 import inference_pb2, inference_pb2_grpc
from serin_gateway.keys import Role
from serin_gateway.limits.limiter import Limits

CHAT = "/v1/chat/completions"


async def post(mesh: RunningMesh, key: str | None, body=None, **headers: str) -> httpx.Response:
    """Ask with a key."""
    if key is not None:
        headers["authorization"] = f"Bearer {key}"
    async with plain_http(base_url=mesh.rest, timeout=30) as client:
        return await client.post(CHAT, json=body or greedy("Hi", max_tokens=2), headers=headers)


async def rpc_failure(channel: grpc.aio.Channel, key: str | None, **metadata: str) -> tuple[grpc.StatusCode, str]:
    """Status and reason that a call with this key ends with."""
    request = inference_pb2.GenerateRequest(
        model=TINY, prompt="Hi", sampling=sampling_pb2.SamplingParameters(max_tokens=2)
    )
    pairs = [(name.replace("_", "-"), value) for name, value in metadata.items()]
    if key is not None:
        pairs.append(("authorization", f"Bearer {key}"))
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await anext(
            aiter(inference_pb2_grpc.InferenceServiceStub(channel).Generate(request, timeout=30, metadata=pairs))
        )
    return failure.value.code(), error_info(failure.value).reason


@pytest.mark.parametrize(("key", "reason"), [(None, "KEY_MISSING"), ("sk-serin-" + "x" * 40, "KEY_INVALID")])
async def test_without_a_valid_key(mesh: RunningMesh, front_door: grpc.aio.Channel, key, reason: str):
    """401 and UNAUTHENTICATED with the same reason."""
    response = await post(mesh, key)
    assert response.status_code == 401
    assert response.json()["error"]["reason"] == reason
    assert response.json()["error"]["type"] == "authentication_error"
    assert await rpc_failure(front_door, key) == (grpc.StatusCode.UNAUTHENTICATED, reason)


async def test_a_revoked_key_stops_working(mesh: RunningMesh, front_door: grpc.aio.Channel):
    """A key that worked is refused once it is revoked, by every gateway within a moment."""
    key, record = await mint(mesh)
    assert (await post(mesh, key)).status_code == 200
    await revoke(mesh, record)
    response = await eventually(lambda: post(mesh, key), lambda answer: answer.status_code != 200, "revocation")
    assert response.status_code == 401
    assert response.json()["error"]["reason"] == "KEY_INVALID"
    assert await rpc_failure(front_door, key) == (grpc.StatusCode.UNAUTHENTICATED, "KEY_INVALID")


async def test_a_role_that_is_too_low(mesh: RunningMesh, front_door: grpc.aio.Channel):
    """Choosing a lane needs more than `app`: 403 and PERMISSION_DENIED; an operator may."""
    key, _ = await mint(mesh, role=Role.APP)
    lane = (await post(mesh, key)).headers["serin-lane"]
    refused = await post(mesh, key, **{"serin-lane": lane})
    assert refused.status_code == 403
    assert refused.json()["error"]["reason"] == "ROLE_INSUFFICIENT"
    assert await rpc_failure(front_door, key, serin_lane=lane) == (
        grpc.StatusCode.PERMISSION_DENIED,
        "ROLE_INSUFFICIENT",
    )
    operator, _ = await mint(mesh, role=Role.OPERATOR)
    allowed = await post(mesh, operator, **{"serin-lane": lane})
    assert allowed.status_code == 200
    assert allowed.headers["serin-lane"] == lane
    gone = await post(mesh, operator, **{"serin-lane": "0" * len(lane)})
    assert gone.status_code == 503
    assert gone.json()["error"]["reason"] == "LANE_GONE"


async def test_requests_a_minute(mesh: RunningMesh, front_door: grpc.aio.Channel):
    """The limit's request is the last: 429 with retry-after, counted over both doors together."""
    key, _ = await mint(mesh, limits=Limits(requests_per_minute=3))
    allowed = [await post(mesh, key) for _ in range(3)]
    assert [response.status_code for response in allowed] == [200, 200, 200]
    assert [response.headers["x-ratelimit-remaining-requests"] for response in allowed] == ["2", "1", "0"]
    refused = await post(mesh, key)
    assert refused.status_code == 429
    assert refused.json()["error"]["reason"] == "RATE_LIMITED"
    assert 0 < float(refused.headers["retry-after"]) <= 60
    assert await rpc_failure(front_door, key) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")


async def test_tokens_a_minute_are_reserved_before_they_are_used(mesh: RunningMesh):
    """Calls at once cannot overshoot: what all of them could use is reserved, and given back when it was not used."""
    key, _ = await mint(mesh, limits=Limits(tokens_per_minute=1000))
    body = greedy("Hi", max_tokens=400)
    responses = await asyncio.gather(*(post(mesh, key, body) for _ in range(6)))
    used = sum(response.json()["usage"]["total_tokens"] for response in responses if response.status_code == 200)
    assert sorted({response.status_code for response in responses}) == [200, 429]
    assert used <= 1000


async def test_requests_at_the_same_time(mesh: RunningMesh):
    """One stream at a time: the second is refused while the first runs, and allowed when it has ended."""
    key, _ = await mint(mesh, limits=Limits(concurrent_requests=1))
    headers = {"authorization": f"Bearer {key}"}
    body = greedy("Go on", max_tokens=4000, stream=True)
    async with plain_http(base_url=mesh.rest, timeout=60, headers=headers) as client:
        # Asks for no model, so it takes no lease; from then on the gateway knows the key without asking for it.
        await eventually(lambda: client.get("/v1/models"), lambda answer: answer.status_code == 200, "the key is known")
        async with client.stream("POST", CHAT, json=body) as running:
            first = await anext(running.aiter_lines())
            assert running.status_code == 200, first
            refused = await post(mesh, key)
            assert refused.status_code == 429
            assert refused.json()["error"]["reason"] == "RATE_LIMITED"
        await eventually(lambda: post(mesh, key), lambda answer: answer.status_code == 200, "the first one's end")


async def test_keys_made_by_the_command_line_work(mesh: RunningMesh):
    """`serin key create` makes a key that answers, `list` shows it, `revoke` ends it."""
    created = await asyncio.to_thread(mesh.serin, "key", "create", "--role", "app", "--name", "from-the-shell")
    key = next(word for word in created.split() if word.startswith("sk-serin-"))
    assert (await post(mesh, key)).status_code == 200
    listed = await asyncio.to_thread(mesh.serin, "key", "list")
    assert "from-the-shell" in listed
    assert key not in listed


async def test_every_route_needs_a_key(mesh: RunningMesh):
    """Only `/live` and `/ready` answer strangers; every other path that answers at all asks for a key."""
    async with plain_http(base_url=mesh.rest, timeout=30) as stranger:
        described = await stranger.get(
            "/openapi.json", headers={"authorization": f"Bearer {(await mint(mesh, role=Role.ADMIN))[0]}"}
        )
        paths = set(described.json()["paths"]) | {"/metrics", "/openapi.json", "/docs"}
        for path in sorted(paths):
            for method in ("GET", "POST"):
                status = (await stranger.request(method, path.replace("{model}", TINY))).status_code
                if path in ("/live", "/ready"):
                    assert method == "POST" or status == 200, path
                else:
                    assert status in (401, 405), f"{method} {path} answers {status} to a stranger"


@pytest.mark.parametrize(
    "target",
    ["//v1/models", "/v1/models;x=y", "/v1/%2e%2e/v1/models", "/live/../v1/models", "/live%2f..%2fv1%2fmodels"],
)
async def test_odd_paths_do_not_get_around_the_key(mesh: RunningMesh, target: str):
    """Paths that only look unguarded are refused, or asked for a key; never let through."""
    reader, writer = await asyncio.open_connection(*mesh.rest.removeprefix("http://").split(":"))
    writer.write(f"GET {target} HTTP/1.1\r\nHost: x/live?\r\nConnection: close\r\n\r\n".encode())
    async with asyncio.timeout(60):
        status = int((await reader.readline()).split()[1])
        await reader.read()
    writer.close()
    await writer.wait_closed()
    assert status in (400, 401, 404), status
