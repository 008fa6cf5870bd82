"""Caller processes of `xds:///worker.small`: who answers, since when, and what failed.

Each process writes a line for every change of what it sees; nothing is asked of it while it calls. Knows nothing about
what is changed.

    python tests/bench/control_callers.py CONTROL CALLS_A_SECOND     (one caller)
"""

import asyncio
import json
import sys
import time
from pathlib import Path
from types import TracebackType

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.leash import leashed
from serin_mesh.channels import connect, use_control_plane
from serin_mesh.errors import MeshError
from serin_mesh.settings import ServiceSettings

REPORT_S = 0.2


class Callers:
    """The processes, read side by side."""

    def __init__(self, control: str, number: int, rate: float) -> None:
        self._command = leashed([sys.executable, __file__, control, str(rate)])
        self._number = number
        self._processes: list[asyncio.subprocess.Process] = []
        self._readers: list[asyncio.Task[None]] = []
        self._latest: dict[int, dict] = {}
        self._changed = asyncio.Event()

    async def __aenter__(self) -> "Callers":
        for index in range(self._number):
            process = await asyncio.create_subprocess_exec(*self._command, stdout=asyncio.subprocess.PIPE)
            self._processes.append(process)
            self._readers.append(asyncio.create_task(self._read(index, process)))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.terminate()
        await asyncio.gather(*(process.wait() for process in self._processes))
        await asyncio.gather(*self._readers)

    async def seen(self) -> set[str]:
        """Who answered each caller last, all of them; empty while one has had no answer."""
        if len(self._latest) < self._number:
            return set()
        return {said["last"] for said in self._latest.values()}

    def first_answers(self, name: str) -> "asyncio.Future[list[float]]":
        """When each caller was first answered by ``name`` from now on, in seconds of the monotonic clock."""
        return asyncio.ensure_future(self._first_answers(name, time.monotonic()))

    async def totals(self) -> dict:
        """Calls, failures, errors and the longest call of all callers so far, after their next reports."""
        asked = time.monotonic()
        await self._until(lambda: all(said["at"] > asked for said in self._latest.values()))
        errors: dict[str, int] = {}
        for said in self._latest.values():
            for error, count in said["errors"].items():
                errors[error] = errors.get(error, 0) + count
        return {
            "calls": sum(said["calls"] for said in self._latest.values()),
            "failed": sum(said["failed"] for said in self._latest.values()),
            "longest_s": max(said["longest_s"] for said in self._latest.values()),
            "errors": errors,
        }

    async def _first_answers(self, name: str, since: float) -> list[float]:
        def answered(said: dict) -> bool:
            return said["last"] == name and said["since"] > since

        await self._until(lambda: all(answered(said) for said in self._latest.values()))
        return [said["since"] for said in self._latest.values()]

    async def _until(self, holds) -> None:
        while not (len(self._latest) == self._number and holds()):
            self._changed.clear()
            await self._changed.wait()

    async def _read(self, index: int, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            self._latest[index] = json.loads(line)
            self._changed.set()


async def call_for_ever(control: str, rate: float) -> None:
    """Call at a rate and write what is seen, at each change and from time to time."""
    settings = ServiceSettings(control=control, instance="bench-caller")
    use_control_plane(settings)
    say = connect("xds:///worker.small", settings, echo_lane=False).unary_unary("/echo.Echo/Say")
    last, since, calls, failed, longest_s, reported = "", 0.0, 0, 0, 0.0, 0.0
    errors: dict[str, int] = {}
    ready = False
    while True:
        begun = time.monotonic()
        news, was_ready = begun - reported > REPORT_S, ready
        try:
            name = (await say(b"", timeout=10)).decode()
            ready = True
            if name != last:
                last, since, news = name, time.monotonic(), True
        except MeshError as error:
            if ready:  # before the first answer the mesh was not there
                failed += 1
                said = f"{error.reason}: {error.message}"[:120]
                errors[said] = errors.get(said, 0) + 1
        now = time.monotonic()
        if was_ready:
            calls, longest_s = calls + 1, max(longest_s, now - begun)
        if news and last:
            reported = now
            said = {"last": last, "since": since, "calls": calls, "failed": failed, "longest_s": longest_s}
            sys.stdout.write(json.dumps({**said, "errors": errors, "at": now}) + "\n")
            sys.stdout.flush()
        await asyncio.sleep(max(0.0, 1 / rate - (now - begun)))


if __name__ == "__main__":
    asyncio.run(call_for_ever(sys.argv[1], float(sys.argv[2])))
