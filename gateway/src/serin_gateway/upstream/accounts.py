"""What workers have sent, over gRPC (`serin.worker.v1`). Knows nothing about why anybody wants to know."""

import asyncio
from collections.abc import Sequence

from serin.worker.v1 import worker_pb2, worker_pb2_grpc
from serin_mesh.errors import MeshError, Reason

from serin_gateway.catalog import CatalogSource, Lane, Worker
from serin_gateway.ledger.accounts import Account
from serin_gateway.tokenizer import CallScope
from serin_gateway.upstream.targets import Channels, pinned_metadata

TIMEOUT_S = 5.0


class GrpcAccounts:
    """Asks all workers of a model, each pinned."""

    def __init__(self, channels: Channels, catalog: CatalogSource) -> None:
        self._channels = channels
        self._catalog = catalog

    async def begun_with(self, model: str, prefix: str) -> tuple[Sequence[Account], bool]:
        """All accounts whose names begin so. A worker without accounts (an older one) has answered."""
        try:
            served = self._catalog.current().find(model)
        except MeshError as error:
            return [], error.reason is Reason.MODEL_NOT_FOUND
        asked = [self._ask(model, lane, worker, prefix) for lane in served.lanes for worker in lane.workers]
        answers = await asyncio.gather(*asked)
        found = [account for answer in answers if answer is not None for account in answer]
        return found, None not in answers

    async def _ask(self, model: str, lane: Lane, worker: Worker, prefix: str) -> list[Account] | None:
        scope = CallScope(f"settle-{prefix[:16]}", model, lane, "", TIMEOUT_S)
        stub = self._channels.stub(worker_pb2_grpc.WorkerServiceStub, "worker", model)
        request = worker_pb2.ListAccountsRequest(account_prefix=prefix)
        try:
            answer = await stub.ListAccounts(request, timeout=TIMEOUT_S, metadata=pinned_metadata(scope, worker))
        except MeshError as error:
            return [] if error.reason is Reason.NOT_IMPLEMENTED else None
        return [
            Account(
                one.account,
                lane,
                one.prompt_token_count,
                one.cached_token_count,
                {choice.choice_index: choice.token_count for choice in one.choices},
                one.running,
            )
            for one in answer.accounts
        ]
