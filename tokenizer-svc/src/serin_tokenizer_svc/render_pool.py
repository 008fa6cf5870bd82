"""A few small processes that render chat templates, each killed and replaced when it takes too long.

Knows nothing about what is rendered: a job is a template's name and its variables, the result is text.
"""

import asyncio
import contextlib
import json
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from serin_tokenizer_svc.errors import FolderRefused, RenderBusy, TemplateLimit, TemplateRejected
from serin_tokenizer_svc.render_child import frame

START_TIMEOUT_S = 20.0
REPLY_LIMIT_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class RenderLimits:
    """What one rendering may use.

    Attributes:
        timeout_s: wall-clock seconds.
        output_chars: characters written.
        memory_bytes: address space of a render process.
        num_processes: renderings that run at once.
        num_waiting: renderings that may wait for a process.
    """

    timeout_s: float = 1.0
    output_chars: int = 8 << 20
    memory_bytes: int = 512 << 20
    num_processes: int = 2
    num_waiting: int = 256


@dataclass(frozen=True, slots=True)
class TemplateFacts:
    """What a compiled template says of itself: variables it reads, literal strings in it."""

    variables: frozenset[str]
    literals: tuple[str, ...]


class RenderPool:
    """Renders templates in processes of its own; an asynchronous context manager.

    Raises:
        FolderRefused: on entry, when a template does not compile.
    """

    def __init__(self, templates: Mapping[str, str], limits: RenderLimits) -> None:
        self._setup = {
            "templates": dict(templates),
            "memory_bytes": limits.memory_bytes,
            "alarm_s": 2 * limits.timeout_s + 1,
        }
        self._limits = limits
        self._idle: asyncio.Queue[RenderProcess] = asyncio.Queue()
        self._processes: set[RenderProcess] = set()
        self._restarts: set[asyncio.Task[None]] = set()
        self.num_waiting = 0
        self._stopping = False
        self.num_kills = 0
        self.facts: Mapping[str, TemplateFacts] = {}

    async def __aenter__(self) -> Self:
        try:
            for _ in range(self._limits.num_processes):
                await self._start_one()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def render(self, template: str, variables: Mapping[str, Any], continue_tag: str | None = None) -> str:
        """Render one conversation.

        Raises:
            TemplateRejected: the template refuses or fails.
            TemplateLimit: it took too long, wrote too much or needed too much memory.
            RenderBusy: too many renderings wait already.
        """
        job = frame(
            {
                "template": template,
                "variables": variables,
                "output_limit": self._limits.output_chars,
                "continue_tag": continue_tag,
            }
        )
        try:
            answer = await self._ask(job)
        except ProcessEnded:  # perhaps not for this job: the machine may have been short of memory
            try:
                answer = await self._ask(job)
            except ProcessEnded:
                raise TemplateLimit(
                    "the chat template's process died twice; it probably needs too much memory"
                ) from None
        if "text" in answer:
            text: str = answer["text"]
            return text
        if "limit" in answer:
            raise TemplateLimit(answer["limit"])
        raise TemplateRejected(answer["refused"])

    async def _ask(self, job: bytes) -> dict[str, Any]:
        process = await self._lease()
        answered = False
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                answer = await process.ask(job)
            answered = True
            return answer
        except TimeoutError:
            raise TemplateLimit(f"the chat template ran longer than {self._limits.timeout_s:g} s") from None
        finally:
            # A cancelled caller leaves an answer nobody reads: that process cannot be used again either.
            if answered:
                self._idle.put_nowait(process)
            else:
                self._replace(process)

    async def _lease(self) -> "RenderProcess":
        if self._stopping:
            raise RenderBusy("the service is stopping")
        if self._idle.empty() and self.num_waiting >= self._limits.num_waiting:
            raise RenderBusy(f"{self.num_waiting} conversations wait to be rendered; try again")
        self.num_waiting += 1
        try:
            return await self._idle.get()
        finally:
            self.num_waiting -= 1

    def _replace(self, process: "RenderProcess") -> None:
        if self._stopping:
            return
        self.num_kills += 1
        task = asyncio.create_task(self._restart(process))
        self._restarts.add(task)
        task.add_done_callback(self._restarts.discard)

    async def _restart(self, process: "RenderProcess") -> None:
        await self._end(process)
        delay_s = 0.1
        while True:
            try:
                return await self._start_one()
            except (OSError, FolderRefused):  # the machine is short of something: go on trying
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, 5.0)

    async def _start_one(self) -> None:
        process = await RenderProcess.start()
        self._processes.add(process)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                answer = await process.ask(frame(self._setup))
        except (TimeoutError, ProcessEnded) as error:
            await self._end(process)
            raise FolderRefused(
                f"the process that compiles the chat template did not start: {type(error).__name__}"
            ) from error
        if "broken" in answer:
            raise FolderRefused(f"chat template {answer['broken']!r}: {answer['error']}")
        self.facts = {
            name: TemplateFacts(frozenset(facts["variables"]), tuple(facts["literals"]))
            for name, facts in answer["templates"].items()
        }
        self._idle.put_nowait(process)

    async def _end(self, process: "RenderProcess") -> None:
        await process.end()
        self._processes.discard(process)

    async def _stop(self) -> None:
        self._stopping = True
        for task in self._restarts:
            task.cancel()
        await asyncio.gather(*self._restarts, return_exceptions=True)
        await asyncio.gather(*(self._end(process) for process in self._processes))


class ProcessEnded(Exception):
    """A render process ended in the middle of a job."""


class RenderProcess:
    """One render process; answers one job at a time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._stdin, self._stdout = process.stdin, process.stdout
        self._at_rest = asyncio.Event()
        self._at_rest.set()
        self._ending: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls) -> Self:
        """Start a process; it has nothing of this one's environment or open files."""
        command = [sys.executable, "-I", "-m", "serin_tokenizer_svc.render_child"]
        pipe = asyncio.subprocess.PIPE
        return cls(await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, env={"LC_ALL": "C.UTF-8"}))

    async def ask(self, job: bytes) -> dict[str, Any]:
        """Send a frame and wait for the answer.

        Raises:
            ProcessEnded: there will be none.
        """
        self._at_rest.clear()
        try:
            self._stdin.write(job)
            await self._stdin.drain()
            (length,) = struct.unpack("<I", await self._stdout.readexactly(4))
            if length > REPLY_LIMIT_BYTES:
                raise ProcessEnded
            answer: dict[str, Any] = json.loads(await self._stdout.readexactly(length))
        except (OSError, asyncio.IncompleteReadError) as error:
            raise ProcessEnded from error
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
