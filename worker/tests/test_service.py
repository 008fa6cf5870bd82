"""WorkerService over a real server: the stream's grammar, refusals, cancels, watches, purges."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
import structlog
import torch
from google.protobuf import text_format
from prometheus_client import CollectorRegistry, generate_latest
from safetensors.torch import load_file, save_file
from serin.generation.v1 import sampling_pb2, tokens_pb2
from serin.worker.v1 import worker_pb2, worker_pb2_grpc
from serin_mesh.errors import MeshError, Reason, from_facts
from serin_mesh.metrics import rpc_metrics
from serin_mesh.testing import running
from serin_worker import work_stream
from serin_worker.config import EngineConfig
from serin_worker.errors import DrainEnds, EngineStalled
from serin_worker.grammars.opening import Grammars
from serin_worker.grammars.vocabulary import GrammarVocabulary
from serin_worker.loop import EngineLoop
from serin_worker.metrics import EngineCollector, RequestTimes
from serin_worker.namespaces import Namespaces
from serin_worker.numerics_watch import NumericsWatch
from serin_worker.outputs import Summary
from serin_worker.request import GenerationRequest, Sampling, Stopping
from serin_worker.service import WorkerService
from serin_worker.serving import Serving, StepWatch
from serin_worker.startup import load_engine

VOCABULARY = "5e" * 16
SECRET = b"s" * 32
NO_NUMBER = 198
"""None of those that a model is compared with itself on."""


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[Serving]:
    """An engine that serves a tiny model."""
    config = EngineConfig(precision="float32", numerics="invariant", num_blocks=48, max_num_sequences=8)
    engine, about = load_engine(str(folder), config)
    loop = EngineLoop(engine, max_num_requests=64)
    loop.start()
    grammars = Grammars(lambda: GrammarVocabulary(about.folder, about.vocabulary_size, engine.bounds.end_ids))
    yield Serving(loop, about, VOCABULARY, Namespaces(SECRET, about.kv_digest), "tiny", "v1", "worker-1", grammars)
    await loop.stop()


@pytest.fixture
async def serving(tiny_folder) -> AsyncIterator[Serving]:
    """A sound model."""
    async with served(tiny_folder("qwen3")) as running_engine:
        yield running_engine


@pytest.fixture
async def flawed(tiny_folder, tmp_path) -> AsyncIterator[Serving]:
    """A model of which one token's vector is no number."""
    folder = shutil.copytree(tiny_folder("llama"), tmp_path / "flawed")
    weights = load_file(folder / "model.safetensors")
    weights["model.embed_tokens.weight"][NO_NUMBER] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    async with served(folder) as running_engine:
        yield running_engine


@pytest.fixture
async def stub(serving) -> AsyncIterator[worker_pb2_grpc.WorkerServiceStub]:
    """A client of it, over a socket and the whole onion."""
    service = WorkerService(serving, RequestTimes(CollectorRegistry(), "tiny"))
    async with (
        running(lambda server: worker_pb2_grpc.add_WorkerServiceServicer_to_server(service, server)) as server,
        server.connect() as channel,
    ):
        yield worker_pb2_grpc.WorkerServiceStub(channel)


def prompt_of(*ids: int) -> list[tokens_pb2.Segment]:
    """A prompt of one segment."""
    return [tokens_pb2.Segment(tokens=tokens_pb2.TokenRun(token_ids=ids))]


def generate(max_tokens=8, prompt=(1, 2, 3), **fields) -> worker_pb2.GenerateRequest:
    """A greedy request."""
    sampling = sampling_pb2.SamplingParameters(temperature=0.0, max_tokens=max_tokens)
    fields.setdefault("sampling", sampling)
    fields.setdefault("vocabulary_digest", VOCABULARY)
    return worker_pb2.GenerateRequest(request_id="r", prompt=prompt_of(*prompt), **fields)


def parameters(text: str) -> sampling_pb2.SamplingParameters:
    """Sampling written as text."""
    return text_format.Parse(text, sampling_pb2.SamplingParameters())


def prepared(lark: str) -> sampling_pb2.Grammar:
    """A grammar as tokenizer-svc prepares it."""
    text = f'{lark}\n%llguidance {{"no_forcing": true}}'
    return sampling_pb2.Grammar(kind=sampling_pb2.GRAMMAR_KIND_PREPARED, text=text)


class Works:
    """One `Work` stream as a caller holds it: what it was told of each request."""

    def __init__(self, stub) -> None:
        self.call = stub.Work()
        self.events: dict[int, list[worker_pb2.GenerateResponse]] = {}
        self.failures: dict[int, MeshError] = {}
        self.lanes: dict[int, str] = {}

    async def say(self, *frames: worker_pb2.WorkFrame) -> None:
        """Send frames in one message."""
        await self.call.write(worker_pb2.WorkRequest(frames=frames))

    async def hear(self) -> int:
        """Read a message; of how many requests it had news, 0 at the end."""
        response = await self.call.read()
        if response is grpc.aio.EOF:
            return 0
        for news in response.news:
            self.events.setdefault(news.work_id, []).extend(news.events)
            if news.HasField("failure"):
                failure = news.failure
                self.failures[news.work_id] = from_facts(
                    failure.code, failure.reason, failure.message, dict(failure.facts)
                )
        return len(response.news)

    def is_over(self, work_id: int) -> bool:
        """Whether its last news have come."""
        events = self.events.get(work_id, [])
        return work_id in self.failures or bool(events and events[-1].HasField("summary"))

    async def hear_out(self, *work_ids: int) -> None:
        """Read until these are over."""
        while not all(self.is_over(work_id) for work_id in work_ids):
            assert await self.hear()


def begin(work_id: int, request: worker_pb2.GenerateRequest, timeout_s: float = 60, **metadata) -> worker_pb2.WorkFrame:
    """A frame that begins a request."""
    return worker_pb2.WorkFrame(
        work_id=work_id,
        begin=worker_pb2.BeginWork(request=request, timeout_seconds=timeout_s, metadata=metadata),
    )


async def freed(serving) -> None:
    """Wait until nothing is open, and see every block free."""
    async with asyncio.timeout(60):
        while True:
            num_open, num_free = await serving.loop.call(lambda e: (e.num_requests, e.pool.num_free))
            if num_open == 0:
                break
    assert num_free == serving.about.num_blocks


async def events_of(stub, request) -> list[worker_pb2.GenerateResponse]:
    """The whole stream."""
    return [event async for event in stub.Generate(request)]


def ids_of(events, choice=0) -> list[int]:
    """Tokens of one choice."""
    return [i for event in events if event.delta.choice_index == choice for i in event.delta.token_ids]


async def refused(call) -> MeshError:
    """The error of a call that must fail."""
    with pytest.raises(MeshError) as caught:
        await call
    return caught.value


async def test_a_prepared_grammar_decides_what_is_said(stub):
    """Two choices, each a text of the grammar; it ends by itself, without an end id, and goes on from prior output."""
    grammar = prepared("start: /( w[1-3]){4}/")
    events = await events_of(stub, generate(grammar=grammar, sampling=parameters("choice_count: 2 seed: 3")))
    for choice in range(2):
        assert len(ids_of(events, choice)) == 4
        assert set(ids_of(events, choice)) <= {1, 2, 3}
    ends = [event.choice_finished for event in events if event.HasField("choice_finished")]
    assert [end.finish_reason for end in ends] == [sampling_pb2.FINISH_REASON_STOP] * 2
    assert not any(end.HasField("stop_token_id") for end in ends)
    prior = [tokens_pb2.PriorOutput(choice_index=i, token_ids=ids_of(events, i)[: i + 1]) for i in range(2)]
    resumed = await events_of(
        stub, generate(grammar=grammar, prior_outputs=prior, sampling=parameters("choice_count: 2 seed: 3"))
    )
    assert [ids_of(resumed, i) for i in range(2)] == [ids_of(events, i)[i + 1 :] for i in range(2)]


async def test_the_grammar_of_a_stream(stub, serving):
    """One started, deltas without a gap, one choice_finished a choice, one summary, last."""
    sampling = sampling_pb2.SamplingParameters(temperature=1.0, seed=3, max_tokens=30, choice_count=3, top_logprobs=2)
    events = await events_of(stub, generate(sampling=sampling))
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds[0] == "started"
    assert kinds.count("started") == kinds.count("summary") == 1
    assert kinds[-1] == "summary"
    assert kinds.count("choice_finished") == 3
    started = events[0].started
    assert (started.prompt_token_count, started.cached_token_count, started.seed) == (3, 0, 3)
    assert (started.worker, started.kv_digest) == ("worker-1", serving.about.kv_digest)
    positions = dict.fromkeys(range(3), 0)
    for event in events:
        if event.WhichOneof("event") == "delta":
            assert event.delta.first_position == positions[event.delta.choice_index]
            assert len(event.delta.logprobs) == len(event.delta.token_ids)
            assert all(len(entry.alternatives) == 2 for entry in event.delta.logprobs)
            positions[event.delta.choice_index] += len(event.delta.token_ids)
    assert set(positions.values()) == {30}
    assert events[-1].summary.generated_token_count == 90
    finished = [event.choice_finished for event in events if event.WhichOneof("event") == "choice_finished"]
    assert {one.finish_reason for one in finished} == {sampling_pb2.FINISH_REASON_LENGTH}
    assert not any(one.HasField("stop_token_id") for one in finished)


async def test_a_resumed_stream_continues(stub):
    """Prior output continues at its position, and the seed named in started makes it the same."""
    sampling = sampling_pb2.SamplingParameters(temperature=1.0, max_tokens=20)
    first = await events_of(stub, generate(sampling=sampling))
    tokens, seed = ids_of(first), first[0].started.seed
    sampling.seed = seed
    prior = [worker_pb2_prior(0, tokens[:7])]
    again = await events_of(stub, generate(sampling=sampling, prior_outputs=prior))
    assert ids_of(again) == tokens[7:]
    assert next(e.delta for e in again if e.WhichOneof("event") == "delta").first_position == 7
    sampling.ClearField("seed")
    error = await refused(events_of(stub, generate(sampling=sampling, prior_outputs=prior)))
    assert (error.reason, error.metadata["parameter"]) == (Reason.PARAMETER_INVALID, "seed")


def worker_pb2_prior(index: int, ids: list[int]) -> tokens_pb2.PriorOutput:
    """Prior output of one choice."""
    return tokens_pb2.PriorOutput(choice_index=index, token_ids=ids)


async def test_a_stop_id_is_named(stub):
    """The id that ended a choice is its last token."""
    tokens = ids_of(await events_of(stub, generate()))
    sampling = sampling_pb2.SamplingParameters(temperature=0.0, max_tokens=8, stop_token_ids=[tokens[4]])
    events = await events_of(stub, generate(sampling=sampling))
    assert ids_of(events) == tokens[: tokens.index(tokens[4]) + 1]
    finished = next(e.choice_finished for e in events if e.WhichOneof("event") == "choice_finished")
    assert (finished.finish_reason, finished.stop_token_id) == (sampling_pb2.FINISH_REASON_STOP, tokens[4])


@pytest.mark.parametrize("when", ["at once", "after the first event", "by its deadline"])
async def test_cancelling_frees_every_block(stub, serving, when):
    """Whoever goes away, or runs out of time, takes the request with it."""
    long = generate(max_tokens=200, prompt=range(1, 40))
    if when == "by its deadline":
        error = await refused(_read(stub.Generate(long, timeout=0.05)))
        assert error.reason is Reason.DEADLINE_EXCEEDED
    else:
        call = stub.Generate(long)
        if when == "after the first event":
            await call.read()
        call.cancel()
    await freed(serving)


async def _read(call) -> None:
    async for _ in call:
        pass


@pytest.mark.parametrize(
    ("changes", "reason", "parameter"),
    [
        ({"vocabulary_digest": "00" * 16}, Reason.VOCABULARY_MISMATCH, None),
        ({"vocabulary_digest": ""}, Reason.VOCABULARY_MISMATCH, None),
        ({"kv_digest": "00" * 16}, Reason.KV_MISMATCH, None),
        ({"adapter": "lora"}, Reason.ADAPTER_NOT_FOUND, "adapter"),
        ({"grammar": sampling_pb2.Grammar(text="x")}, Reason.PARAMETER_INVALID, "grammar"),
        ({"grammar": prepared("start: /(/")}, Reason.GRAMMAR_INVALID, "grammar"),
        (
            {"grammar": prepared("start: / w7/"), "prior_outputs": [tokens_pb2.PriorOutput(token_ids=[8])]},
            Reason.PARAMETER_INVALID,
            "prior",
        ),
        ({"prompt": (1,) * 256}, Reason.PROMPT_TOO_LONG, "prompt"),
        ({"prompt": ()}, Reason.PARAMETER_INVALID, "prompt"),
        ({"prompt": (199,)}, Reason.PARAMETER_INVALID, "prompt"),
        ({"priority": 101}, Reason.PARAMETER_INVALID, "priority"),
        ({"tenant_weight": 0.0}, Reason.PARAMETER_INVALID, "tenant_weight"),
        ({"cache_salt": "x" * 129, "cache_group": "g"}, Reason.PARAMETER_INVALID, "cache_salt"),
        ({"cache_group": "x" * 257}, Reason.PARAMETER_INVALID, "cache_group"),
        ({"kv_source": "127.0.0.1:1"}, Reason.PARAMETER_UNSUPPORTED, "kv_source"),
        ({"sampling": "temperature: -1"}, Reason.PARAMETER_INVALID, "temperature"),
        ({"sampling": "top_p: 0"}, Reason.PARAMETER_INVALID, "top_p"),
        ({"sampling": "max_tokens: 0"}, Reason.PARAMETER_INVALID, "max_tokens"),
        ({"sampling": "choice_count: 129"}, Reason.PARAMETER_INVALID, "choice_count"),
        ({"sampling": "top_logprobs: 21"}, Reason.PARAMETER_INVALID, "top_logprobs"),
        ({"sampling": "min_tokens: 5 max_tokens: 4"}, Reason.PARAMETER_INVALID, "min_tokens"),
        ({"sampling": "stop_token_ids: 5000"}, Reason.PARAMETER_INVALID, "stop_token_ids"),
    ],
)
async def test_what_is_refused(stub, changes, reason, parameter):
    """Each refusal has its reason and names the parameter; nothing runs."""
    if isinstance(changes.get("sampling"), str):
        changes = {"sampling": parameters(changes["sampling"])}
    error = await refused(events_of(stub, generate(**changes)))
    assert error.reason is reason
    assert error.metadata.get("parameter") == parameter


async def test_a_prompt_that_is_too_long_says_both_numbers(stub):
    """For the caller's message: what was sent and what fits."""
    error = await refused(events_of(stub, generate(prompt=(1,) * 300)))
    assert (error.metadata["token_count"], error.metadata["max_token_count"]) == ("300", "256")


async def test_media_is_refused_by_name(stub):
    """An image in a prompt is not silently dropped."""
    request = generate()
    request.prompt.add().media.kind = "image"
    assert (await refused(events_of(stub, request))).reason is Reason.PARAMETER_UNSUPPORTED


async def test_score(stub, reference):
    """Equal to transformers' log-probabilities within 1e-4; another vocabulary is refused."""
    request = worker_pb2.ScoreRequest(
        request_id="s",
        vocabulary_digest=VOCABULARY,
        prompt=prompt_of(1, 2, 3),
        target_token_ids=[4, 5, 6],
        top_logprobs=2,
    )
    response = await stub.Score(request)
    with torch.inference_mode():
        right = torch.log_softmax(reference("qwen3")(torch.tensor([[1, 2, 3, 4, 5, 6]])).logits[0, 2:5], -1)
    for entry, row, target in zip(response.logprobs, right, (4, 5, 6), strict=True):
        assert entry.logprob == pytest.approx(float(row[target]), abs=1e-4)
        assert [alternative.token_id for alternative in entry.alternatives] == row.topk(2).indices.tolist()
    request.vocabulary_digest = "00"
    assert (await refused(stub.Score(request))).reason is Reason.VOCABULARY_MISMATCH
    request.vocabulary_digest = VOCABULARY
    del request.target_token_ids[:]
    assert (await refused(stub.Score(request))).metadata["parameter"] == "target"


async def test_describe(stub, serving):
    """What the worker is, as the mesh compares it."""
    await events_of(stub, generate())
    about = await stub.DescribeWorker(worker_pb2.DescribeWorkerRequest())
    assert (about.model, about.version, about.instance) == ("tiny", "v1", "worker-1")
    assert (about.numerics, about.precision) == ("invariant", "float32")
    assert (about.block_size, about.block_count, about.context_length) == (16, 48, 256)
    assert about.kv_digest == serving.about.kv_digest
    assert about.step_count >= 8


async def test_groups_share_prefixes_with_themselves_alone(stub):
    """The same group and salt hit; another group, another salt and no group do not."""
    prompt = tuple(range(1, 40))
    hits = []
    for group, salt in (("a", ""), ("a", ""), ("a", "x"), ("a", "x"), ("b", ""), ("", ""), ("", "")):
        events = await events_of(stub, generate(prompt=prompt, cache_group=group, cache_salt=salt))
        hits.append(events[0].started.cached_token_count)
    assert hits == [0, 32, 0, 32, 0, 0, 0]


async def test_watch_and_purge(stub, serving):
    """A watch adds up to what is cached, through a purge of one group with all its salts."""
    await events_of(stub, generate(prompt=range(1, 40), cache_group="a"))
    watch = stub.WatchCache(worker_pb2.WatchCacheRequest())
    messages = [await watch.read()]
    assert messages[0].snapshot.complete
    assert len(messages[0].snapshot.block_keys) == 2
    assert messages[0].snapshot.kv_digest == serving.about.kv_digest
    await events_of(stub, generate(prompt=range(1, 40), cache_group="a", cache_salt="x"))
    await events_of(stub, generate(prompt=range(1, 40), cache_group="b"))
    purged = await stub.PurgeCache(worker_pb2.PurgeCacheRequest(cache_group="a"))
    keys, num_removed = set(messages[0].snapshot.block_keys), 0
    while num_removed < purged.block_count:
        messages.append(await watch.read())
        keys |= set(messages[-1].stored.block_keys)
        keys -= set(messages[-1].removed.block_keys)
        num_removed += len(messages[-1].removed.block_keys)
    assert purged.block_count == 4
    assert [message.sequence_number for message in messages] == list(range(len(messages)))
    assert len({message.epoch for message in messages}) == 1
    assert keys == serving.loop.engine.pool.log.snapshot()[1]
    watch.cancel()
    error = await refused(stub.PurgeCache(worker_pb2.PurgeCacheRequest()))
    assert error.metadata["parameter"] == "cache_group"


async def test_what_is_drawn_and_not_there_yet(stub):
    """Unimplemented methods say what is missing; no adapter is listed."""
    for call in (
        stub.LoadAdapter(worker_pb2.LoadAdapterRequest()),
        stub.UnloadAdapter(worker_pb2.UnloadAdapterRequest()),
    ):
        error = await refused(call)
        assert error.reason is Reason.NOT_IMPLEMENTED
        assert "not supported" in error.message
    assert list((await stub.ListAdapters(worker_pb2.ListAdaptersRequest())).names) == []


async def test_a_model_without_a_pooling_computes_no_embeddings(stub):
    """The model is named, and why."""
    error = await refused(stub.Embed(worker_pb2.EmbedRequest()))
    assert (error.reason, error.metadata["parameter"]) == (Reason.PARAMETER_UNSUPPORTED, "model")
    assert "'tiny' has no pooling configuration" in error.message


async def test_before_the_model_is_there():
    """Calls that arrive while weights load are told to come back."""
    service = WorkerService()
    async with (
        running(lambda server: worker_pb2_grpc.add_WorkerServiceServicer_to_server(service, server)) as server,
        server.connect() as channel,
    ):
        error = await refused(events_of(worker_pb2_grpc.WorkerServiceStub(channel), generate()))
    assert (error.reason, error.metadata["retry_after_s"]) == (Reason.NOT_READY, "1")


async def test_sixty_four_streams_at_once(stub):
    """64 equal greedy requests in parallel get equal answers."""
    alone = ids_of(await events_of(stub, generate(max_tokens=30)))
    many = await asyncio.gather(*(events_of(stub, generate(max_tokens=30)) for _ in range(64)))
    assert all(ids_of(events) == alone for events in many)


async def test_metrics_tell_what_happened(stub, serving):
    """Names that dashboards know, from the same figures."""
    into = CollectorRegistry()
    into.register(EngineCollector(serving))
    for _ in range(2):
        events = await events_of(stub, generate(prompt=range(1, 40), cache_group="a"))
    assert events[-1].summary.cached_token_count == 32
    RequestTimes(into, "tiny").observe(Summary(39, 32, 8, 0, queue_s=1.0, prefill_s=2.0, decode_s=7.0), "length", 1)
    text = generate_latest(into).decode()
    for line in (
        'vllm:generation_tokens_total{model_name="tiny"} 16.0',
        'vllm:prefix_cache_hits_total{model_name="tiny"} 32.0',
        'vllm:num_requests_running{model_name="tiny"} 0.0',
        'vllm:cache_config_info{block_size="16",model_name="tiny",num_gpu_blocks="48"} 1.0',
        'vllm:request_success_total{finished_reason="length",model_name="tiny"} 1.0',
        'vllm:time_to_first_token_seconds_sum{model_name="tiny"} 3.0',
        'vllm:inter_token_latency_seconds_sum{model_name="tiny"} 1.0',
        'vllm:e2e_request_latency_seconds_sum{model_name="tiny"} 10.0',
        'gen_ai_server_request_duration_seconds_sum{model_name="tiny"} 10.0',
    ):
        assert line in text


async def test_load_and_step_watch(serving):
    """Load names what balancers weigh; the watch sees an engine that has work and makes no step."""
    report = serving.load()
    assert (report.utilization, dict(report.named)) == (0.0, {"kv": 0.0, "running": 0, "waiting": 0})
    now = [0.0]

    class Stuck:
        failure = None
        num_moves = 5
        has_work = True

    watch = StepWatch(Stuck(), stall_s=2.5, clock=lambda: now[0])
    answers = []
    for _ in range(4):
        now[0] += 1.0
        answers.append(watch.is_moving())
    assert answers == [True, True, False, False]
    Stuck.num_moves = 6
    assert watch.is_moving()
    now[0] += 100.0  # the process itself was held up: its engine has had no chance to move
    assert watch.is_moving()
    now[0] += 2.0
    assert watch.is_moving()
    now[0] += 1.0
    assert not watch.is_moving()
    Stuck.has_work = False
    assert watch.is_moving()


async def test_a_long_step_is_no_stuck_one(serving):
    """Every layer of a step is a move: twice as many layers as the model has, for a prompt and one token."""
    before = (serving.loop.num_moves, serving.loop.num_steps)
    with serving.loop.submit(GenerationRequest("r", [1, 2, 3], Sampling(0.0), Stopping(max_tokens=2))) as stream:
        while await stream.read():
            pass
    num_steps = serving.loop.num_steps - before[1]
    assert serving.loop.num_moves - before[0] == num_steps + 2 * 2


async def test_streams_that_are_handed_over_say_why(stub, serving):
    """NOT_READY with the cause, after the tokens that were made: a gateway goes on with them elsewhere."""
    for error, cause in ((DrainEnds(), "draining"), (EngineStalled(2.5), "stalled")):
        events = aiter(stub.Generate(generate(max_tokens=200)))
        await anext(events)
        serving.loop.hand_over(error)
        failure = await refused(_read(events))
        assert (failure.reason, failure.metadata["cause"]) == (Reason.NOT_READY, cause)


async def test_numbers_that_fail_are_told_and_a_model_is_not_blamed(flawed):
    """Three requests with the token that is no number: each fails alone, and the model's own check finds it sound."""
    told: list[str] = []

    class Telling(NumericsWatch):
        def failed(self):
            told.append("failed")

        def succeeded(self):
            told.append("succeeded")

    service = WorkerService(flawed, numerics=Telling(flawed.computes_numbers))
    async with (
        running(lambda server: worker_pb2_grpc.add_WorkerServiceServicer_to_server(service, server)) as server,
        server.connect() as channel,
    ):
        stub = worker_pb2_grpc.WorkerServiceStub(channel)
        for _ in range(3):
            failure = await refused(events_of(stub, generate(prompt=(1, 2, NO_NUMBER))))
            assert failure.reason is Reason.NUMERICS_FAILED
        await events_of(stub, generate())
    assert told == ["failed"] * 3 + ["succeeded"]
    assert await flawed.computes_numbers()


async def test_what_was_sent_is_told_also_when_the_stream_was_cut(stub):
    """Whole streams, and what a caller who is gone had been sent at least; a short prefix is refused."""
    name = "c" * 32
    events = [event async for event in stub.Generate(generate(max_tokens=6, account=f"{name}.0"), timeout=60)]
    sent = sum(len(event.delta.token_ids) for event in events)
    call = stub.Generate(generate(max_tokens=200, account=f"{name}.1"), timeout=60)
    read = 0
    async for event in call:
        read += len(event.delta.token_ids)
        if read:
            break
    call.cancel()
    async with asyncio.timeout(60):
        while True:
            told = await stub.ListAccounts(worker_pb2.ListAccountsRequest(account_prefix=name), timeout=10)
            if not any(account.running for account in told.accounts):
                break
            await asyncio.sleep(0.02)
    whole, cut = told.accounts
    assert (whole.account, whole.prompt_token_count) == (f"{name}.0", 3)
    assert [choice.token_count for choice in whole.choices] == [sent]
    assert read <= cut.choices[0].token_count <= 200
    with pytest.raises(MeshError) as refusal:
        await stub.ListAccounts(worker_pb2.ListAccountsRequest(account_prefix="c"), timeout=10)
    assert refusal.value.reason is Reason.PARAMETER_INVALID


async def test_many_requests_on_one_stream_are_each_as_a_call_of_their_own(stub):
    """The same events as `Generate`, refusals of their own, messages for all of them; half-closed, the stream ends."""
    alone = await events_of(stub, generate(max_tokens=30))
    works = Works(stub)
    await works.say(*(begin(i, generate(max_tokens=30)) for i in range(32)))
    await works.say(begin(32, generate(vocabulary_digest="00" * 16)), begin(33, generate(prompt=(1,) * 300)))
    await works.call.done_writing()
    num_messages = 0
    while await works.hear():
        num_messages += 1
    for i in range(32):
        assert ids_of(works.events[i]) == ids_of(alone)
        kinds = [event.WhichOneof("event") for event in works.events[i]]
        assert (kinds[0], kinds[-2:]) == ("started", ["choice_finished", "summary"])
    assert works.failures[32].reason is Reason.VOCABULARY_MISMATCH
    assert works.failures[33].metadata["token_count"] == "300"
    assert num_messages < sum(len(events) for events in works.events.values()) / 3


async def test_a_request_on_a_stream_is_logged_and_counted_as_a_call(stub):
    """Its own request id, status and reason; the stream itself is another call."""
    works = Works(stub)
    of_its_own = {"serin-request-id": "req-of-its-own"}
    before = rpc_metrics().finished.labels("/serin.worker.v1.WorkerService/Generate", "OK", "")._value.get()
    with structlog.testing.capture_logs() as logged:
        await works.say(begin(1, generate(), **of_its_own), begin(2, generate(prompt=()), **of_its_own))
        await works.call.done_writing()
        while await works.hear():
            pass
    lines = [line for line in logged if line.get("method") == "serin.worker.v1.WorkerService/Generate"]
    assert sorted((line["code"], line.get("reason")) for line in lines) == [
        ("INVALID_ARGUMENT", "PARAMETER_INVALID"),
        ("OK", None),
    ]
    after = rpc_metrics().finished.labels("/serin.worker.v1.WorkerService/Generate", "OK", "")._value.get()
    assert after == before + 1


@pytest.mark.parametrize("how", ["cancel", "deadline", "the stream"])
async def test_a_request_on_a_stream_that_ends_early_frees_every_block(stub, serving, how):
    """By its caller's word, by its own deadline, or with its stream; another one goes on."""
    works, other = Works(stub), Works(stub)
    long = generate(max_tokens=200, prompt=range(1, 40))
    await works.say(begin(1, long, timeout_s=0.05 if how == "deadline" else 60), begin(2, long))
    await other.say(begin(1, generate(max_tokens=60)))
    while not works.events.get(1) and not works.is_over(1):
        await works.hear()
    if how == "cancel":
        await works.say(worker_pb2.WorkFrame(work_id=1, cancel=worker_pb2.CancelWork()))
        await works.hear_out(2)
        assert not works.is_over(1)
    elif how == "deadline":
        await works.hear_out(1, 2)
        assert works.failures[1].reason is Reason.DEADLINE_EXCEEDED
    else:
        works.call.cancel()
    await other.hear_out(1)
    assert len(ids_of(other.events[1])) == 60
    await freed(serving)
    for one in (works, other):
        one.call.cancel()


async def test_what_is_made_while_a_request_is_paused_comes_at_once_later(stub):
    """Nothing of it arrives, another one's news do; then one delta has all of it."""
    works = Works(stub)
    await works.say(begin(1, generate(max_tokens=100)))
    while not ids_of(works.events.get(1, [])):
        await works.hear()
    await works.say(worker_pb2.WorkFrame(work_id=1, pause=worker_pb2.PauseWork()), begin(2, generate(max_tokens=120)))
    while not works.events.get(2):  # both frames have been obeyed by then
        await works.hear()
    heard = len(works.events[1])
    await works.hear_out(2)
    assert len(works.events[1]) == heard
    await works.say(worker_pb2.WorkFrame(work_id=1, resume=worker_pb2.ResumeWork()))
    await works.hear_out(1)
    assert [event.WhichOneof("event") for event in works.events[1][heard:]] == ["delta", "choice_finished", "summary"]
    assert len(ids_of(works.events[1])) == 100
    works.call.cancel()


async def test_a_stream_holds_a_bounded_number_of_requests(stub, monkeypatch):
    """One more is refused alone; a number that is in use ends the stream."""
    monkeypatch.setattr(work_stream, "MAX_OPEN", 2)
    works = Works(stub)
    await works.say(*(begin(i, generate(max_tokens=200)) for i in range(3)))
    await works.hear_out(0, 1, 2)
    assert list(works.failures) == [2]
    assert works.failures[2].reason is Reason.QUEUE_FULL
    await works.say(begin(5, generate(max_tokens=200)), begin(5, generate()))
    with pytest.raises(MeshError) as caught:
        await works.hear_out(5)
    assert (caught.value.reason, caught.value.metadata["parameter"]) == (Reason.PARAMETER_INVALID, "work_id")


async def test_a_drain_ends_streams_once_their_requests_are_over(serving):
    """What runs goes on to its end or is handed over with its cause; what comes is refused; then the stream ends."""
    service = WorkerService(serving)
    async with (
        running(lambda server: worker_pb2_grpc.add_WorkerServiceServicer_to_server(service, server)) as server,
        server.connect() as channel,
    ):
        works = Works(worker_pb2_grpc.WorkerServiceStub(channel))
        await works.say(begin(1, generate(max_tokens=30)), begin(2, generate(max_tokens=200)))
        while not (works.events.get(1) and works.events.get(2)):
            await works.hear()
        service.drain()
        await works.say(begin(3, generate()))
        await works.hear_out(1, 3)
        assert works.failures[3].reason is Reason.NOT_READY
        serving.loop.hand_over(DrainEnds())
        await works.hear_out(2)
        assert (works.failures[2].reason, works.failures[2].metadata["cause"]) == (Reason.NOT_READY, "draining")
        assert await works.hear() == 0
        again = Works(worker_pb2_grpc.WorkerServiceStub(channel))
        assert await again.hear() == 0
