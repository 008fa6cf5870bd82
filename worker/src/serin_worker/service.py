"""WorkerService over gRPC: protobuf in and out, the room's own types between.

Knows the contract and who does the work; does none itself.
"""
# ruff: noqa: N802 - methods are named by the contract

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import grpc
from serin.worker.v1 import worker_pb2, worker_pb2_grpc
from serin_mesh.call import caller
from serin_mesh.errors import MeshError, Reason

from serin_worker import cache_watch
from serin_worker.accounts import MIN_PREFIX, Accounts
from serin_worker.cache_log import CacheLog
from serin_worker.embedding.metrics import EmbeddingTimes
from serin_worker.embedding.serving import EmbeddingServing
from serin_worker.embedding.wire import describe, embed_response, read_embedding
from serin_worker.errors import NotFinite, WorkerError, WrongKind
from serin_worker.failures import to_mesh, translated
from serin_worker.generating import Generating
from serin_worker.metrics import RequestTimes
from serin_worker.namespaces import Namespace
from serin_worker.numerics_watch import NumericsWatch
from serin_worker.outputs import Failed, Scored, Summary
from serin_worker.serving import Serving
from serin_worker.wire import (
    accounts_response,
    logprob_message,
    read_generation,
    read_score,
)
from serin_worker.work_stream import WorkStreams

MAX_SALT_BYTES = 128
MAX_GROUP_BYTES = 256
MAX_ACCOUNT_CHARACTERS = 64


class WorkerService(worker_pb2_grpc.WorkerServiceServicer):
    """One model as a service, an engine or an embedding model; it listens before that is there."""

    def __init__(
        self,
        serving: Serving | EmbeddingServing | None = None,
        times: RequestTimes | EmbeddingTimes | None = None,
        numerics: NumericsWatch | None = None,
    ) -> None:
        self._attached = serving
        self._times = times
        self._numerics = numerics
        self._accounts = Accounts()
        self._streams = WorkStreams()

    def attach(
        self,
        serving: Serving | EmbeddingServing,
        times: RequestTimes | EmbeddingTimes | None = None,
        numerics: NumericsWatch | None = None,
    ) -> None:
        """Answer with this model from now on; tell these how requests end."""
        self._attached = serving
        self._times = times
        self._numerics = numerics

    def drain(self) -> None:
        """Take no new requests on streams, and end each once its requests are over."""
        self._streams.drain()

    async def Generate(
        self,
        request: worker_pb2.GenerateRequest,
        context: grpc.aio.ServicerContext[worker_pb2.GenerateRequest, worker_pb2.GenerateResponse],
    ) -> AsyncIterator[worker_pb2.GenerateResponse]:
        """Generate tokens; whatever ends this call ends the request."""
        async with self._begin(request) as generating:
            while outputs := await generating.stream.read():
                for response in generating.responses(outputs):
                    yield response

    async def Work(
        self,
        request_iterator: AsyncIterator[worker_pb2.WorkRequest],
        context: grpc.aio.ServicerContext[worker_pb2.WorkRequest, worker_pb2.WorkResponse],
    ) -> AsyncIterator[worker_pb2.WorkResponse]:
        """Generate for many requests; whatever ends this call ends them."""
        async with self._streams.serving(self._begin, context) as stream:
            async for response in stream.responses(request_iterator):
                yield response

    async def Score(
        self,
        request: worker_pb2.ScoreRequest,
        context: grpc.aio.ServicerContext[worker_pb2.ScoreRequest, worker_pb2.ScoreResponse],
    ) -> worker_pb2.ScoreResponse:
        """Log-probabilities of given tokens."""
        serving = self._serving
        self._refuse_other_vocabulary(request.vocabulary_digest)
        _refuse_adapter(request.adapter)
        with translated():
            stream = serving.loop.submit(read_score(request))
        with stream:
            while outputs := await stream.read():
                match outputs[-1]:
                    case Failed(error):
                        self._note_failure(error)
                        raise to_mesh(error)
                    case Scored(logprobs):
                        self._note_success()
                        return worker_pb2.ScoreResponse(
                            logprobs=[logprob_message(entry) for entry in logprobs], kv_digest=serving.about.kv_digest
                        )
        raise MeshError(Reason.INTERNAL, "the engine ended a score without a result")

    async def DescribeWorker(
        self,
        request: worker_pb2.DescribeWorkerRequest,
        context: grpc.aio.ServicerContext[worker_pb2.DescribeWorkerRequest, worker_pb2.DescribeWorkerResponse],
    ) -> worker_pb2.DescribeWorkerResponse:
        """Say what this worker is."""
        if isinstance(self._any, EmbeddingServing):
            return describe(self._any)
        serving, about = self._serving, self._serving.about
        return worker_pb2.DescribeWorkerResponse(
            model=serving.model,
            version=serving.version,
            instance=serving.instance,
            vocabulary_digest=serving.vocabulary_digest,
            kv_digest=about.kv_digest,
            numerics_class=about.numerics_class,
            numerics=about.numerics,
            precision=about.precision,
            block_size=about.block_size,
            block_count=about.num_blocks,
            context_length=about.context_length,
            max_sequence_count=about.max_num_sequences,
            vocabulary_size=about.vocabulary_size,
            step_count=serving.loop.num_steps,
        )

    async def WatchCache(
        self,
        request: worker_pb2.WatchCacheRequest,
        context: grpc.aio.ServicerContext[worker_pb2.WatchCacheRequest, worker_pb2.WatchCacheResponse],
    ) -> AsyncIterator[worker_pb2.WatchCacheResponse]:
        """Stream which blocks this worker holds: none, and none will come, where vectors are computed."""
        serving = self._any
        if isinstance(serving, EmbeddingServing):
            log, block_size = CacheLog(), 0
        else:
            log, block_size = serving.loop.engine.pool.log, serving.about.block_size
        changes = cache_watch.watch(log, epoch=serving.epoch, block_size=block_size, kv_digest=serving.result_digest)
        async for change in changes:
            yield change

    async def ListAccounts(
        self,
        request: worker_pb2.ListAccountsRequest,
        context: grpc.aio.ServicerContext[worker_pb2.ListAccountsRequest, worker_pb2.ListAccountsResponse],
    ) -> worker_pb2.ListAccountsResponse:
        """Say what was sent for attempts."""
        if len(request.account_prefix) < MIN_PREFIX:
            raise MeshError(
                Reason.PARAMETER_INVALID,
                f"account_prefix has fewer than {MIN_PREFIX} bytes",
                parameter="account_prefix",
            )
        return accounts_response(self._accounts.begun_with(request.account_prefix))

    async def PurgeCache(
        self,
        request: worker_pb2.PurgeCacheRequest,
        context: grpc.aio.ServicerContext[worker_pb2.PurgeCacheRequest, worker_pb2.PurgeCacheResponse],
    ) -> worker_pb2.PurgeCacheResponse:
        """Forget a cache group's blocks, whatever their salt."""
        serving = self._any
        if not request.cache_group:
            raise MeshError(
                Reason.PARAMETER_INVALID, "cache_group is empty; accepted: a cache group", parameter="cache_group"
            )
        _check_group(request.cache_group)
        if isinstance(serving, EmbeddingServing):
            return worker_pb2.PurgeCacheResponse()
        owner = serving.namespaces.of(request.cache_group).owner
        with translated():
            num_blocks = await serving.loop.call(lambda engine: engine.pool.purge(owner))
        return worker_pb2.PurgeCacheResponse(block_count=num_blocks)

    async def Embed(
        self,
        request: worker_pb2.EmbedRequest,
        context: grpc.aio.ServicerContext[worker_pb2.EmbedRequest, worker_pb2.EmbedResponse],
    ) -> worker_pb2.EmbedResponse:
        """Compute a vector for each input; whatever ends this call takes what waits out of the line."""
        serving = self._any
        if not isinstance(serving, EmbeddingServing):
            raise to_mesh(WrongKind(f"model {serving.model!r} has no pooling configuration: it computes no embeddings"))
        self._refuse_other_vocabulary(request.vocabulary_digest)
        try:
            embedded = await serving.loop.embed(read_embedding(request))
        except WorkerError as error:
            self._note_failure(error)
            raise to_mesh(error) from error
        self._note_success()
        if isinstance(self._times, EmbeddingTimes):
            self._times.observe(embedded)
        return embed_response(embedded)

    async def LoadAdapter(
        self,
        request: worker_pb2.LoadAdapterRequest,
        context: grpc.aio.ServicerContext[worker_pb2.LoadAdapterRequest, worker_pb2.LoadAdapterResponse],
    ) -> worker_pb2.LoadAdapterResponse:
        """Refuse: there are no adapters yet."""
        raise _not_implemented("adapters")

    async def UnloadAdapter(
        self,
        request: worker_pb2.UnloadAdapterRequest,
        context: grpc.aio.ServicerContext[worker_pb2.UnloadAdapterRequest, worker_pb2.UnloadAdapterResponse],
    ) -> worker_pb2.UnloadAdapterResponse:
        """Refuse: there are no adapters yet."""
        raise _not_implemented("adapters")

    async def ListAdapters(
        self,
        request: worker_pb2.ListAdaptersRequest,
        context: grpc.aio.ServicerContext[worker_pb2.ListAdaptersRequest, worker_pb2.ListAdaptersResponse],
    ) -> worker_pb2.ListAdaptersResponse:
        """No adapter is loaded."""
        return worker_pb2.ListAdaptersResponse()

    @property
    def _any(self) -> Serving | EmbeddingServing:
        if self._attached is None:
            raise MeshError(Reason.NOT_READY, "the model is being loaded; try again", retry_after_s="1")
        return self._attached

    @property
    def _serving(self) -> Serving:
        """The engine, for what only an engine can do."""
        if not isinstance(self._any, Serving):
            raise to_mesh(WrongKind(f"model {self._any.model!r} computes embeddings: it generates and scores no text"))
        return self._any

    @asynccontextmanager
    async def _begin(self, request: worker_pb2.GenerateRequest) -> AsyncIterator[Generating]:
        serving = self._serving
        self._refuse_other_vocabulary(request.vocabulary_digest)
        _refuse_adapter(request.adapter)
        if request.kv_digest and request.kv_digest != serving.about.kv_digest:
            raise MeshError(
                Reason.KV_MISMATCH,
                f"the attempt began on KV {request.kv_digest}; this worker's is {serving.about.kv_digest}",
                kv_digest=serving.about.kv_digest,
            )
        with translated():
            generation = read_generation(request, self._namespace(request))
            if generation.grammar:
                generation = replace(generation, constraints=await serving.grammars.open(generation))
            stream = serving.loop.submit(generation)
        with stream, self._accounts.running(request.account[:MAX_ACCOUNT_CHARACTERS]) as account:
            yield Generating(stream, generation, serving, account, self._ended)

    def _ended(self, error: WorkerError | None, summary: Summary | None, reason: str, num_choices: int) -> None:
        if error is not None:
            self._note_failure(error)
            return
        self._note_success()
        if summary is not None and isinstance(self._times, RequestTimes):
            self._times.observe(summary, reason, num_choices)

    def _note_success(self) -> None:
        if self._numerics is not None:
            self._numerics.succeeded()

    def _note_failure(self, error: WorkerError) -> None:
        if self._numerics is not None and isinstance(error, NotFinite):
            self._numerics.failed()

    def _namespace(self, request: worker_pb2.GenerateRequest) -> Namespace:
        """Only the gateway names a group for somebody else; other callers share with themselves."""
        if len(request.cache_salt.encode()) > MAX_SALT_BYTES:
            raise MeshError(
                Reason.PARAMETER_INVALID,
                f"cache_salt is longer than {MAX_SALT_BYTES} bytes",
                parameter="cache_salt",
            )
        _check_group(request.cache_group)
        who, group = caller(), request.cache_group
        if group and not who.is_any("gateway"):
            group = f"service/{who.service}"
        return self._serving.namespaces.of(group, request.cache_salt)

    def _refuse_other_vocabulary(self, digest: str) -> None:
        mine = self._any.vocabulary_digest
        if digest != mine:
            raise MeshError(
                Reason.VOCABULARY_MISMATCH,
                f"the ids are of vocabulary {digest or '(none)'}; this worker's is {mine}",
                vocabulary=mine,
            )


def _check_group(group: str) -> None:
    if len(group.encode()) > MAX_GROUP_BYTES:
        raise MeshError(
            Reason.PARAMETER_INVALID, f"cache_group is longer than {MAX_GROUP_BYTES} bytes", parameter="cache_group"
        )


def _refuse_adapter(name: str) -> None:
    if name:
        raise MeshError(Reason.ADAPTER_NOT_FOUND, f"no adapter {name!r} is loaded here", parameter="adapter")


def _not_implemented(what: str) -> MeshError:
    return MeshError(Reason.NOT_IMPLEMENTED, f"{what} are not supported by this version of the worker")
