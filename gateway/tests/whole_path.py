"""A gateway whose neighbours are real gRPC servers in this process, reached by plain addresses.

The real tokenizer service, workers that follow a script, a cache that remembers in memory; each on a free port.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from prometheus_client import CollectorRegistry
from serin.cache.v1 import cache_pb2, cache_pb2_grpc
from serin.generation.v1 import sampling_pb2, tokens_pb2
from serin.inference.v1 import inference_pb2_grpc
from serin.tokenizer.v1 import tokenizer_pb2_grpc
from serin.worker.v1 import worker_pb2, worker_pb2_grpc
from serin_gateway.catalog import Catalog, MemoryCatalog, ServedModel, Worker
from serin_gateway.house import House
from serin_gateway.keys import MemoryKeyStore, Role, key_secret, mint_key
from serin_gateway.metrics import GatewayMetrics
from serin_gateway.rest.api import rest_endpoints
from serin_gateway.rest.door import Door
from serin_gateway.rest.server import RestServer
from serin_gateway.rpc.service import InferenceService
from serin_gateway.settings import GatewaySettings
from serin_gateway.testing import SECRET, small_lane
from serin_gateway.upstream.targets import FixedTargets
from serin_mesh import telemetry
from serin_mesh.call import REQUEST_KEY, request_id
from serin_mesh.errors import MeshError, Reason
from serin_mesh.host import ServiceHost
from serin_mesh.identity import vocabulary_digest
from serin_mesh.readiness import Readiness
from serin_mesh.testing import running
from serin_tokenizer_svc.assembly import assembled
from serin_tokenizer_svc.grammar_pool import GrammarLimits
from serin_tokenizer_svc.render_pool import RenderLimits
from serin_tokenizer_svc.service import TokenizerService
from serin_tokenizer_svc.tokenizer import Tokenizer
from serin_worker.pulled import pulled
from serin_worker.work_stream import WorkStreams

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_tokenizer(
    folder: Path, template: str = TEMPLATE, marks: Sequence[str] = (), *, as_llama: bool = False
) -> dict[str, int]:
    """A byte-level tokenizer with a chat template, and further special tokens; returns token -> id.

    As Llama's and Mistral's, it begins texts with an id and a space, of which they know nothing when they are read.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = ["▁", *map(chr, range(33, 127))] if as_llama else sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *marks, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    if as_llama:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
        begins = processors.TemplateProcessing(single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)])
        tokenizer.post_processor = begins
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([*SPECIAL, *marks])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=template
    ).save_pretrained(folder)
    return vocabulary


class ScriptedWorker(worker_pb2_grpc.WorkerServiceServicer):
    """A worker that says one text, a token a message; `gate` pauses it, `die_after` breaks its stream once."""

    def __init__(self, name: str, ids: list[int], end_id: int) -> None:
        self.name = name
        self.ids = ids
        self.end_id = end_id
        self.requests: list[worker_pb2.GenerateRequest] = []
        self.metadata: list[dict[str, Any]] = []
        self.die_after: int | None = None
        self.refuse: MeshError | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.num_running = 0
        self.went_idle = asyncio.Event()
        self.reached = asyncio.Event()
        self.pause_at: int | None = None
        self.streams = WorkStreams()
        self.num_streams = 0

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve it."""
        worker_pb2_grpc.add_WorkerServiceServicer_to_server(self, server)

    async def Work(self, request_iterator, context) -> AsyncIterator[worker_pb2.WorkResponse]:  # noqa: N802
        """The same for many requests."""
        self.num_streams += 1
        async with self.streams.serving(lambda request: pulled(self.Generate(request, context)), context) as stream:
            async for response in stream.responses(request_iterator):
                yield response

    async def Generate(self, request, context) -> AsyncIterator[worker_pb2.GenerateResponse]:  # noqa: N802
        """Say the text, behind prior output."""
        self.requests.append(request)
        carried = {REQUEST_KEY: request_id(), **dict(telemetry.inject())}  # what came with it, also on a stream
        self.metadata.append({**dict(context.invocation_metadata()), **carried})
        if self.refuse is not None:
            raise self.refuse
        self.num_running += 1
        self.went_idle.clear()
        try:
            started = worker_pb2.GenerationStarted(worker=self.name, seed=1, cached_token_count=3)
            yield worker_pb2.GenerateResponse(started=started)
            prior = {one.choice_index: one for one in request.prior_outputs}
            num_choices = request.sampling.choice_count or 1
            for choice in range(num_choices):
                if choice in prior and prior[choice].finished:
                    continue
                at = len(prior[choice].token_ids) if choice in prior else 0
                async for event in self._choice(choice, at, request):
                    yield event
            yield worker_pb2.GenerateResponse(summary=worker_pb2.GenerationSummary())
        finally:
            self.num_running -= 1
            if not self.num_running:
                self.went_idle.set()

    async def _choice(self, choice: int, at: int, request) -> AsyncIterator[worker_pb2.GenerateResponse]:
        limit = request.sampling.max_tokens or len(self.ids) + 1
        ids = [*self.ids, self.end_id]
        while at < min(limit, len(ids)):
            if self.pause_at == at:
                self.gate.clear()
                self.reached.set()
            await self.gate.wait()
            if self.die_after == at:
                self.die_after = None
                raise MeshError(Reason.UPSTREAM_UNAVAILABLE, "the worker is gone")
            logprobs = [_logprob(ids[at], self.end_id)] if request.sampling.HasField("top_logprobs") else []
            delta = worker_pb2.GenerationDelta(
                choice_index=choice, first_position=at, token_ids=[ids[at]], logprobs=logprobs
            )
            yield worker_pb2.GenerateResponse(delta=delta)
            at += 1
        ended = at >= len(ids)
        end = worker_pb2.ChoiceFinished(
            choice_index=choice,
            finish_reason=sampling_pb2.FINISH_REASON_STOP if ended else sampling_pb2.FINISH_REASON_LENGTH,
            stop_token_id=self.end_id if ended else None,
        )
        yield worker_pb2.GenerateResponse(choice_finished=end)


def _logprob(token_id: int, other_id: int) -> tokens_pb2.TokenLogprob:
    alternatives = [
        tokens_pb2.TokenAlternative(token_id=token_id, logprob=-0.5),
        tokens_pb2.TokenAlternative(token_id=other_id, logprob=-1.5),
    ]
    return tokens_pb2.TokenLogprob(logprob=-0.5, alternatives=alternatives)


class RememberingCache(cache_pb2_grpc.CacheServiceServicer):
    """A cache in memory; `fail` makes every call fail."""

    def __init__(self) -> None:
        self.answers: dict[bytes, cache_pb2.StoredAnswer] = {}
        self.recalls: list[cache_pb2.RecallRequest] = []
        self.holders: list[cache_pb2.PrefixHolder] = []
        self.fail = False

    async def Recall(self, request, context):  # noqa: N802
        """Look."""
        self.recalls.append(request)
        if self.fail:
            raise MeshError(Reason.INTERNAL, "broken")
        answer = self.answers.get(request.key.SerializeToString(deterministic=True)) if request.allow_answer else None
        return cache_pb2.RecallResponse(answer=answer, holders=self.holders)

    async def PutAnswer(self, request, context):  # noqa: N802
        """Keep."""
        self.answers[request.key.SerializeToString(deterministic=True)] = request.answer
        return cache_pb2.PutAnswerResponse(stored=True)


class WholePath:
    """Everything that runs, for tests to look at and to harm."""

    def __init__(self) -> None:
        self.workers: list[ScriptedWorker] = []
        self.tokenizers: list[ServiceHost] = []
        self.cache = RememberingCache()
        self.catalog = MemoryCatalog()
        self.registry = CollectorRegistry()
        self.key = ""
        self.url = ""
        self.rpc: grpc.aio.Channel = None  # type: ignore[assignment]
        self.house: House = None  # type: ignore[assignment]
        self.vocabulary: dict[str, int] = {}

    def ids(self, text: str) -> list[int]:
        """Ids of a text of plain ASCII characters and special tokens."""
        letters = {" ": "▁" if "▁" in self.vocabulary else "Ġ", "\n": "Ċ"}
        pieces = re.findall(r"<\|[a-z_]+\|>|\[[A-Z_]+\]|.|\n", text)
        return [self.vocabulary[letters.get(piece, piece)] for piece in pieces]


def assembled_small(folder: Path) -> AbstractAsyncContextManager[Tokenizer]:
    """The tokenizer in a folder; with as few processes as it can have."""
    return assembled(
        folder,
        model="small",
        version="v1",
        limits=RenderLimits(num_processes=1),
        grammar_limits=GrammarLimits(num_processes=1),
    )


@asynccontextmanager
async def whole_path(
    folder: Path,
    text: str = "hello",
    *,
    num_workers: int = 1,
    num_tokenizers: int = 1,
    settings=None,
    template: str = TEMPLATE,
    marks: Sequence[str] = (),
    as_llama: bool = False,
) -> AsyncIterator[WholePath]:
    """Start everything; leave, and all of it ends."""
    path = WholePath()
    path.vocabulary = write_tokenizer(folder, template, marks, as_llama=as_llama)
    digest = vocabulary_digest(folder)
    async with AsyncExitStack() as stack:
        tokenizer = await stack.enter_async_context(assembled_small(folder))
        for _ in range(num_tokenizers):
            service = TokenizerService(tokenizer)
            path.tokenizers.append(
                await stack.enter_async_context(
                    running(
                        lambda server, s=service: tokenizer_pb2_grpc.add_TokenizerServiceServicer_to_server(s, server),
                        "tokenizer",
                        load=service.load,
                    )
                )
            )
        hosts = []
        for number in range(num_workers):
            worker = ScriptedWorker(f"w{number}", path.ids(text), path.vocabulary["<|im_end|>"])
            path.workers.append(worker)
            hosts.append(await stack.enter_async_context(running(worker.add_to, "worker")))
        cache = await stack.enter_async_context(
            running(lambda server: cache_pb2_grpc.add_CacheServiceServicer_to_server(path.cache, server), "cache")
        )
        listed = "ipv4:" + ",".join(host.address for host in path.tokenizers)
        # gRPC picks among listed addresses: no control plane is here to pin a worker.
        workers = "ipv4:" + ",".join(host.address for host in hosts)
        targets = FixedTargets({"tokenizer.small": listed, "worker.small": workers, "cache": cache.address})
        lane = small_lane(
            vocabulary_digest=digest,
            workers=[Worker(w.name, h.address, "c", 8) for w, h in zip(path.workers, hosts, strict=True)],
            tokenizers=[host.address for host in path.tokenizers],
        )
        path.catalog.publish(Catalog([ServedModel("small", ["demo"], [lane], 64)], has_caches=True))
        keys = MemoryKeyStore()
        path.key, record = mint_key(key_secret(SECRET), role=Role.OPERATOR)
        await keys.create(record)
        path.house = await stack.enter_async_context(
            House(
                settings or GatewaySettings(), SECRET, path.catalog, targets, GatewayMetrics(path.registry), keys=keys
            )
        )
        readiness = Readiness()
        readiness.ready()
        door = Door(path.house.collaborators, rest_endpoints(readiness), timeout_s=30)
        rest = await stack.enter_async_context(RestServer(door, "127.0.0.1", 0, drain_grace_s=2))
        path.url = f"http://127.0.0.1:{rest.port}"
        inference = InferenceService(path.house.collaborators)
        front = await stack.enter_async_context(
            running(
                lambda server: inference_pb2_grpc.add_InferenceServiceServicer_to_server(inference, server),
                "gateway",
                default_deadline_s=60,
            )
        )
        path.rpc = await stack.enter_async_context(grpc.aio.insecure_channel(front.address))
        yield path
