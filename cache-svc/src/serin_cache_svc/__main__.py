"""The cache service as a process: ``python -m serin_cache_svc --cache-redis URL --mesh-secret-file FILE``."""

import re
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack

from serin.cache.v1 import cache_pb2_grpc
from serin.control.v1 import registry_pb2
from serin_mesh.announce import Announcement
from serin_mesh.lanes import LaneWatch
from serin_mesh.metrics import registry
from serin_mesh.readiness import Readiness
from serin_mesh.server import run_main, serve
from serin_mesh.settings import SettingsError, load_settings, mesh_secret

from serin_cache_svc.answers import AnswerLimits
from serin_cache_svc.assembly import assembled
from serin_cache_svc.formats import FORMAT, READ
from serin_cache_svc.lane_workers import worker_changes
from serin_cache_svc.metrics import CacheCollector
from serin_cache_svc.service import CALLERS
from serin_cache_svc.settings import CacheSettings
from serin_cache_svc.store.redis_store import RedisAnswerStore

PROGRAM = "serin-cache-svc"


def main(argv: Sequence[str] | None = None) -> int:
    """Run until asked to stop; the exit status says how it went."""
    return run_main(PROGRAM, _serve(load_settings(CacheSettings, argv, PROGRAM)))


async def _serve(settings: CacheSettings) -> None:
    readiness = Readiness()
    async with AsyncExitStack() as stack:
        store = _open_store(settings)
        stack.push_async_callback(store.close)
        lanes = await stack.enter_async_context(LaneWatch(settings))
        cache = await stack.enter_async_context(
            assembled(
                store,
                worker_changes(lanes.changes()),
                settings,
                secret=mesh_secret(settings),
                budget_s=settings.store_budget_ms / 1000,
                limits=AnswerLimits(default_ttl_s=settings.answer_ttl_s, max_bytes=settings.answer_max_bytes),
            )
        )
        registry().register(CacheCollector(cache.tally, cache.index))

        async def startup() -> None:
            readiness.ready(capacity=registry_pb2.Capacity(group_size=1))

        await serve(
            settings,
            "cache",
            lambda server: cache_pb2_grpc.add_CacheServiceServicer_to_server(cache.service, server),
            readiness=readiness,
            announce=Announcement(written_format=FORMAT, read_formats=READ),
            callers=CALLERS,
            startup=startup,
        )


def _open_store(settings: CacheSettings) -> RedisAnswerStore:
    try:
        return RedisAnswerStore(settings.cache_redis)
    except ValueError as error:
        accepted = "redis://host:port/0, rediss://host:port/0 or unix:///path"
        shown = re.sub(r"//[^@/]*@", "//***@", settings.cache_redis)  # no password in a log
        raise SettingsError(f"--cache-redis: '{shown}': not a URL of a Redis: accepted: {accepted}") from error


if __name__ == "__main__":
    sys.exit(main())
