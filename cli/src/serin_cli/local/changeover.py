"""From the processes that run to those that should: nothing that serves stops before what replaces it serves.

With two exceptions. Two of one name cannot be: a process whose settings change gets its old ones back if it does not
run with the new ones. And siblings that differ cannot be: what is refused beside siblings that this change replaces or
takes away has come as far as it can before they stop, and serves once the last of them has. Knows nothing about what
the processes are for.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping

from serin_cli.local.board import Board, Phase, Row
from serin_cli.local.fleet import Fleet
from serin_cli.local.process import ProcessSpec, Tier

CHANGING = (Tier.GATEWAY, Tier.WORKER, Tier.TOKENIZER, Tier.CACHE)
"""Processes that come and go with a configuration."""
SLOW_S = 300.0  # a start that takes longer is said; it goes on
REFUSED_S = 10.0  # a refusal that stands for so long will not pass by itself: leases last 3 s, pauses between tries 2 s

_KNOWN = (Phase.READY, Phase.CRASHED)
Specs = Mapping[str, ProcessSpec]


class Changeover:
    """Carries out one change after the other.

    Args:
        say: told what could not be carried out; the board shows it until it could.
        is_outdated: whether there are newer wishes: the change then ends where it is. Who makes it true lets the board
            be asked again.
    """

    def __init__(self, fleet: Fleet, board: Board, say: Callable[[str], None], is_outdated: Callable[[], bool]) -> None:
        self._fleet, self._board, self._say, self._is_outdated = fleet, board, say, is_outdated

    async def to(self, specs: Specs) -> None:
        """Make the running processes these; what does not come up replaces nothing."""
        await self._take_away_useless(specs)
        added = [name for name in specs if name not in self._running()]
        for name in added:
            self._fleet.start(specs[name])
        needed = [name for name in added if not specs[name].is_addition]
        if not await self._came_up(needed, specs):
            return
        await self._settled(added, specs)
        changed = [name for name, before in self._running().items() if name in specs and specs[name] != before]
        if not await self._replaced(changed, specs):
            return
        needed += [name for name in changed if not specs[name].is_addition]
        await self._make_way(needed, specs)
        if await self._came_up(needed, specs):
            self._board.trouble("")
            await self._fleet.stop([name for name in self._running() if name not in specs])

    def report(self, sentence: str) -> None:
        """Say that the configuration is not carried out, and why."""
        self._say(f"configuration not carried out: {sentence}")
        self._board.trouble(f"configuration not carried out: {sentence}")

    async def _take_away_useless(self, specs: Specs) -> None:
        """What crashed, is refused or never served gives way at once."""
        await self._fleet.stop(
            [name for name, before in self._running().items() if self._is_useless(name) and specs.get(name) != before]
        )

    async def _came_up(self, names: list[str], specs: Specs) -> bool:
        """Wait until new processes have come up, however often they crash; False: there are newer wishes."""
        await self._settled(names, specs)
        if self._is_outdated():
            return False
        if missing := [name for name in names if not self._has_come(name, specs)]:
            stays = "what ran before stays until it does, or until another configuration is applied"
            self.report(f"{self._problems(missing)}; {stays}")
        await self._board.until(lambda: self._is_outdated() or all(self._has_come(name, specs) for name in names))
        return not self._is_outdated()

    async def _replaced(self, names: list[str], specs: Specs) -> bool:
        """Start processes again with other settings, one after the other; False: not all of them run with these."""
        before = self._running()
        for position, name in enumerate(names):
            if self._is_outdated():
                return False
            await self._start_again([specs[name]], specs)
            if self._is_outdated():
                return False
            if not self._has_come(name, specs):
                runs_again = await self._taken_back([before[other] for other in names[: position + 1]], specs)
                if runs_again or self._is_outdated():
                    return False
        return True

    async def _taken_back(self, replaced: list[ProcessSpec], specs: Specs) -> bool:
        """Give the last one its old settings back, and with it the siblings that are refused for having new ones.

        False: it keeps the new ones, since it would be refused with its old ones: nobody else has them any more.
        """
        *others, failed = replaced
        problem = self._problems([failed.name])
        siblings = [spec for spec in others if spec.cluster == failed.cluster and self._is_refused(spec.name)]
        await self._start_again([failed, *siblings], specs)
        if self._is_outdated():
            return False
        if self._is_refused(failed.name):
            await self._start_again([specs[failed.name]], specs)
            return False
        self.report(f"{problem}; it runs with its old settings again")
        return True

    async def _make_way(self, names: list[str], specs: Specs) -> None:
        """Take away what goes anyway where new siblings are refused beside it."""
        clusters = {specs[name].cluster for name in names if self._awaits_siblings(name, specs)}
        going = [name for name, spec in self._running().items() if name not in specs and spec.cluster in clusters]
        if not self._is_outdated():
            await self._fleet.stop(going)

    async def _start_again(self, wanted: list[ProcessSpec], specs: Specs) -> None:
        await self._fleet.stop([spec.name for spec in wanted])
        for spec in wanted:
            self._fleet.start(spec)
        await self._settled([spec.name for spec in wanted], specs)

    async def _settled(self, names: Iterable[str], specs: Specs) -> None:
        """Wait until processes have come up or clearly do not, or until there are newer wishes."""
        names = list(names)

        def clear() -> bool:
            return self._is_outdated() or all(self._has_crashed(n) or self._has_come(n, specs) for n in names)

        def clear_but_for_refusals() -> bool:
            return self._is_outdated() or all(self._is_refused(n) or self._in([n], *_KNOWN) for n in names)

        slow = asyncio.get_running_loop().call_later(SLOW_S, self._say_slow, names)
        try:
            while not clear():
                await self._board.until(clear_but_for_refusals)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(REFUSED_S):
                        await self._board.until(clear)
                if clear_but_for_refusals():
                    return
        finally:
            slow.cancel()

    def _say_slow(self, names: list[str]) -> None:
        slow = [name for name in names if not self._in([name], *_KNOWN) and not self._is_refused(name)]
        if slow:
            self.report(f"{self._problems(slow)}; it goes on starting, and what ran before stays")

    def _has_come(self, name: str, specs: Specs) -> bool:
        """Whether it is as far as it can come while its siblings are what they are."""
        return self._in([name], Phase.READY) or self._awaits_siblings(name, specs)

    def _awaits_siblings(self, name: str, specs: Specs) -> bool:
        """Whether it is refused beside siblings that this change replaces or takes away."""
        running = self._running()
        mine = running.get(name)
        if mine is None or not mine.cluster or not self._is_refused(name):
            return False
        return any(
            spec.cluster == mine.cluster and specs.get(other) != spec
            for other, spec in running.items()
            if other != name and self._in([other], Phase.READY, Phase.DRAINING)
        )

    def _is_useless(self, name: str) -> bool:
        row = self._board.row(name)
        never_served = row is None or (row.phase is Phase.STARTING and not row.ready_at)
        return never_served or self._has_crashed(name) or self._is_refused(name)

    def _is_refused(self, name: str) -> bool:
        row = self._board.row(name)
        return row is not None and row.phase is Phase.STARTING and bool(row.refusal)

    def _running(self) -> dict[str, ProcessSpec]:
        return {name: spec for name, spec in self._fleet.specs.items() if spec.tier in CHANGING}

    def _has_crashed(self, name: str) -> bool:
        return self._board.phase(name) is Phase.CRASHED

    def _in(self, names: Iterable[str], *phases: Phase) -> bool:
        return all(self._board.phase(name) in phases for name in names)

    def _problems(self, names: Iterable[str]) -> str:
        rows = [self._board.row(name) or Row(name) for name in names]  # the board knows none that is still being made
        return "; ".join(
            f"{row.name} does not come up: {row.problem}"
            if row.phase is Phase.CRASHED
            else f"{row.name} is not ready: {row.describe()}"
            for row in rows
        )
