"""One split for everybody: callers of the gateway, of `xds:///` targets and of Envoy meet the same lanes as often.

The two lanes hold different vocabularies, so a caller that mixed them would be refused by the worker.
"""

import asyncio
import collections
import json
import math
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import grpc
import httpx
import pytest
from harness.asking import greedy
from harness.clients import plain_http
from harness.running_mesh import RunningMesh
from harness.two_vocabularies import PAIR
from serin.control.v1 import lane_pb2, lane_pb2_grpc
from serin.generation.v1 import tokens_pb2
from serin.tokenizer.v1 import tokenizer_pb2, tokenizer_pb2_grpc
from serin.worker.v1 import worker_pb2, worker_pb2_grpc
from serin_mesh.call import LANE_KEY, VOCABULARY_KEY

AT_ONCE = 16
LEAST_P = 1e-4
NO_LANE = "0" * 32

Counts = Mapping[str, int]
NUM_LANES = 2


@pytest.fixture
async def weights(edged: RunningMesh) -> Counts:
    """Lanes and their weights, as the control plane publishes them once callers know the routes of both."""
    async with grpc.aio.insecure_channel(edged.control) as channel:
        async for lanes in lane_pb2_grpc.LaneServiceStub(channel).WatchLanes(lane_pb2.WatchLanesRequest(), timeout=30):
            (model,) = lanes.models
            weights = {lane.lane: lane.weight for lane in model.lanes if lane.weight}
            if len(weights) == NUM_LANES:
                return weights
    raise AssertionError


@pytest.fixture
async def plain(edged: RunningMesh) -> AsyncIterator[dict[str, grpc.aio.Channel]]:
    """Plain gRPC channels to the edge, one for each service that they name as their authority."""
    channels = {
        service: grpc.aio.insecure_channel(
            edged.record["edge_mesh"], options=[("grpc.default_authority", f"{service}.{PAIR}")]
        )
        for service in ("tokenizer", "worker")
    }
    yield channels
    for channel in channels.values():
        await channel.close()


@pytest.mark.parametrize("number", [300, pytest.param(10_000, marks=[pytest.mark.long, pytest.mark.timeout(1_800)])])
async def test_every_kind_of_caller_sees_the_same_split(number, edged: RunningMesh, weights: Counts, plain):
    """Chi-square against the weights for each kind, and for all of them together; nobody ever mixes vocabularies."""
    found = {
        "gateway": await by_gateway(edged, number),
        "xds": await by_xds(edged, number),
        "envoy": await by_envoy(plain, number),
    }
    print(f"weights {dict(weights)}, found {found}")
    for kind, counts in found.items():
        assert set(counts) <= set(weights), kind
        assert sum(counts.values()) == number, kind
        assert p_of_split(counts, weights) > LEAST_P, f"{kind}: {counts} for weights {weights}"
    assert p_of_alike(list(found.values()), list(weights)) > LEAST_P


async def test_unknown_lanes_are_refused_everywhere(edged: RunningMesh, plain):
    """A lane that nobody serves is an error for every kind of caller, never another lane."""
    key = edged.serin("key", "create", "--role", "operator", "--name", "pins").split()
    operator = next(word for word in key if word.startswith("sk-serin-"))
    headers = {"authorization": f"Bearer {operator}", LANE_KEY: NO_LANE}
    async with httpx.AsyncClient(base_url=edged.rest, timeout=60) as client:
        answer = await client.post(
            "/v1/chat/completions", json=greedy("Nobody.", model=PAIR, max_tokens=1), headers=headers
        )
    assert (answer.status_code, answer.json()["error"]["reason"]) == (503, "LANE_GONE")
    encode = tokenizer_pb2_grpc.TokenizerServiceStub(plain["tokenizer"]).Encode
    with pytest.raises(grpc.aio.AioRpcError, match="LANE_GONE"):
        await encode(tokenizer_pb2.EncodeRequest(texts=["x"]), timeout=30, metadata=((LANE_KEY, NO_LANE),))


async def by_gateway(mesh: RunningMesh, number: int) -> Counts:
    """Requests without a session, each a session of its own."""
    headers = {"authorization": f"Bearer {mesh.key}"}
    async with plain_http(base_url=mesh.rest, headers=headers, timeout=60) as client:

        async def ask(index: int) -> str:
            body = greedy(f"quiz {index}", model=PAIR, max_tokens=1)
            answer = await client.post("/v1/chat/completions", json=body)
            assert answer.status_code == 200, answer.text
            return answer.headers[LANE_KEY]

        return await counted(ask, number)


async def by_xds(mesh: RunningMesh, number: int) -> Counts:
    """Conversations of an internal service, begun at the tokenizer without a lane."""
    script = Path(__file__).with_name("internal_caller.py")
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(script), mesh.control, PAIR, str(number), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    said = json.loads(out)
    assert (said["mixed"], said["errors"]) == (0, {})
    return said["lanes"]


async def by_envoy(channels: dict[str, grpc.aio.Channel], number: int) -> Counts:
    """Plain gRPC callers: half pass on the lane they were told, half nothing but their ids' vocabulary."""
    encode = tokenizer_pb2_grpc.TokenizerServiceStub(channels["tokenizer"]).Encode
    score = worker_pb2_grpc.WorkerServiceStub(channels["worker"]).Score

    async def converse(index: int) -> str:
        encoding = encode(tokenizer_pb2.EncodeRequest(texts=[f"quiz {index}"]), timeout=30, wait_for_ready=True)
        encoded = await encoding
        lane = dict(await encoding.initial_metadata())[LANE_KEY]
        ids = list(encoded.runs[0].token_ids)
        request = worker_pb2.ScoreRequest(
            request_id=f"plain-{index}",
            vocabulary_digest=encoded.vocabulary_digest,
            prompt=[tokens_pb2.Segment(tokens=tokens_pb2.TokenRun(token_ids=ids[:-1]))],
            target_token_ids=ids[-1:],
        )
        passed_on = (LANE_KEY, lane) if index % 2 else (VOCABULARY_KEY, encoded.vocabulary_digest)
        scoring = score(request, timeout=30, metadata=(passed_on,), wait_for_ready=True)
        await scoring  # a worker of the other vocabulary would refuse
        assert dict(await scoring.initial_metadata())[LANE_KEY] == lane
        return lane

    return await counted(converse, number)


async def counted(ask, number: int) -> Counts:
    """How often each answer came, of so many askings, some at once."""
    counts: collections.Counter[str] = collections.Counter()
    work = iter(range(number))

    async def ask_some() -> None:
        for index in work:
            counts[await ask(index)] += 1

    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(ask_some())
    return dict(counts)


def p_of_split(counts: Counts, weights: Counts) -> float:
    """Pearson's chi-square test of counts against the weights of two lanes (one degree of freedom)."""
    assert len(weights) == 2
    number, total = sum(counts.values()), sum(weights.values())
    expected = {lane: number * weight / total for lane, weight in weights.items()}
    square = sum((counts.get(lane, 0) - mean) ** 2 / mean for lane, mean in expected.items())
    return math.erfc(math.sqrt(square / 2))


def p_of_alike(groups: list[Counts], lanes: list[str]) -> float:
    """The same for three kinds of callers against what all of them saw together (two degrees of freedom)."""
    assert (len(groups), len(lanes)) == (3, 2)
    total = sum(sum(group.values()) for group in groups)
    square = 0.0
    for lane in lanes:
        share = sum(group.get(lane, 0) for group in groups) / total
        for group in groups:
            mean = share * sum(group.values())
            square += (group.get(lane, 0) - mean) ** 2 / mean
    return math.exp(-square / 2)
