"""One line for each call: what was called, by whom, how it ended, how long it took. No prompt text."""

import time
from typing import Any

import grpc
import structlog

from serin_mesh import logs
from serin_mesh.interceptors.onion import Handle
from serin_mesh.interceptors.rpc import Rpc

_OUR_FAULT = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS)


def log_calls(handle: Handle) -> Handle:
    """Write ``rpc.finished`` after each call; lines that the handler writes carry the request's id too."""

    async def logged(rpc: Rpc) -> Any:
        structlog.contextvars.bind_contextvars(request_id=rpc.served.request_id)
        started = time.perf_counter()
        try:
            return await handle(rpc)
        finally:
            _write(rpc, time.perf_counter() - started)

    return logged


def _write(rpc: Rpc, seconds: float) -> None:
    facts: dict[str, Any] = {"method": rpc.method[1:], "code": rpc.code.name, "seconds": round(seconds, 6)}
    if rpc.reason is not None:
        facts["reason"] = rpc.reason.value
    if rpc.served.lane:
        facts["lane"] = rpc.served.lane
    facts["caller"] = rpc.served.caller.service or ("loopback" if rpc.served.caller.trusted else "unknown")
    log = logs.get()
    if rpc.is_infrastructure:
        log.debug("rpc.finished", **facts)
    elif rpc.code in _OUR_FAULT:
        log.error("rpc.finished", **facts)
    else:
        log.info("rpc.finished", **facts)
