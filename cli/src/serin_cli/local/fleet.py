"""All processes of a mesh, by name: started together, stopped tier by tier.

Knows their order of stopping, nothing about why they run.
"""

import asyncio
from collections.abc import Iterable
from pathlib import Path

from serin_cli.local.board import Board
from serin_cli.local.guard import Guard
from serin_cli.local.process import Process, ProcessSpec, Tier


class Fleet:
    """The processes that run now."""

    def __init__(self, board: Board, guard: Guard, logs: Path) -> None:
        self._board, self._guard, self._logs = board, guard, logs
        self._processes: dict[str, Process] = {}

    @property
    def specs(self) -> dict[str, ProcessSpec]:
        """What runs, by name."""
        return {name: process.spec for name, process in self._processes.items()}

    def start(self, spec: ProcessSpec) -> None:
        """Start a process and keep it running."""
        assert spec.name not in self._processes, spec.name
        self._processes[spec.name] = Process(spec, self._board, self._guard, self._logs)

    def can_come_up(self) -> bool:
        """True while no process that a mesh needs has shown that it will not come up.

        Raises:
            StartRefused: what it said last, and where its log is.
        """
        for process in self._processes.values():
            if process.refusal is not None and not process.spec.is_addition:
                raise process.refusal
        return True

    async def stop(self, names: Iterable[str]) -> None:
        """Drain some processes side by side and take them off the board."""
        stopping = {name: self._processes[name] for name in names if name in self._processes}
        await asyncio.gather(*(process.stop() for process in stopping.values()))
        for name in stopping:
            self._processes.pop(name, None)
            self._board.remove(name)

    async def stop_all(self) -> None:
        """Drain everything in order: nobody loses what it still calls, and what crashes by now stays down."""
        for process in self._processes.values():
            process.retire()
        for tier in Tier:
            await self.stop([name for name, spec in self.specs.items() if spec.tier is tier])
