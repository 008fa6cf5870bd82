"""A worker that computes nothing and counts what it sends: the witness of what a ledger has to say.

    python counting_worker.py --model MODEL --model-path DIR --control HOST:PORT --tally FILE

It streams as many ids as it is asked for, some at a time. At its end it writes a tally of its own: account to prompt
tokens and tokens sent.
"""

import asyncio
import json
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc
from pydantic import Field
from serin.control.v1 import registry_pb2
from serin.generation.v1 import sampling_pb2
from serin.worker.v1 import worker_pb2, worker_pb2_grpc
from serin_mesh.announce import Announcement
from serin_mesh.identity import digest_json, vocabulary_digest
from serin_mesh.readiness import Readiness
from serin_mesh.server import run_main, serve
from serin_mesh.settings import ServiceSettings, load_settings
from serin_worker.accounts import Accounts
from serin_worker.outputs import Delta, Started
from serin_worker.pulled import pulled
from serin_worker.wire import accounts_response
from serin_worker.work_stream import WorkStreams

PROGRAM = "counting-worker"
BLOCK_SIZE = 16
LETTER = 70


class CountingSettings(ServiceSettings):
    """What it is told."""

    model: str = Field("tiny", description="model that it pretends to serve")
    model_path: Path = Field(Path(), description="folder whose tokenizer says what its ids mean")
    tally: Path = Field(Path("tally.json"), description="where it writes what it has sent")
    piece: int = Field(4, ge=1, description="ids in a message")
    pause_s: float = Field(0.002, ge=0, description="between two messages of a stream")


class CountingService(worker_pb2_grpc.WorkerServiceServicer):
    """`Generate`, `Work` and `ListAccounts`."""

    def __init__(self, settings: CountingSettings) -> None:
        self._settings = settings
        self._accounts = Accounts()
        self.vocabulary = vocabulary_digest(settings.model_path)
        self.kv = digest_json({"counting": settings.model})
        self.tally: dict[str, list[int]] = {}
        self.streams = WorkStreams()

    async def Work(  # noqa: N802 - the method's name in the contract
        self, request_iterator: AsyncIterator[worker_pb2.WorkRequest], context: Any
    ) -> AsyncIterator[worker_pb2.WorkResponse]:
        """The same for many requests."""
        async with self.streams.serving(lambda request: pulled(self.Generate(request, context)), context) as stream:
            async for response in stream.responses(request_iterator):
                yield response

    async def Generate(  # noqa: N802 - the method's name in the contract
        self, request: worker_pb2.GenerateRequest, context: Any
    ) -> AsyncGenerator[worker_pb2.GenerateResponse, None]:
        """Send ids; what is handed to the stream is sent."""
        prompt = sum(len(segment.tokens.token_ids) for segment in request.prompt)
        limit = request.sampling.max_tokens
        tally = self.tally.setdefault(request.account, [prompt, 0])
        with self._accounts.running(request.account) as account:
            account.note(Started(prompt, 0))
            started = worker_pb2.GenerationStarted(prompt_token_count=prompt, worker=self._settings.instance)
            yield worker_pb2.GenerateResponse(started=started)
            sent = 0
            while sent < limit:
                await asyncio.sleep(self._settings.pause_s)
                ids = [LETTER] * min(self._settings.piece, limit - sent)
                account.note(Delta(0, sent, ids))
                tally[1] += len(ids)
                delta = worker_pb2.GenerationDelta(choice_index=0, first_position=sent, token_ids=ids)
                yield worker_pb2.GenerateResponse(delta=delta)
                sent += len(ids)
            end = worker_pb2.ChoiceFinished(choice_index=0, finish_reason=sampling_pb2.FINISH_REASON_LENGTH)
            yield worker_pb2.GenerateResponse(choice_finished=end)
            yield worker_pb2.GenerateResponse(summary=worker_pb2.GenerationSummary(prompt_token_count=prompt))

    async def ListAccounts(  # noqa: N802 - the method's name in the contract
        self, request: worker_pb2.ListAccountsRequest, context: Any
    ) -> worker_pb2.ListAccountsResponse:
        """As the real worker."""
        return accounts_response(self._accounts.begun_with(request.account_prefix))

    async def WatchCache(  # noqa: N802 - the method's name in the contract
        self, request: worker_pb2.WatchCacheRequest, context: Any
    ) -> AsyncIterator[worker_pb2.WatchCacheResponse]:
        """It holds no blocks, and never will."""
        snapshot = worker_pb2.BlocksSnapshot(complete=True, block_size=BLOCK_SIZE, kv_digest=self.kv)
        yield worker_pb2.WatchCacheResponse(epoch="counting", snapshot=snapshot)
        await asyncio.Event().wait()


def main(argv: Sequence[str] | None = None) -> int:
    """Run until asked to stop."""
    return run_main(PROGRAM, _serve(load_settings(CountingSettings, argv, PROGRAM)))


async def _serve(settings: CountingSettings) -> None:
    service = CountingService(settings)
    readiness = Readiness()
    readiness.watch(service.streams.follow)

    async def startup() -> None:
        readiness.ready(
            digests=registry_pb2.Digests(
                artifact=service.kv, vocabulary=service.vocabulary, kv=service.kv, numerics_class="counting"
            ),
            capacity=registry_pb2.Capacity(
                sequence_count=256, block_count=1 << 16, block_size=BLOCK_SIZE, context_length=4096, group_size=1
            ),
        )

    def register(server: grpc.aio.Server) -> None:
        worker_pb2_grpc.add_WorkerServiceServicer_to_server(service, server)

    try:
        await serve(
            settings, "worker", register, readiness=readiness,
            announce=Announcement(model=settings.model), startup=startup,
        )  # fmt: skip
    finally:
        settings.tally.write_text(json.dumps(service.tally))


if __name__ == "__main__":
    sys.exit(main())
