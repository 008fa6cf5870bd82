"""WorkerService with an embedding model, over a real server."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import torch
from prometheus_client import CollectorRegistry, generate_latest
from serin.generation.v1 import tokens_pb2
from serin.worker.v1 import worker_pb2, worker_pb2_grpc
from serin_mesh.errors import MeshError, Reason
from serin_mesh.testing import running
from serin_worker.assembly import serving
from serin_worker.embedding.encoder import Encoder
from serin_worker.embedding.metrics import EmbeddingCollector, EmbeddingTimes
from serin_worker.embedding.request import EmbeddingRequest
from serin_worker.embedding.serving import EmbeddingServing, num_places
from serin_worker.service import WorkerService
from serin_worker.settings import WorkerSettings
from serin_worker.testing import TINY_DIMENSIONS, write_tiny_encoder


@pytest.fixture
async def served(tmp_path) -> AsyncIterator[EmbeddingServing]:
    """A tiny embedding model, as the process puts it together."""
    folder = write_tiny_encoder(tmp_path, max_tokens=32)
    settings = WorkerSettings(model="tiny", model_path=str(folder), version="v1", instance="worker-1")
    said: list[tuple[str, float]] = []
    async with serving(settings, lambda *news: said.append(news)) as found:
        assert isinstance(found, EmbeddingServing)
        await asyncio.sleep(0)
        assert said[-1] == ("checking the model", 1.0)
        yield found


@pytest.fixture
def metrics() -> CollectorRegistry:
    """Where it counts."""
    return CollectorRegistry()


@pytest.fixture
async def stub(served, metrics) -> AsyncIterator[worker_pb2_grpc.WorkerServiceStub]:
    """A client of it, over a socket and the whole onion."""
    metrics.register(EmbeddingCollector(served))
    service = WorkerService(served, EmbeddingTimes(metrics, "tiny"))
    async with (
        running(lambda server: worker_pb2_grpc.add_WorkerServiceServicer_to_server(service, server)) as server,
        server.connect() as channel,
    ):
        yield worker_pb2_grpc.WorkerServiceStub(channel)


async def refused(call) -> MeshError:
    """The error of a call that must fail."""
    with pytest.raises(MeshError) as caught:
        await call
    return caught.value


def asking(served: EmbeddingServing, *inputs, **fields) -> worker_pb2.EmbedRequest:
    """A request."""
    fields.setdefault("vocabulary_digest", served.vocabulary_digest)
    return worker_pb2.EmbedRequest(runs=[tokens_pb2.TokenRun(token_ids=ids) for ids in inputs], **fields)


async def until(holds) -> None:
    """Wait until something holds that nobody tells of."""
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 - the line has no event of its own
            await asyncio.sleep(0.01)


async def test_vectors_in_order_and_what_is_measured(served, stub, metrics):
    """Concurrent calls each get their own, of the length they want."""
    inputs = [[number + 1] * (number + 1) for number in range(8)]
    answers = await asyncio.gather(*(stub.Embed(asking(served, ids, [5])) for ids in inputs))
    alone = [(await stub.Embed(asking(served, ids))).embeddings[0].values for ids in inputs]
    for answer, vector in zip(answers, alone, strict=True):
        torch.testing.assert_close(torch.tensor(answer.embeddings[0].values), torch.tensor(vector))
    short = (await stub.Embed(asking(served, inputs[3], dimension_count=10))).embeddings[0].values
    wanted = torch.nn.functional.normalize(torch.tensor(alone[3])[:10], dim=0)
    torch.testing.assert_close(torch.tensor(short), wanted)
    text = generate_latest(metrics).decode()
    num_tokens = 2 * sum(range(1, 9)) + 8 + 4
    for line in (
        f'vllm:prompt_tokens_total{{model_name="tiny"}} {num_tokens:.1f}',
        'serin_worker_embedded_inputs_total{model_name="tiny"} 25.0',
        'vllm:request_success_total{finished_reason="stop",model_name="tiny"} 17.0',
        'vllm:num_requests_waiting{model_name="tiny"} 0.0',
    ):
        assert line in text
    await until(lambda: (served.load().utilization, served.load().named["running"]) == (0.0, 0))


async def test_what_is_refused_by_name(served, stub):
    """Both numbers of a long input, another vocabulary, more dimensions than there are."""
    error = await refused(stub.Embed(asking(served, [1], [1] * 33)))
    assert error.reason is Reason.PROMPT_TOO_LONG
    assert (error.metadata["token_count"], error.metadata["max_token_count"]) == ("33", "32")
    for request, reason, parameter in (
        (asking(served, [1], vocabulary_digest="00"), Reason.VOCABULARY_MISMATCH, None),
        (asking(served, [1], dimension_count=TINY_DIMENSIONS + 1), Reason.PARAMETER_INVALID, "dimension_count"),
        (asking(served, [1], [500]), Reason.PARAMETER_INVALID, "runs[1]"),
        (asking(served), Reason.PARAMETER_INVALID, "runs"),
    ):
        error = await refused(stub.Embed(request))
        assert (error.reason, error.metadata.get("parameter")) == (reason, parameter)


async def test_it_generates_and_scores_nothing(served, stub):
    """The model is named, and why."""
    generation = stub.Generate(worker_pb2.GenerateRequest(request_id="r", vocabulary_digest=served.vocabulary_digest))

    async def all_of(stream):
        return [event async for event in stream]

    for call in (all_of(generation), stub.Score(worker_pb2.ScoreRequest(request_id="r"))):
        error = await refused(call)
        assert (error.reason, error.metadata["parameter"]) == (Reason.PARAMETER_UNSUPPORTED, "model")
        assert "'tiny' computes embeddings" in error.message


async def test_what_it_says_about_itself(served, stub):
    """It has a length of vectors and no KV blocks; a watch of its cache begins and stays empty."""
    about = await stub.DescribeWorker(worker_pb2.DescribeWorkerRequest())
    assert (about.embedding_dimension_count, about.context_length, about.block_count) == (TINY_DIMENSIONS, 32, 0)
    assert (about.numerics, about.precision, about.instance) == ("fast", "float32", "worker-1")
    assert about.max_sequence_count == served.max_num_inputs == 64
    watch = stub.WatchCache(worker_pb2.WatchCacheRequest())
    message = await watch.read()
    assert (message.snapshot.complete, list(message.snapshot.block_keys)) == (True, [])
    watch.cancel()
    purged = await stub.PurgeCache(worker_pb2.PurgeCacheRequest(cache_group="a"))
    assert purged.block_count == 0


async def test_nothing_is_kept_for_a_gateway_that_dies(served, stub):
    """Its caller got no vector without it, so nothing is owed: the worker answers, and has no account."""
    await stub.Embed(asking(served, [1, 2]))
    told = await stub.ListAccounts(worker_pb2.ListAccountsRequest(account_prefix="c" * 32))
    assert list(told.accounts) == []


@pytest.mark.parametrize(
    ("max_sequences", "batch_tokens", "places"), [(64, 2048, 64), (64, 16_384, 512), (1000, 16_384, 1000), (8, 512, 16)]
)
def test_places_fill_a_batch(max_sequences, batch_tokens, places):
    """Of short inputs; a higher setting gives more."""
    assert num_places(max_sequences, batch_tokens) == places


def hold_encoder(monkeypatch) -> tuple[asyncio.Event, asyncio.Event]:
    """Encoders wait for the first event before they compute, and set the second when they begin to."""
    gate, entered, loop = asyncio.Event(), asyncio.Event(), asyncio.get_running_loop()
    encode = Encoder.encode

    def held(encoder, inputs):
        loop.call_soon_threadsafe(entered.set)
        asyncio.run_coroutine_threadsafe(gate.wait(), loop).result(60)
        return encode(encoder, inputs)

    monkeypatch.setattr(Encoder, "encode", held)
    return gate, entered


async def test_load_is_told_in_places(served, monkeypatch):
    """Inputs within them are being worked on, whether or not their batch has begun; only those beyond wait."""
    gate, entered = hold_encoder(monkeypatch)
    asked = [asyncio.create_task(served.loop.embed(EmbeddingRequest([[1]])))]
    await entered.wait()
    told = []
    for num_inputs in (2, 70):
        asked.append(asyncio.create_task(served.loop.embed(EmbeddingRequest([[4]] * num_inputs))))
        await asyncio.sleep(0)
        told.append([served.load().named[name] for name in ("running", "waiting")])
    assert told == [[3, 0], [64, 9]]
    gate.set()
    await asyncio.gather(*asked)
    await until(lambda: served.load().utilization == 0.0)


async def test_a_call_that_ends_early_leaves_the_line(served, stub, monkeypatch):
    """Cancelled or late: what waited for it is not computed."""
    gate, entered = hold_encoder(monkeypatch)
    first = asyncio.ensure_future(stub.Embed(asking(served, [1])))
    await entered.wait()
    cancelled = stub.Embed(asking(served, [3]))
    await until(lambda: served.loop.num_waiting == 1)
    cancelled.cancel()
    await until(lambda: not served.loop.num_waiting)
    late = stub.Embed(asking(served, [2]), timeout=0.2)
    assert (await refused(late)).reason is Reason.DEADLINE_EXCEEDED
    await until(lambda: not served.loop.num_waiting)
    gate.set()
    assert len((await first).embeddings) == 1
    assert served.loop.counts.num_inputs == 1
