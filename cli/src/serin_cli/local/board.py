"""What is known about each process of the mesh, and who wants to hear of changes.

Knows nothing about where the news come from or how they are shown.
"""

import asyncio
import dataclasses
import enum
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass


class Phase(enum.StrEnum):
    """Where a process is in its life."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    CRASHED = "crashed"  # waits for its next start
    STOPPED = "stopped"


@dataclass(frozen=True)
class Row:
    """One process as the mesh's owner sees it."""

    name: str
    phase: Phase = Phase.STARTING
    activity: str = ""  # for STARTING: "loading weights"
    progress: float | None = None  # for STARTING: 0 to 1
    address: str = ""
    pid: int | None = None
    started_at: float = 0.0  # seconds since the epoch
    ready_at: float = 0.0  # the same; when it became READY last
    num_restarts: int = 0
    problem: str = ""  # for CRASHED: what it said last
    refusal: str = ""  # for STARTING: why the control plane does not believe that it is ready

    def describe(self) -> str:
        """What it does, in a few words."""
        if self.phase is Phase.CRASHED:
            return f"crashed: {self.problem}" if self.problem else "crashed"
        if self.phase is Phase.STARTING and self.refusal:
            return f"refused: {self.refusal}"
        if self.phase is Phase.STARTING and self.activity:
            return self.activity if self.progress is None else f"{self.activity} {self.progress:.0%}"
        return str(self.phase)


Listener = Callable[[Row, Row | None], None]
"""Called with a row as it is now and as it was; None: it is new."""


class Board:
    """The rows, in the order in which they appeared."""

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}
        self._listeners: list[Listener] = []
        self._alarms: tuple[str, ...] = ()
        self._trouble = ""
        self._alarm_listeners: list[Callable[[], None]] = []
        self._changed = asyncio.Event()

    @property
    def rows(self) -> list[Row]:
        """All rows as they are now."""
        return list(self._rows.values())

    @property
    def alarms(self) -> tuple[str, ...]:
        """What stands wrong with the mesh as a whole, a sentence each."""
        return (self._trouble, *self._alarms) if self._trouble else self._alarms

    def row(self, name: str) -> Row | None:
        """One process, if it is on the board."""
        return self._rows.get(name)

    def phase(self, name: str) -> Phase | None:
        """Where a process is in its life; None: it is not on the board."""
        row = self._rows.get(name)
        return None if row is None else row.phase

    def update(self, name: str, **changes: object) -> None:
        """Change what is known about a process, or put it on the board."""
        before = self._rows.get(name)
        after = dataclasses.replace(before or Row(name), **changes)  # type: ignore[arg-type]  # names are Row's fields
        if after == before:
            return
        if after.phase is Phase.READY and (before is None or before.phase is not Phase.READY):
            after = dataclasses.replace(after, ready_at=time.time())
        self._rows[name] = after
        for listener in self._listeners:
            listener(after, before)
        self._changed.set()

    def remove(self, name: str) -> None:
        """Take a process that is gone for good off the board."""
        if self._rows.pop(name, None) is not None:
            self._changed.set()

    def sound(self, alarms: Iterable[str]) -> None:
        """Let exactly these alarms of the control plane stand."""
        before, self._alarms = self._alarms, tuple(alarms)
        if self._alarms != before:
            self._alarms_changed()

    def trouble(self, sentence: str) -> None:
        """Say what of the configuration could not be carried out here; empty: all of it was."""
        before, self._trouble = self._trouble, sentence
        if sentence != before:
            self._alarms_changed()

    def listen_alarms(self, listener: Callable[[], None]) -> None:
        """Have a function called when other alarms stand than before."""
        self._alarm_listeners.append(listener)

    def listen(self, listener: Listener) -> None:
        """Have a function called at each change of a row, in the order of changes."""
        self._listeners.append(listener)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition on the rows holds; it is asked again after each change, and when asked to."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    def ask_again(self) -> None:
        """Have everybody who waits ask again: what changed is not on the board."""
        self._changed.set()

    def _alarms_changed(self) -> None:
        for listener in self._alarm_listeners:
            listener()
