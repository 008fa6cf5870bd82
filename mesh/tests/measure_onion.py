"""What the onion and the channels of the mesh cost: `python mesh/tests/measure_onion.py`.

Client and server share this process, so CPU time per message or call is the whole price of both sides. Bare gRPC and
the mesh take turns; the least of several rounds is shown, because other load only ever adds.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc
import structlog
from serin.worker.v1 import worker_pb2, worker_pb2_grpc
from serin_mesh.logs import configure_logs
from serin_mesh.settings import ServiceSettings
from serin_mesh.testing import running

NUM_MESSAGES = 4000
NUM_CALLS = 500
NUM_ROUNDS = 7
NUM_STREAMS = 8


class Stream(worker_pb2_grpc.WorkerServiceServicer):
    """Sends deltas as fast as they are taken."""

    async def Generate(self, request: worker_pb2.GenerateRequest, context: object) -> AsyncIterator[object]:  # noqa: N802
        """Deltas, all the same."""
        delta = worker_pb2.GenerateResponse(delta=worker_pb2.GenerationDelta(token_ids=[1, 2, 3]))
        for _ in range(NUM_MESSAGES):
            yield delta

    async def DescribeWorker(self, request: object, context: object) -> worker_pb2.DescribeWorkerResponse:  # noqa: N802
        """A short answer."""
        return worker_pb2.DescribeWorkerResponse(model="small")


def register(server: grpc.aio.Server) -> None:
    """Add the service to a server."""
    worker_pb2_grpc.add_WorkerServiceServicer_to_server(Stream(), server)


async def main() -> None:
    """Measure streams and unary calls."""
    with open("/dev/null", "w") as nowhere:  # noqa: ASYNC230 - opened once, before anything is measured
        configure_logs("worker", ServiceSettings(log_format="json"), nowhere)
        bare = grpc.aio.server()
        register(bare)
        port = bare.add_insecure_port("127.0.0.1:0")
        await bare.start()
        async with (
            running(register) as host,
            grpc.aio.insecure_channel(f"127.0.0.1:{port}") as bare_channel,
            host.connect() as channel,
        ):
            plain, ours = worker_pb2_grpc.WorkerServiceStub(bare_channel), worker_pb2_grpc.WorkerServiceStub(channel)
            await compare(
                "one stream, us a message",
                NUM_MESSAGES,
                lambda: read_streams(plain, 1),
                lambda: read_streams(ours, 1),
            )
            await compare(
                f"{NUM_STREAMS} streams, us a message",
                NUM_MESSAGES * NUM_STREAMS,
                lambda: read_streams(plain, NUM_STREAMS),
                lambda: read_streams(ours, NUM_STREAMS),
            )
            await compare("unary, us a call", NUM_CALLS, lambda: call(plain), lambda: call(ours))
        await bare.stop(None)
        structlog.reset_defaults()


async def compare(
    what: str, num: int, bare: Callable[[], Awaitable[None]], ours: Callable[[], Awaitable[None]]
) -> None:
    """Let both take turns and print the least of each."""
    least = {"bare": float("inf"), "mesh": float("inf")}
    for _ in range(NUM_ROUNDS):
        for name, run in (("bare", bare), ("mesh", ours)):
            started = time.process_time()
            await run()
            least[name] = min(least[name], (time.process_time() - started) / num * 1e6)
    sys.stdout.write(f"{what}: bare {least['bare']:.1f}, mesh {least['mesh']:.1f}\n")


async def read_streams(stub: "worker_pb2_grpc.WorkerServiceAsyncStub", num: int) -> None:
    """Read several streams to their ends at once."""

    async def read_one() -> None:
        async for _ in stub.Generate(worker_pb2.GenerateRequest(), timeout=120):
            pass

    await asyncio.gather(*(read_one() for _ in range(num)))


async def call(stub: "worker_pb2_grpc.WorkerServiceAsyncStub") -> None:
    """Make calls one after the other."""
    for _ in range(NUM_CALLS):
        await stub.DescribeWorker(worker_pb2.DescribeWorkerRequest(), timeout=10)


if __name__ == "__main__":
    asyncio.run(main())
