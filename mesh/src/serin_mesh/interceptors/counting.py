"""Counts calls for Prometheus. Methods come from the server's own handlers, so no caller can create a series."""

import time
from typing import Any

from serin_mesh.interceptors.onion import Handle
from serin_mesh.interceptors.rpc import Rpc
from serin_mesh.metrics import rpc_metrics


def count_calls(handle: Handle) -> Handle:
    """Count each call when it begins and when it ends."""
    metrics = rpc_metrics()

    async def counted(rpc: Rpc) -> Any:
        running = metrics.running.labels(rpc.method)
        running.inc()
        started = time.perf_counter()
        try:
            return await handle(rpc)
        finally:
            running.dec()
            reason = rpc.reason.value if rpc.reason is not None else ""
            metrics.finished.labels(rpc.method, rpc.code.name, reason).inc()
            if not rpc.is_open_ended:
                metrics.seconds.labels(rpc.method).observe(time.perf_counter() - started)

    return counted
