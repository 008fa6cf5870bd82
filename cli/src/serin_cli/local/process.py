"""One process of the mesh: started, its output kept, started again when it crashes, stopped in order.

Knows nothing about which services there are.
"""

import asyncio
import contextlib
import enum
import os
import random
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from serin_cli.errors import CliError, StartRefused
from serin_cli.local.board import Board, Phase, Row
from serin_cli.local.guard import Guard
from serin_cli.local.journal import Journal

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0
STEADY_S = 10.0  # ready for so long, a crash counts as the first again
NUM_ATTEMPTS = 3  # starts of a process that never got ready, before a starting mesh gives up
USAGE_EXIT = 2  # a refused setting: trying again cannot help
READ_BYTES = 64 * 1024
PUMP_GRACE_S = 2.0  # from the end of a process to the end of its output


def _nothing() -> None:
    """What it reads is its own business."""


class Tier(enum.IntEnum):
    """The order in which processes stop."""

    GATEWAY = 0
    EDGE = 1
    WORKER = 2
    TOKENIZER = 3
    CACHE = 4
    CONTROL = 5
    STORE = 6


@dataclass(frozen=True)
class ProcessSpec:
    """What to run. A process need not start again for a spec that equals its own; the environment does not count."""

    name: str
    tier: Tier
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict, compare=False)
    grace_s: float = 25.0  # from SIGTERM to SIGKILL
    is_addition: bool = field(default=False, compare=False)  # a mesh comes up without it
    cluster: str = field(default="", compare=False)  # its siblings: who differs from them is refused; empty: none
    check: Callable[[], None] = field(default=_nothing, compare=False)  # before each start; CliError: it must not start


class Process:
    """Runs one spec until it is stopped."""

    def __init__(self, spec: ProcessSpec, board: Board, guard: Guard, logs: Path) -> None:
        self.spec = spec
        self.refusal: StartRefused | None = None  # why it will not start, once that is clear
        self._board = board
        self._guard = guard
        self._journal = Journal(logs / f"{spec.name}.log")
        self._child: asyncio.subprocess.Process | None = None
        self._retired = asyncio.Event()  # it is not started again
        self._stopping = False
        self._was_ready = False
        self._task = asyncio.create_task(self._keep_running(), name=f"process {spec.name}")

    def retire(self) -> None:
        """Do not start it again, whatever happens to it."""
        self._retired.set()

    async def stop(self) -> None:
        """Ask it to drain, wait, kill it if its grace is over. Calling again changes nothing."""
        self.retire()
        if not self._stopping:
            self._stopping = True
            self._board.update(self.spec.name, phase=Phase.DRAINING)
            self._signal(signal.SIGTERM)
        done, _ = await asyncio.wait({self._task}, timeout=self.spec.grace_s)
        if not done:
            self._signal(signal.SIGKILL)
        await self._task
        self._board.update(self.spec.name, phase=Phase.STOPPED, pid=None)

    async def _keep_running(self) -> None:
        num_failures = 0
        while not self._retired.is_set():
            wrong = ""
            try:
                await asyncio.to_thread(self.spec.check)
                if self._retired.is_set():
                    return
                code = await self._run_once()
            except CliError as error:
                wrong, code = str(error), 1
                self._journal.write(f"not started: {wrong}\n".encode())
            except OSError as error:  # no process could be made
                self._journal.write(f"cannot be started: {error}\n".encode())
                code = 1
            if self._retired.is_set():
                return
            row = self._board.row(self.spec.name)
            self._was_ready = self._was_ready or (row is not None and row.phase is Phase.READY)
            num_failures = 1 if is_steady(row, time.time()) else num_failures + 1
            self._crashed(code, num_failures, wrong)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._retired.wait(), backoff_s(num_failures))

    async def _run_once(self) -> int:
        name = self.spec.name
        row = self._board.row(name)
        num_restarts = 0 if row is None else row.num_restarts + 1
        self._journal.begin()
        read_end, write_end = os.pipe()
        try:
            child = await asyncio.create_subprocess_exec(
                *self._guard.leashed(list(self.spec.command)),
                env={**os.environ, **self.spec.environment},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=write_end,
                stderr=write_end,
                start_new_session=True,
            )
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        self._guard.watch(child.pid)
        self._child = child
        self._board.update(
            name,
            phase=Phase.STARTING,
            activity="",
            progress=None,
            pid=child.pid,
            started_at=time.time(),
            num_restarts=num_restarts,
            problem="",
            refusal="",
        )
        if self._stopping:  # stopped while it was being made
            self._signal(signal.SIGTERM)
        pump = asyncio.create_task(self._pump(read_end), name=f"output of {name}")
        code = await child.wait()
        self._guard.release(child.pid)  # nothing of its group holds the pipe any more
        self._child = None
        done, _ = await asyncio.wait({pump}, timeout=PUMP_GRACE_S)
        if not done:  # somebody left the group and holds the pipe
            pump.cancel()
            await asyncio.wait({pump})
        return code

    async def _pump(self, read_end: int) -> None:
        reader = asyncio.StreamReader(limit=READ_BYTES)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_end, "rb", buffering=0)
        )
        try:
            while data := await reader.read(READ_BYTES):
                self._journal.write(data)
        finally:
            transport.close()

    def _crashed(self, code: int, num_failures: int, wrong: str) -> None:
        problem = f"not started: {wrong}" if wrong else self._journal.complaint() or _ending(code)
        if code == -signal.SIGKILL:
            problem = "killed, by hand or by the system for want of memory (then: a smaller model, fewer workers)"
        if not self._was_ready and (code == USAGE_EXIT or num_failures >= NUM_ATTEMPTS):
            times = "" if num_failures == 1 else f" {num_failures} times"
            self.refusal = StartRefused(
                f"{self.spec.name} stopped{times} while starting: {problem} (log: {self._journal.path})",
                blames_setting=code == USAGE_EXIT,
            )
        self._board.update(self.spec.name, phase=Phase.CRASHED, problem=problem, refusal="", pid=None)

    def _signal(self, number: int) -> None:
        child = self._child
        if child is None or child.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                os.killpg(child.pid, number)
            else:
                child.send_signal(number)


def is_steady(row: Row | None, now: float) -> bool:
    """Whether a process has been ready for so long that a crash is news rather than one more failed start."""
    return row is not None and row.phase is Phase.READY and now - row.ready_at > STEADY_S


def backoff_s(num_failures: int) -> float:
    """How long to wait before the next start: doubling, bounded, spread by a fifth."""
    delay = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(num_failures - 1, 10))
    return delay * random.uniform(0.8, 1.2)


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}, nothing said"
    try:
        return f"ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"ended by signal {-code}"
