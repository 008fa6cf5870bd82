"""Makes workers forget a cache group's blocks. Knows the worker's contract and nothing else."""

from serin.worker.v1 import worker_pb2, worker_pb2_grpc
from serin_mesh import logs
from serin_mesh.channels import ChannelSettings, connect
from serin_mesh.errors import MeshError

from serin_cache_svc.fleet import Worker
from serin_cache_svc.purge import WorkerUnreached

PURGE_TIMEOUT_S = 5.0


class WorkerPurge:
    """Asks workers, each by a connection of its own."""

    def __init__(self, settings: ChannelSettings) -> None:
        self._settings = settings

    async def __call__(self, worker: Worker, cache_group: str) -> int:
        """Make a worker forget a group.

        Raises:
            WorkerUnreached: it did not answer, or refused.
        """
        async with connect(worker.endpoint, self._settings, echo_lane=False, service="worker") as channel:
            stub = worker_pb2_grpc.WorkerServiceStub(channel)
            request = worker_pb2.PurgeCacheRequest(cache_group=cache_group)
            try:
                response = await stub.PurgeCache(request, timeout=PURGE_TIMEOUT_S)
            except MeshError as error:
                logs.get().warning(
                    "cache.worker_not_purged", worker=worker.endpoint, reason=error.reason, message=error.message
                )
                raise WorkerUnreached(f"{worker.endpoint}: {error.message}") from error
        return response.block_count
