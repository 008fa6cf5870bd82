"""Embeddings through both doors over twins in memory: shapes, bounds, retries, lanes, limits, accounts."""

import base64
from array import array

import grpc
import httpx
import pytest
from serin.generation.v1 import tokens_pb2
from serin.inference.v1 import inference_pb2, inference_pb2_grpc
from serin_gateway.embedding_ask import PART_INPUTS
from serin_gateway.limits.limiter import Limits
from serin_gateway.rest.api import rest_endpoints
from serin_gateway.rest.door import Door
from serin_gateway.rpc.service import InferenceService
from serin_gateway.testing import MemoryHouse, small_catalog, small_lane
from serin_mesh.errors import STATUS, MeshError, Reason, from_rpc_error
from serin_mesh.readiness import Readiness
from serin_mesh.testing import running


class Front:
    """A gateway with one embedding model, asked in memory."""

    def __init__(self, key: str, house: MemoryHouse) -> None:
        self.house = house
        readiness = Readiness()
        readiness.ready()
        door = Door(house.collaborators, rest_endpoints(readiness), timeout_s=30)
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(door),  # type: ignore[arg-type]
            base_url="http://gateway",
            headers={"authorization": f"Bearer {key}"},
        )

    async def embed(self, input: object, **fields) -> httpx.Response:
        """Ask over REST."""
        body = {"model": "small", "input": input, **fields}
        return await self.http.post("/v1/embeddings", json={k: v for k, v in body.items() if v is not None})


def embedding_lane(lane: str = "lane-a", num_places: int = 512, **fields):
    """A lane whose workers compute vectors of four components, from at most 50 ids."""
    return small_lane(lane, num_dimensions=4, context_length=50, num_places=num_places, **fields)


@pytest.fixture
async def front():
    """The gateway; limits can be given to its key."""
    house = MemoryHouse()
    house.catalog.publish(small_catalog(embedding_lane(num_workers=2)))
    front = Front(await house.key(), house)
    async with front.http:
        yield front


@pytest.mark.parametrize(
    ("given", "firsts", "lengths"),
    [
        ("abc", [97], [3]),
        (["b", "cc"], [98, 99], [1, 2]),
        ([7, 8, 9], [7], [3]),
        ([[7], [8, 9]], [7, 8], [1, 2]),
    ],
)
async def test_every_shape_of_input(front, given, firsts, lengths):
    """A vector for each, in order; tokens are counted."""
    answer = await front.embed(given)
    body = answer.json()
    assert body["usage"] == {"prompt_tokens": sum(lengths), "total_tokens": sum(lengths)}
    assert (body["object"], body["model"], answer.headers["serin-lane"]) == ("list", "small", "lane-a")
    assert [one["embedding"] for one in body["data"]] == [
        [length, first, 0, 0] for length, first in zip(lengths, firsts, strict=True)
    ]
    assert [(one["object"], one["index"]) for one in body["data"]] == [("embedding", at) for at in range(len(lengths))]


async def test_base64_is_the_same_vector(front):
    """Little-endian floats; fewer dimensions where they are wanted."""
    answer = (await front.embed("abc", encoding_format="base64", dimensions=2, user="me")).json()
    assert array("f", base64.b64decode(answer["data"][0]["embedding"])).tolist() == [3, 97]


@pytest.mark.parametrize(
    ("fields", "reason", "param"),
    [
        ({"input": None}, Reason.PARAMETER_INVALID, "input"),
        ({"input": []}, Reason.PARAMETER_INVALID, "input"),
        ({"input": ""}, Reason.PARAMETER_INVALID, "input"),
        ({"input": ["a", ""]}, Reason.PARAMETER_INVALID, "input[1]"),
        ({"input": ["a", 5]}, Reason.PARAMETER_INVALID, "input[1]"),
        ({"input": [[1], []]}, Reason.PARAMETER_INVALID, "input[1]"),
        ({"input": [-1]}, Reason.PARAMETER_INVALID, "input"),
        ({"input": {"text": "a"}}, Reason.PARAMETER_INVALID, "input"),
        ({"input": ["a"] * 2049}, Reason.PARAMETER_INVALID, "input"),
        ({"dimensions": 0}, Reason.PARAMETER_INVALID, "dimensions"),
        ({"dimensions": 5}, Reason.PARAMETER_INVALID, "dimensions"),
        ({"dimensions": 1.5}, Reason.PARAMETER_INVALID, "dimensions"),
        ({"encoding_format": "hex"}, Reason.PARAMETER_INVALID, "encoding_format"),
        ({"input": ["a", "b" * 51]}, Reason.PROMPT_TOO_LONG, "input[1]"),
        ({"input": [[1] * 51]}, Reason.PROMPT_TOO_LONG, "input[0]"),
        ({"temperature": 1}, Reason.PARAMETER_UNKNOWN, "temperature"),
        ({"model": "other"}, Reason.MODEL_NOT_FOUND, "model"),
    ],
)
async def test_bad_input_is_refused_by_name(front, fields, reason, param):
    """Nobody is asked for a vector; a long input is told with both numbers."""
    answer = await front.embed(**{"input": "a", **fields})
    assert (answer.status_code, answer.headers["serin-reason"]) == (STATUS[reason].http, reason.value)
    assert answer.json()["error"]["param"] == param
    assert front.house.embedders.calls == []
    if reason is Reason.PROMPT_TOO_LONG:
        assert "51" in answer.json()["error"]["message"]
        assert "50" in answer.json()["error"]["message"]


async def test_many_inputs_go_in_parts_and_keep_their_order(front):
    """2,048 of them, each part one call; what a worker says of an input is said of the caller's."""
    inputs = [[number + 1] for number in range(2048)]
    answer = (await front.embed(inputs)).json()
    assert [one["embedding"][1] for one in answer["data"]] == [number + 1 for number in range(2048)]
    assert [len(part) for _, _, part in front.house.embedders.calls] == [PART_INPUTS] * 8
    odd = MeshError(Reason.PARAMETER_INVALID, "runs[3] has the id 9; accepted: ids below 5", parameter="runs[3]")
    front.house.embedders.failures = [None, odd]
    error = (await front.embed(inputs)).json()["error"]
    at = PART_INPUTS + 3
    assert (error["param"], error["message"]) == (f"input[{at}]", f"input[{at}] has the id 9; accepted: ids below 5")
    front.house.catalog.publish(small_catalog(embedding_lane(num_places=100)))
    front.house.embedders.calls.clear()
    assert (await front.embed(inputs[:250])).status_code == 200
    assert [len(part) for _, _, part in front.house.embedders.calls] == [100, 100, 50], (
        "no more than a worker has places"
    )


async def test_another_worker_takes_over(front):
    """Before the answer exists, what a lost worker was asked is asked of another one of the lane."""
    front.house.embedders.failures = [MeshError(Reason.UPSTREAM_UNAVAILABLE, "gone")]
    answer = await front.embed(["a", "b"])
    assert answer.status_code == 200
    first, second = (worker.instance for _, worker, _ in front.house.embedders.calls)
    assert first != second
    (receipt,) = front.house.journal.receipts
    assert [lost.cause for lost in receipt.lost_workers] == ["killed"]
    assert (receipt.attempts[0].num_placements, receipt.attempts[0].reason) == (2, "ok")


async def test_all_vectors_are_of_one_lane(front):
    """Where a lane lets go after a part, every input is embedded again on the other one."""
    lanes = [embedding_lane(lane, weight=50) for lane in ("lane-a", "lane-b")]
    front.house.catalog.publish(small_catalog(*lanes))
    front.house.embedders.failures = [None, MeshError(Reason.VOCABULARY_MISMATCH, "another one")]
    answer = await front.embed([[1]] * (PART_INPUTS + 1))
    assert answer.status_code == 200
    first, again, *rest = (scope.lane.lane for scope, _, _ in front.house.embedders.calls)
    assert first == again != answer.headers["serin-lane"]
    assert rest == [answer.headers["serin-lane"]] * 2
    observed = front.house.observed.take().observations
    assert {(one.attempt.lane, one.attempt.reason) for one in observed} == {
        (first, "VOCABULARY_MISMATCH"),
        (rest[-1], "ok"),
    }
    assert next(one.attempt for one in observed if one.attempt.reason == "ok").first_token_s > 0


async def test_tokens_are_reserved_and_settled(front):
    """What the bytes bound is held while it is computed; what was used counts then."""
    key = await front.house.key(limits=Limits(tokens_per_minute=20))
    front.http.headers["authorization"] = f"Bearer {key}"
    answer = await front.embed(["abcde", "fgh"])
    assert answer.headers["x-ratelimit-limit-tokens"] == "20"
    assert answer.json()["usage"]["total_tokens"] == 8
    assert (await front.embed("a" * 14)).status_code == 429
    assert (await front.embed([1] * 12)).status_code == 200
    assert (await front.embed("a")).status_code == 429


async def test_each_model_does_what_it_does(front):
    """Chat to an embedding model and embeddings of a chat model: refused, naming the model and why."""
    for path, body in (
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]}),
        ("/v1/completions", {"prompt": "Hi"}),
        ("/v1/messages", {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}),
    ):
        answer = await front.http.post(path, json={"model": "small", **body})
        assert (answer.status_code, answer.headers["serin-reason"]) == (400, "PARAMETER_UNSUPPORTED")
        assert "'small' computes embeddings" in answer.text
    listed = (await front.http.get("/v1/models/small")).json()
    assert (listed["embedding_dimensions"], listed["context_length"]) == (4, 50)
    front.house.catalog.publish(small_catalog())
    answer = await front.embed("a")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "model")
    assert "'small' generates text" in answer.json()["error"]["message"]
    assert "embedding_dimensions" not in (await front.http.get("/v1/models/small")).json()


async def test_over_grpc(front):
    """The same vectors, reasons and account."""
    metadata = (("authorization", front.http.headers["authorization"]),)
    service = InferenceService(front.house.collaborators)
    async with (
        running(lambda server: inference_pb2_grpc.add_InferenceServiceServicer_to_server(service, server)) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        stub = inference_pb2_grpc.InferenceServiceStub(channel)

        async def embed(**fields):
            request = inference_pb2.EmbedRequest(**{"model": "small", **fields})
            return await stub.Embed(request, timeout=9, metadata=metadata)

        answer = await embed(inputs=["abc", "d"], dimension_count=2)
        assert [list(one.values) for one in answer.embeddings] == [[3, 97], [1, 100]]
        assert answer.usage.prompt_token_count == 4
        runs = [tokens_pb2.TokenRun(token_ids=[5, 6])]
        assert list((await embed(token_inputs=runs)).embeddings[0].values) == [2, 5, 0, 0]
        for fields, reason, parameter in (
            ({}, Reason.PARAMETER_INVALID, "inputs"),
            ({"inputs": ["a", ""]}, Reason.PARAMETER_INVALID, "inputs[1]"),
            ({"inputs": ["a"], "token_inputs": runs}, Reason.PARAMETER_INVALID, "inputs"),
            ({"token_inputs": [tokens_pb2.TokenRun()]}, Reason.PARAMETER_INVALID, "token_inputs[0]"),
            ({"inputs": ["a" * 51]}, Reason.PROMPT_TOO_LONG, "inputs[0]"),
            ({"inputs": ["a"], "dimension_count": 5}, Reason.PARAMETER_INVALID, "dimension_count"),
            ({"inputs": ["a"], "model": "other"}, Reason.MODEL_NOT_FOUND, "model"),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await embed(**fields)
            error = from_rpc_error(failed.value)
            assert (error.reason, error.metadata["parameter"]) == (reason, parameter)
        listed = await stub.ListModels(inference_pb2.ListModelsRequest(), timeout=9, metadata=metadata)
        assert listed.models[0].embedding_dimension_count == 4
    assert front.house.journal.receipts[0].operation == "embed"
    assert front.house.journal.receipts[0].usage.prompt_tokens == 4
