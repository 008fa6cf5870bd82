"""The cache service over gRPC (`serin.cache.v1`): whatever goes wrong is a miss. Knows nothing about placing.

Answers are sealed when they are stored and checked when they are recalled: one that belongs to another request is
refused, and the recall has failed, which a rollout of the cache is judged by.
"""

import time
from collections.abc import Sequence
from contextlib import suppress

import structlog
from serin.cache.v1 import cache_pb2, cache_pb2_grpc
from serin_mesh.breaker import CircuitBreaker, Unavailable
from serin_mesh.errors import MeshError

from serin_gateway.catalog import CatalogSource
from serin_gateway.recall import AnswerKey, Recalled, StoredChoice
from serin_gateway.tokenizer import CallScope
from serin_gateway.upstream.answer_seal import AnswerSeal, Finding
from serin_gateway.upstream.targets import Channels, call_metadata
from serin_gateway.upstream.wire import (
    from_finish,
    from_logprob,
    to_finish,
    to_logprob,
    to_prepared,
    to_sampling,
    to_segments,
)

BUDGET_S = 0.1
"""cache-svc has 50 ms for its store; the rest is the way there and back."""
MAX_VERSIONS = 16

log = structlog.get_logger()


class GrpcMemory:
    """Asks cache-svc, within a budget.

    Each version of it has a breaker of its own: one that fails costs only the lanes that it belongs to.

    Args:
        channels: how it is called.
        catalog: whether there is one, and of which version each lane's is.
        seal: binds answers to their requests.
    """

    def __init__(self, channels: Channels, catalog: CatalogSource, seal: AnswerSeal) -> None:
        self._channels = channels
        self._catalog = catalog
        self._seal = seal
        self._breakers: dict[str, CircuitBreaker] = {}

    async def recall(self, scope: CallScope, key: AnswerKey, *, allow_answer: bool) -> Recalled:
        """Look; a miss when anything is wrong."""
        if not self._catalog.current().has_caches:
            return Recalled(skipped=True)
        request = cache_pb2.RecallRequest(
            key=_key(scope, key), allow_answer=allow_answer, model=scope.model, block_size=scope.lane.block_size
        )
        try:
            response = await self._breaker(scope).call(
                lambda: self._stub().Recall(request, timeout=BUDGET_S, metadata=call_metadata(scope))
            )
        except Unavailable:
            return Recalled(failed=True)
        cached = {holder.endpoint: holder.cached_token_count for holder in response.holders}
        if not response.HasField("answer"):
            return Recalled(None, cached, failed=response.store_failed)
        finding = self._seal.check(request.key, response.answer)
        if finding is Finding.FOREIGN:
            log.warning("recall.refused", lane=scope.lane.lane, cache_version=scope.lane.cache_version)
            return Recalled(None, cached, failed=True)
        answer = [_from_choice(choice) for choice in response.answer.choices]
        if finding is Finding.UNKNOWN or len(answer) != key.sampling.choice_count:
            return Recalled(None, cached, failed=response.store_failed)  # not known to be what was asked; a miss
        return Recalled(answer, cached, failed=response.store_failed)

    async def keep(self, scope: CallScope, key: AnswerKey, answer: Sequence[StoredChoice]) -> None:
        """Offer an answer."""
        if not self._catalog.current().has_caches:
            return
        stored = cache_pb2.StoredAnswer(choices=[_to_choice(choice) for choice in answer], created_at=time.time())
        request = cache_pb2.PutAnswerRequest(key=_key(scope, key), answer=stored)
        self._seal.seal(request.key, request.answer)
        with suppress(Unavailable):  # not stored: the next one computes it again
            await self._breaker(scope).call(
                lambda: self._stub().PutAnswer(request, timeout=BUDGET_S, metadata=call_metadata(scope))
            )

    def _breaker(self, scope: CallScope) -> CircuitBreaker:
        version = scope.lane.cache_version
        breaker = self._breakers.get(version)
        if breaker is None:
            if len(self._breakers) >= MAX_VERSIONS:  # versions come and go: the oldest is not asked any more
                self._breakers.pop(next(iter(self._breakers)))
            breaker = CircuitBreaker(f"cache {version}".rstrip(), failures=(MeshError, OSError), budget_s=BUDGET_S)
            self._breakers[version] = breaker
        return breaker

    def _stub(self) -> "cache_pb2_grpc.CacheServiceAsyncStub":
        return self._channels.stub(cache_pb2_grpc.CacheServiceStub, "cache")


def _key(scope: CallScope, key: AnswerKey) -> cache_pb2.AnswerKey:
    return cache_pb2.AnswerKey(
        cache_group=key.cache_group,
        cache_salt=key.cache_salt,
        kv_digest=scope.lane.kv_digest,
        vocabulary_digest=scope.lane.vocabulary_digest,
        prompt=to_segments(key.prompt),
        sampling=to_sampling(key.sampling),
        stop_strings=key.stop_strings,
        grammar=to_prepared(key.grammar),
    )


def _to_choice(choice: StoredChoice) -> cache_pb2.StoredChoice:
    return cache_pb2.StoredChoice(
        token_ids=choice.token_ids,
        logprobs=[to_logprob(one) for one in choice.logprobs],
        finish_reason=to_finish(choice.finish_reason),
        stop_token_id=choice.stop_token_id,
        stop_string=choice.stop_string,
    )


def _from_choice(choice: cache_pb2.StoredChoice) -> StoredChoice:
    return StoredChoice(
        list(choice.token_ids),
        [from_logprob(one) for one in choice.logprobs],
        from_finish(choice.finish_reason),
        choice.stop_token_id if choice.HasField("stop_token_id") else None,
        choice.stop_string if choice.HasField("stop_string") else None,
    )
