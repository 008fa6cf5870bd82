"""Runs a local mesh in the foreground: from the lock on its state directory to the last process's end.

Knows signals and the order of opening and closing, nothing about services.
"""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable

from serin_cli.local.board import Board
from serin_cli.local.display import Display, seconds_since
from serin_cli.local.fleet import Fleet
from serin_cli.local.guard import Guard
from serin_cli.local.mesh import LocalMesh
from serin_cli.local.recorder import Recorder
from serin_cli.local.wish import Wish
from serin_cli.state_dir import StateDir

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Guest = Callable[[LocalMesh, Display], Awaitable[None]]
"""What to do while the mesh is up; when it returns, the mesh is stopped."""


async def run_mesh(wish: Wish, state: StateDir, lock: int, guest: Guest | None = None) -> None:
    """Bring a mesh up, stay until a signal (or the guest's end), drain it.

    Raises:
        CliError: the mesh could not start, or could not go on.
    """
    board, guard = Board(), Guard(lock)
    display = Display(board)
    fleet = Fleet(board, guard, state.logs)
    mesh = LocalMesh(wish, state, board, fleet, display.say)
    recorder = Recorder(state, board, lambda: mesh.site)
    stop = _stop_on_signal(display)
    try:
        recorder.enter("starting")
        await _until_stopped(_live(mesh, state, display, recorder, guest), stop)
    finally:
        recorder.enter("draining")
        await mesh.stop()
        guard.close()
        recorder.close()


async def _live(mesh: LocalMesh, state: StateDir, display: Display, recorder: Recorder, guest: Guest | None) -> None:
    begun = time.monotonic()
    with display:
        await mesh.start()
    recorder.enter("ready")
    if guest is not None:
        await guest(mesh, display)
        return
    edge = f"   edge: {mesh.site.edge.url}/v1" if mesh.site.edge is not None else ""
    display.say(f"ready after {seconds_since(begun)}: http://127.0.0.1:{mesh.site.http_port}/v1{edge}")
    env, chat = state.command("serin env"), state.command("serin chat")
    display.say(f'  eval "$({env})"   for an SDK in this shell      {chat}   to talk to it')
    await mesh.follow()


async def _until_stopped(work: Awaitable[None], stop: asyncio.Event) -> None:
    """Do the work until it ends or a stop is asked for, whichever is first."""
    working, stopped = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        for task in (working, stopped):
            task.cancel()
        await asyncio.gather(working, stopped, return_exceptions=True)


def _stop_on_signal(display: Display) -> asyncio.Event:
    """An event that the first signal sets; further ones change nothing."""
    stop = asyncio.Event()

    def asked() -> None:
        if not stop.is_set():
            stop.set()
            display.say("draining: running answers are finished, then everything stops")

    for number in STOP_SIGNALS:
        if number != signal.SIGTERM and signal.getsignal(number) is signal.SIG_IGN:
            continue  # whoever started us (nohup, a background job of a shell) keeps it from us
        asyncio.get_running_loop().add_signal_handler(number, asked)
    return stop
