"""Scores of workers over gRPC (`serin.worker.v1`). Knows nothing about why anything is scored."""

from collections.abc import Sequence

from serin.worker.v1 import worker_pb2, worker_pb2_grpc
from serin_mesh.errors import MeshError, Reason

from serin_gateway.catalog import Worker
from serin_gateway.scoring import LOWEST_PRIORITY
from serin_gateway.tokenizer import CallScope
from serin_gateway.upstream.targets import Channels, pinned_metadata
from serin_gateway.upstream.wire import from_logprob, to_segments
from serin_gateway.worker import TokenLogprob


class GrpcScorers:
    """Calls workers through the control plane's routes, pinned to the one that was chosen."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels

    async def score(
        self,
        scope: CallScope,
        worker: Worker,
        prompt: Sequence[int],
        answer: Sequence[int],
        *,
        num_alternatives: int = 1,
        priority: int = LOWEST_PRIORITY,
    ) -> Sequence[TokenLogprob]:
        """One score for each token of the answer."""
        request = worker_pb2.ScoreRequest(
            request_id=scope.request_id,
            vocabulary_digest=scope.lane.vocabulary_digest,
            prompt=to_segments(prompt),
            target_token_ids=answer,
            top_logprobs=num_alternatives,
            priority=priority,
            tenant_key=scope.tenant_key,
        )
        stub = self._channels.stub(worker_pb2_grpc.WorkerServiceStub, "worker", scope.model)
        response = await stub.Score(request, timeout=scope.timeout_s, metadata=pinned_metadata(scope, worker))
        if response.kv_digest != scope.lane.kv_digest:
            raise MeshError(
                Reason.KV_MISMATCH, f"a worker of KV {response.kv_digest} answered for lane {scope.lane.lane}"
            )
        scores = [from_logprob(one) for one in response.logprobs]
        if len(scores) != len(answer) or any(len(one.alternatives) < num_alternatives for one in scores):
            raise MeshError(Reason.INTERNAL, f"{len(scores)} scores for {len(answer)} tokens")
        return scores
