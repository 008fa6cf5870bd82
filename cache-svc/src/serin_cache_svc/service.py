"""CacheService over gRPC: protobuf in and out, the room's own types between.

Knows the contract and who does the work; does none itself.
"""
# ruff: noqa: N802 - methods are named by the contract

import grpc
from google.protobuf.message import DecodeError
from serin.cache.v1 import cache_pb2, cache_pb2_grpc
from serin_mesh import logs
from serin_mesh.call import caller
from serin_mesh.errors import MeshError, Reason

from serin_cache_svc.answers import Answers
from serin_cache_svc.asked import Asked
from serin_cache_svc.errors import NotDeterministic, StoreDown, WorkersUnknown
from serin_cache_svc.fleet import Fleet
from serin_cache_svc.prefix_index import Holder, PrefixIndex
from serin_cache_svc.purge import PurgeWorker, purge
from serin_cache_svc.tally import Tally
from serin_cache_svc.wire import check_answer, read_key

CALLERS = {
    "/serin.cache.v1.CacheService/Recall": ("gateway",),
    "/serin.cache.v1.CacheService/PutAnswer": ("gateway",),
    "/serin.cache.v1.CacheService/Purge": ("gateway", "cli"),
}
"""Services that may call: only the gateway knows whose a request is, and has checked an administrator's role."""


class CacheService(cache_pb2_grpc.CacheServiceServicer):
    """One replica of the cache."""

    def __init__(
        self,
        answers: Answers,
        index: PrefixIndex,
        fleet: Fleet,
        purge_worker: PurgeWorker,
        secret: bytes,
        tally: Tally,
    ) -> None:
        self._answers = answers
        self._index = index
        self._fleet = fleet
        self._purge_worker = purge_worker
        self._secret = secret
        self._tally = tally

    async def Recall(
        self,
        request: cache_pb2.RecallRequest,
        context: grpc.aio.ServicerContext[cache_pb2.RecallRequest, cache_pb2.RecallResponse],
    ) -> cache_pb2.RecallResponse:
        """Look for an answer, else for holders of a prefix."""
        if request.block_size < 1:
            raise MeshError(Reason.PARAMETER_INVALID, "block_size: 0: accepted: 1 or more", parameter="block_size")
        asked = read_key(request.key)
        store_failed = False
        if request.allow_answer:
            try:
                answer = await self._answer(asked)
            except StoreDown:
                answer, store_failed = None, True
            self._tally.answer(answer is not None)
            if answer is not None:
                return cache_pb2.RecallResponse(answer=answer)
        holders = self._holders(asked, request)
        self._tally.prefix(bool(holders))
        return cache_pb2.RecallResponse(
            holders=[
                cache_pb2.PrefixHolder(endpoint=holder.endpoint, cached_token_count=holder.num_tokens)
                for holder in holders
            ],
            store_failed=store_failed,
        )

    async def PutAnswer(
        self,
        request: cache_pb2.PutAnswerRequest,
        context: grpc.aio.ServicerContext[cache_pb2.PutAnswerRequest, cache_pb2.PutAnswerResponse],
    ) -> cache_pb2.PutAnswerResponse:
        """Store an answer."""
        asked = read_key(request.key)
        check_answer(asked, request.answer)
        limit_s = self._answers.limits.max_ttl_s
        if request.ttl_seconds > limit_s:
            sentence = f"ttl_seconds: {request.ttl_seconds}: accepted: 1 to {limit_s}, or 0 for the default"
            raise MeshError(Reason.PARAMETER_INVALID, sentence, parameter="ttl_seconds")
        try:
            stored = await self._answers.put(asked, request.answer.SerializeToString(), request.ttl_seconds)
        except NotDeterministic as error:
            raise MeshError(Reason.PARAMETER_INVALID, str(error), parameter="key.sampling") from error
        self._tally.stored(stored)
        return cache_pb2.PutAnswerResponse(stored=stored)

    async def Purge(
        self,
        request: cache_pb2.PurgeRequest,
        context: grpc.aio.ServicerContext[cache_pb2.PurgeRequest, cache_pb2.PurgeResponse],
    ) -> cache_pb2.PurgeResponse:
        """Delete everything of a cache group, here and on every worker."""
        if not request.cache_group:
            sentence = "cache_group: empty: accepted: a cache group"
            raise MeshError(Reason.PARAMETER_INVALID, sentence, parameter="cache_group")
        try:
            receipt = await purge(request.cache_group, self._answers, self._fleet, self._purge_worker)
        except WorkersUnknown as error:
            raise MeshError(Reason.NOT_READY, str(error), retry_after_s="1") from error
        except StoreDown as error:
            sentence = f"stored answers were not all deleted: {error}; purge again when it is back"
            raise MeshError(Reason.UPSTREAM_UNAVAILABLE, sentence) from error
        self._tally.num_purges += 1
        logs.get().info(
            "cache.purged",
            receipt=receipt.receipt_id,
            group=self._answers.group_tag(request.cache_group),
            answers=receipt.num_answers,
            blocks=receipt.num_blocks,
            unreached=list(receipt.unreached),
            caller=caller().service,
        )
        return cache_pb2.PurgeResponse(
            receipt_id=receipt.receipt_id,
            answer_count=receipt.num_answers,
            block_count=receipt.num_blocks,
            unreached_workers=receipt.unreached,
        )

    async def GetStats(
        self,
        request: cache_pb2.GetStatsRequest,
        context: grpc.aio.ServicerContext[cache_pb2.GetStatsRequest, cache_pb2.GetStatsResponse],
    ) -> cache_pb2.GetStatsResponse:
        """Sizes and hit counts."""
        tally = self._tally
        return cache_pb2.GetStatsResponse(
            answer_hit_count=tally.num_answer_hits,
            answer_miss_count=tally.num_answer_misses,
            prefix_hit_count=tally.num_prefix_hits,
            prefix_miss_count=tally.num_prefix_misses,
            indexed_block_count=self._index.num_blocks,
            worker_count=self._index.num_workers,
            store_available=await self._answers.is_available(),
            written_format=self._answers.formats.written,
            read_formats=self._answers.formats.read,
        )

    async def _answer(self, asked: Asked) -> cache_pb2.StoredAnswer | None:
        stored = await self._answers.recall(asked)
        if stored is None:
            return None
        try:
            answer = cache_pb2.StoredAnswer.FromString(stored)
        except DecodeError:
            return None
        return answer if len(answer.choices) == asked.num_choices else None

    def _holders(self, asked: Asked, request: cache_pb2.RecallRequest) -> list[Holder]:
        if not asked.cache_group:
            return []
        namespace = asked.namespace(self._secret)
        return self._index.holders(request.model, asked.kv_digest, request.block_size, namespace, asked.prompt)
