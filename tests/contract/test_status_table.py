"""The table of errors over the wire: what a handler raises is what any gRPC client reads, unary and mid-stream."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from harness.wire_errors import error_info
from serin.worker.v1 import worker_pb2, worker_pb2_grpc
from serin_mesh.errors import STATUS, MeshError, Reason
from serin_mesh.testing import running

DEADLINE_S = 60.0


class Failing(worker_pb2_grpc.WorkerServiceServicer):
    """A worker that fails as its caller asks: the request id is the reason."""

    async def DescribeWorker(self, request: Any, context: Any) -> worker_pb2.DescribeWorkerResponse:  # noqa: N802
        """Fail with the reason in the metadata."""
        raise self._error(dict(context.invocation_metadata())["x-reason"])

    async def Generate(self, request: Any, context: Any) -> AsyncIterator[worker_pb2.GenerateResponse]:  # noqa: N802
        """Say one thing, then fail."""
        yield worker_pb2.GenerateResponse(started=worker_pb2.GenerationStarted(worker="twin"))
        raise self._error(request.request_id)

    def _error(self, reason: str) -> BaseException:
        if reason == "a defect":
            return ValueError("the secret prompt")
        return MeshError(Reason(reason), f"this is {reason}", parameter="top_p")


@pytest.fixture
async def worker() -> AsyncIterator[worker_pb2_grpc.WorkerServiceStub]:
    """The failing worker behind the whole onion, asked by a client without any code of ours."""
    async with (
        running(lambda server: worker_pb2_grpc.add_WorkerServiceServicer_to_server(Failing(), server)) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        yield worker_pb2_grpc.WorkerServiceStub(channel)


async def unary_failure(worker: worker_pb2_grpc.WorkerServiceStub, reason: str) -> grpc.aio.AioRpcError:
    """How a unary call ends."""
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await worker.DescribeWorker(
            worker_pb2.DescribeWorkerRequest(), timeout=DEADLINE_S, metadata=(("x-reason", reason),)
        )
    return failure.value


async def stream_failure(worker: worker_pb2_grpc.WorkerServiceStub, reason: str) -> grpc.aio.AioRpcError:
    """How a stream ends after its first message."""
    call = worker.Generate(worker_pb2.GenerateRequest(request_id=reason), timeout=DEADLINE_S)
    assert (await call.read()).started.worker == "twin"
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await call.read()
    return failure.value


@pytest.mark.parametrize("fail", [unary_failure, stream_failure])
async def test_every_reason_arrives_with_its_status(worker: worker_pb2_grpc.WorkerServiceStub, fail):
    """Code by the table, the sentence, exactly one `ErrorInfo` with reason and metadata."""
    for reason in Reason:
        error = await fail(worker, reason.value)
        info = error_info(error)
        assert error.code() is STATUS[reason].grpc, reason
        assert error.details() == f"this is {reason.value}"
        assert info.reason == reason.value
        assert dict(info.metadata) == {"parameter": "top_p"}


@pytest.mark.parametrize("fail", [unary_failure, stream_failure])
async def test_a_defect_says_nothing_of_the_request(worker: worker_pb2_grpc.WorkerServiceStub, fail):
    """An exception that nobody meant is INTERNAL, without its text."""
    error = await fail(worker, "a defect")
    assert error.code() is grpc.StatusCode.INTERNAL
    assert error_info(error).reason == "INTERNAL"
    assert "secret" not in repr(error)


def test_the_table_is_complete_and_consistent():
    """Every reason has a row; one HTTP status never means two families of gRPC codes that callers treat differently."""
    assert set(STATUS) == set(Reason)
    for reason, row in STATUS.items():
        assert 400 <= row.http < 600, reason
        client_error = row.grpc in (
            grpc.StatusCode.INVALID_ARGUMENT,
            grpc.StatusCode.NOT_FOUND,
            grpc.StatusCode.PERMISSION_DENIED,
            grpc.StatusCode.UNAUTHENTICATED,
        )
        if client_error:
            assert row.http < 500, reason
            assert not row.retryable, reason
        if row.retryable:
            assert row.http in (409, 429, 503), reason
