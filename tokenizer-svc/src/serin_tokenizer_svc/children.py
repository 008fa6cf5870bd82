"""A few small processes that do one kind of work, each killed and replaced when it takes too long.

Knows nothing about what they do: a job is a JSON value and so is its answer. A child is a program that reads frames
from standard input and answers each on standard output (``child.py``); it may be killed at any moment.
"""

import asyncio
import contextlib
import json
import struct
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from serin_tokenizer_svc.child import frame

START_TIMEOUT_S = 20.0
REPLY_LIMIT_BYTES = 256 << 20


class ChildrenBusy(Exception):
    """As many jobs wait as may wait, or the processes are being ended."""


class ChildStuck(Exception):
    """A job ran longer than it may; its process was killed."""


class ChildEnded(Exception):
    """A process ended in the middle of a job."""


@dataclass(frozen=True, slots=True)
class Program:
    """What the processes run.

    Attributes:
        module: a module to run with ``python -m``.
        setup: the first job of every process; its answer is given to ``started``.
        started: looks at that answer; what it raises means that no such process can be used.
    """

    module: str
    setup: dict[str, Any]
    started: Callable[[dict[str, Any]], None]


class Children:
    """A pool of processes; an asynchronous context manager.

    Args:
        program: what they run.
        num_processes: jobs that run at once.
        num_waiting: jobs that may wait for a process.
        timeout_s: wall-clock seconds of a job.
        on_demand: False keeps all of them running, from entry on; True starts one when there is a job for it.
    """

    def __init__(
        self, program: Program, *, num_processes: int, num_waiting: int, timeout_s: float, on_demand: bool = False
    ) -> None:
        self._program = program
        self._num_processes = num_processes
        self._max_waiting = num_waiting
        self._timeout_s = timeout_s
        self._on_demand = on_demand
        self._idle: asyncio.Queue[Child] = asyncio.Queue()
        self._processes: set[Child] = set()
        self._num_started = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False
        self.num_waiting = 0
        self.num_kills = 0

    async def __aenter__(self) -> Self:
        try:
            if not self._on_demand:
                for _ in range(self._num_processes):
                    await self._start_one()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def ask(self, job: bytes) -> dict[str, Any]:
        """The answer to a framed job.

        Raises:
            ChildStuck: it took too long.
            ChildEnded: its process died.
            ChildrenBusy: too many jobs wait already.
        """
        process = await self._lease()
        answered = False
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await process.ask(job)
            answered = True
            return answer
        except TimeoutError:
            raise ChildStuck(f"longer than {self._timeout_s:g} s") from None
        finally:
            # A cancelled caller leaves an answer nobody reads: that process cannot be used again either.
            if answered:
                self._idle.put_nowait(process)
            else:
                self._replace(process)

    async def _lease(self) -> "Child":
        if self._stopping:
            raise ChildrenBusy("the service is stopping")
        if self._idle.empty() and self.num_waiting >= self._max_waiting:
            raise ChildrenBusy(f"{self.num_waiting} wait already; try again")
        self.num_waiting += 1
        if self._on_demand and self._idle.empty() and self._num_started < self._num_processes:
            self._begin(self._start_again())
        try:
            return await self._idle.get()
        finally:
            self.num_waiting -= 1

    def _replace(self, process: "Child") -> None:
        if self._stopping:
            return
        self.num_kills += 1
        self._num_started -= 1
        self._begin(self._end_and_restart(process))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _end_and_restart(self, process: "Child") -> None:
        await self._end(process)
        await self._start_again()

    async def _start_again(self) -> None:
        delay_s = 0.1
        while self._num_started < self._num_processes and (self.num_waiting or not self._on_demand):
            try:
                await self._start_one()
            except Exception:  # noqa: BLE001 - the machine is short of something: go on trying
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, 5.0)
            else:
                break

    async def _start_one(self) -> None:
        self._num_started += 1
        try:
            process = await Child.start(self._program.module)
            self._processes.add(process)
            try:
                async with asyncio.timeout(START_TIMEOUT_S):
                    answer = await process.ask(frame(self._program.setup))
                self._program.started(answer)
            except BaseException:
                await self._end(process)
                raise
        except BaseException:
            self._num_started -= 1
            raise
        self._idle.put_nowait(process)

    async def _end(self, process: "Child") -> None:
        await process.end()
        self._processes.discard(process)

    async def _stop(self) -> None:
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(self._end(process) for process in self._processes))


class Child:
    """One process; answers one job at a time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._stdin, self._stdout = process.stdin, process.stdout
        self._at_rest = asyncio.Event()
        self._at_rest.set()
        self._ending: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, module: str) -> Self:
        """Start a process; it has nothing of this one's environment or open files."""
        command = [sys.executable, "-I", "-m", module]
        pipe = asyncio.subprocess.PIPE
        return cls(await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, env={"LC_ALL": "C.UTF-8"}))

    async def ask(self, job: bytes) -> dict[str, Any]:
        """Send a frame and wait for the answer.

        Raises:
            ChildEnded: there will be none.
        """
        self._at_rest.clear()
        try:
            self._stdin.write(job)
            await self._stdin.drain()
            (length,) = struct.unpack("<I", await self._stdout.readexactly(4))
            if length > REPLY_LIMIT_BYTES:
                raise ChildEnded
            answer: dict[str, Any] = json.loads(await self._stdout.readexactly(length))
        except (OSError, asyncio.IncompleteReadError) as error:
            raise ChildEnded from error
        finally:
            self._at_rest.set()
        return answer

    async def end(self) -> None:
        """Kill it, it has nothing to lose, and wait until it is gone and its pipes are closed."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        if self._ending is None:
            self._ending = asyncio.create_task(self._drain())
        await asyncio.shield(self._ending)

    async def _drain(self) -> None:
        await self._at_rest.wait()  # a job that is still asked sees the end by itself
        self._stdin.close()
        await self._process.communicate()
