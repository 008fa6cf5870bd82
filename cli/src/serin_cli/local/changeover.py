"""From the processes that run to those that should: nothing that serves stops before what replaces it serves.

A process whose settings change is the exception, since two of one name cannot be: it gets its old settings back if it
does not run with the new ones. Knows nothing about what the processes are for.
"""

from collections.abc import Callable, Iterable, Mapping

from serin_cli.local.board import Board, Phase
from serin_cli.local.fleet import Fleet
from serin_cli.local.process import ProcessSpec, Tier

CHANGING = (Tier.GATEWAY, Tier.WORKER, Tier.TOKENIZER, Tier.CACHE)
"""Processes that come and go with a configuration."""


class Changeover:
    """Carries out one change after the other.

    Args:
        say: told what could not be carried out; the board shows it until it could.
        is_outdated: whether there are newer wishes: the change then ends where it is.
    """

    def __init__(self, fleet: Fleet, board: Board, say: Callable[[str], None], is_outdated: Callable[[], bool]) -> None:
        self._fleet, self._board, self._say, self._is_outdated = fleet, board, say, is_outdated

    async def to(self, specs: Mapping[str, ProcessSpec]) -> None:
        """Make the running processes these; what does not come up replaces nothing."""
        await self._take_away_crashed(specs)
        added = [name for name in specs if name not in self._running()]
        for name in added:
            self._fleet.start(specs[name])
        if not await self._came_up([name for name in added if not specs[name].is_addition]):
            return
        await self._settled(added)
        for name, spec in specs.items():
            before = self._running().get(name)
            if before is not None and before != spec and not await self._replaced(before, spec):
                return
        if not self._is_outdated():
            self._board.trouble("")
            await self._fleet.stop([name for name in self._running() if name not in specs])

    def report(self, sentence: str) -> None:
        """Say that the configuration is not carried out, and why."""
        self._say(f"configuration not carried out: {sentence}")
        self._board.trouble(f"configuration not carried out: {sentence}")

    async def _take_away_crashed(self, specs: Mapping[str, ProcessSpec]) -> None:
        """What does not run anyway gives way at once."""
        await self._fleet.stop(
            [name for name, before in self._running().items() if self._has_crashed(name) and specs.get(name) != before]
        )

    async def _came_up(self, names: list[str]) -> bool:
        """Wait until new processes are ready, however often they crash; False: there are newer wishes."""
        await self._settled(names)
        if crashed := [name for name in names if self._has_crashed(name)]:
            stays = "what ran before stays until it does, or until another configuration is applied"
            self.report(f"{self._problems(crashed)}; {stays}")
        await self._board.until(lambda: self._is_outdated() or self._in(names, Phase.READY))
        return not self._is_outdated()

    async def _replaced(self, before: ProcessSpec, spec: ProcessSpec) -> bool:
        """Start a process again with other settings; False: it has its old ones back, or there are newer wishes."""
        if self._is_outdated():
            return False
        await self._start_again(spec)
        if not self._has_crashed(spec.name):
            return not self._is_outdated()
        problem = self._problems([spec.name])
        await self._start_again(before)
        self.report(f"{problem}; it runs with its old settings again")
        return False

    async def _start_again(self, spec: ProcessSpec) -> None:
        await self._fleet.stop([spec.name])
        self._fleet.start(spec)
        await self._settled([spec.name])

    async def _settled(self, names: Iterable[str]) -> None:
        """Wait until processes are ready or clearly are not, or until there are newer wishes."""
        names = list(names)
        await self._board.until(lambda: self._is_outdated() or self._in(names, Phase.READY, Phase.CRASHED))

    def _running(self) -> dict[str, ProcessSpec]:
        return {name: spec for name, spec in self._fleet.specs.items() if spec.tier in CHANGING}

    def _has_crashed(self, name: str) -> bool:
        return self._board.phase(name) is Phase.CRASHED

    def _in(self, names: Iterable[str], *phases: Phase) -> bool:
        return all(self._board.phase(name) in phases for name in names)

    def _problems(self, names: Iterable[str]) -> str:
        rows = [row for name in names if (row := self._board.row(name)) is not None]
        return "; ".join(f"{row.name} does not come up: {row.problem}" for row in rows)
