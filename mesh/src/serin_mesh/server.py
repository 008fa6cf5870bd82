"""A service as a process: configure, serve until SIGTERM or SIGINT, drain in order.

Knows nothing about any service.
"""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import grpc
import uvloop

from serin_mesh import logs
from serin_mesh.advertise import NotReachable
from serin_mesh.announce import Announcement
from serin_mesh.garbage import keep_what_is_loaded
from serin_mesh.host import HostError, Register, ServiceHost
from serin_mesh.interceptors.identity import Callers
from serin_mesh.load import LoadReport
from serin_mesh.logs import configure_logs
from serin_mesh.readiness import Condition, Readiness, State
from serin_mesh.settings import ServiceSettings, SettingsError
from serin_mesh.signals import stop_signals
from serin_mesh.telemetry import configure_telemetry
from serin_mesh.tls import TlsError

__all__ = [
    "Announcement",
    "HostError",
    "LoadReport",
    "Readiness",
    "ServiceHost",
    "StartupFailed",
    "State",
    "run_main",
    "serve",
]

Step = Callable[[], Awaitable[None]]


class StartupFailed(Exception):
    """A service could not become ready; the message is that of its cause."""


async def serve(
    settings: ServiceSettings,
    service: str,
    register: Register,
    *,
    readiness: Readiness,
    load: Callable[[], LoadReport] | None = None,
    announce: Announcement | None = None,
    callers: Callers | None = None,
    startup: Step | None = None,
    shutdown: Step | None = None,
    default_deadline_s: float | None = None,
    metrics_http: bool = True,
    gate: grpc.aio.ServerInterceptor | None = None,
    max_streams: int | None = None,
) -> None:
    """Serve until this process is asked to stop, then drain.

    The server listens, says NOT_SERVING and announces STARTING first; then ``startup`` runs and ends with
    ``readiness.ready(...)``. ``shutdown`` runs after the drain. For the rest see :class:`ServiceHost`.

    Raises:
        HostError: the port is taken.
        StartupFailed: ``startup`` raised; what it raised is in the log and is the cause. The host is closed by then.
    """
    configure_logs(service, settings)
    end_telemetry = configure_telemetry(service, settings)
    host = ServiceHost(
        settings,
        service,
        register,
        readiness=readiness,
        load=load,
        announce=announce,
        callers=callers,
        default_deadline_s=default_deadline_s,
        metrics_http=metrics_http,
        gate=gate,
        max_streams=max_streams,
    )
    log = logs.get()
    try:
        with stop_signals() as asked_to_stop:
            async with host:
                log.info("service.listening", address=host.address, metrics=host.metrics_address)
                await _start_and_wait(startup, asked_to_stop, readiness)
            if shutdown is not None:
                await shutdown()
            log.info("service.stopped")
    finally:
        await asyncio.to_thread(end_telemetry)


def run_main(program: str, main: Coroutine[Any, Any, None]) -> int:
    """Run a service to its end and return the process' exit status; what stops it from starting is one line."""
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # of broken connections our own lines tell, as JSON
    try:
        uvloop.run(main)
    except (SettingsError, TlsError) as error:
        sys.stderr.write(f"{program}: {error}\n")
        return 2
    except (HostError, NotReachable, StartupFailed) as error:
        sys.stderr.write(f"{program}: {error}\n")
        return 1
    return 0


async def _start_and_wait(startup: Step | None, asked_to_stop: asyncio.Event, readiness: Readiness) -> None:
    stopping = asyncio.create_task(asked_to_stop.wait())
    forget = readiness.watch(_on_change())
    try:
        if startup is not None:
            starting = asyncio.ensure_future(startup())
            await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                _check(starting)
            else:
                starting.cancel()
                await asyncio.gather(starting, return_exceptions=True)
        await stopping
    finally:
        forget()
        stopping.cancel()


def _check(starting: "asyncio.Future[None]") -> None:
    error = starting.exception()
    if error is None:
        return
    logs.get().error("service.failed", exc_info=error)
    raise StartupFailed(str(error)) from error


def _on_change() -> Callable[[Condition], None]:
    states: list[State] = []

    def follow(condition: Condition) -> None:
        state = condition.state
        if state is State.READY and state not in states:
            keep_what_is_loaded()
        if states[-1:] != [state]:
            states.append(state)
            if state in (State.READY, State.STALLED):
                logs.get().info(f"service.{state.value}")

    return follow
