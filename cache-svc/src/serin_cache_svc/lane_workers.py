"""The workers that the lanes name. Knows the control plane's contract and nothing about caches."""

from collections.abc import AsyncIterator

from serin.control.v1 import lane_pb2, registry_pb2

from serin_cache_svc.fleet import Worker, Workers


def workers_of(lanes: lane_pb2.WatchLanesResponse) -> Workers:
    """Every worker of every model, once."""
    serving: set[Worker] = set()
    draining: set[Worker] = set()
    for model in lanes.models:
        for lane in model.lanes:
            for member in lane.members:
                if member.service != registry_pb2.SERVICE_KIND_WORKER:
                    continue
                for endpoint in member.endpoints:
                    worker = Worker(model.name, endpoint.instance, endpoint.endpoint)
                    leaving = endpoint.state == registry_pb2.INSTANCE_STATE_DRAINING
                    (draining if leaving else serving).add(worker)
    return Workers(frozenset(serving), frozenset(draining))


async def worker_changes(lanes: AsyncIterator[lane_pb2.WatchLanesResponse]) -> AsyncIterator[Workers]:
    """The workers now and after each change of the lanes."""
    async for snapshot in lanes:
        yield workers_of(snapshot)
