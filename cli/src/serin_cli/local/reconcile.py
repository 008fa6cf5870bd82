"""Follows what is declared and added: finds what it needs, and has the processes changed to what it plans.

How a change goes is :mod:`.changeover`'s business; what a configuration needs is planned elsewhere.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from dataclasses import replace

from serin_control.config import MeshConfig, Release

from serin_cli.errors import CliError, StartRefused
from serin_cli.local.additions import Addition, Additions, AdditionsFile
from serin_cli.local.board import Board, Phase
from serin_cli.local.changeover import REFUSED_S, Changeover
from serin_cli.local.fleet import Fleet
from serin_cli.local.model_folder import ModelFolders, check_memory
from serin_cli.local.plan import Site, plan
from serin_cli.local.ports import PortClaims
from serin_cli.local.process import ProcessSpec, Tier
from serin_cli.local.releases import added_releases, declared_releases
from serin_cli.local.wish import Wish


class Reconciler:
    """Follows one configuration after the other; the newest wins, also in the middle of a change.

    Args:
        additions: where versions beside the declared ones are kept.
        folders: finds models.
    """

    def __init__(
        self,
        wish: Wish,
        site: Site,
        fleet: Fleet,
        board: Board,
        say: Callable[[str], None],
        *,
        additions: AdditionsFile,
        folders: ModelFolders,
    ) -> None:
        self.site = site
        self._wish, self._fleet, self._board, self._say = wish, fleet, board, say
        self._file, self._folders = additions, folders
        self._ports = PortClaims()
        self._newest: MeshConfig | None = None
        self._additions = Additions()  # as they are carried out
        self._news = asyncio.Event()
        self._changeover = Changeover(fleet, board, say, self._news.is_set)

    def claim(self, flag: str, port: int) -> int:
        """A port for something else of the mesh; see :meth:`PortClaims.claim`."""
        return self._ports.claim(flag, port)

    async def prepare(self, config: MeshConfig, additions: Additions) -> None:
        """Find models, memory and ports for what is declared, before anything is started for it.

        Raises:
            CliError: one of them is not to be had.
        """
        releases = [release for _, release in declared_releases(config, additions)]
        for release in releases:
            await self._fetch(release)
        running = sum(spec.tier is Tier.WORKER and not spec.is_addition for spec in self._fleet.specs.values())
        needed = [self._folders.folder(release.path) for release in releases for _ in range(release.workers)]
        check_memory(needed[running:])
        http, grpc = self._wish.ports(config)
        self.site = replace(
            self.site, http_port=self._ports.claim("--port", http), grpc_port=self._ports.claim("--grpc-port", grpc)
        )

    async def begin(self, config: MeshConfig) -> None:
        """Start everything that is declared and added and wait until it is ready.

        An added version that does not come up is no reason not to serve; one whose files are wrong is.

        Raises:
            CliError: something is missing, a process will not come up, or the control plane refuses it for good.
        """
        self._newest = config
        additions = self._file.read()
        await self.prepare(config, additions)
        await self.find_added(addition for _, _, addition in added_releases(config, additions))
        self._additions = additions
        specs = self._plan(config, additions)
        for spec in specs.values():
            self._fleet.start(spec)
        needed = [name for name, spec in specs.items() if not spec.is_addition]
        await self._come_up(needed)
        await self._board.until(lambda: all(self._is_clear(name) for name in specs))

    async def find_added(self, additions: Iterable[Addition]) -> None:
        """Find the models of added versions.

        Raises:
            StartRefused: one is not to be had; says how to start without it.
        """
        for addition in additions:
            try:
                if addition.path:
                    await asyncio.to_thread(self._folders.fetch, addition.path)
            except CliError as error:
                remedy = f"`serin remove {addition.which.arguments}` takes it away"
                raise StartRefused(f"{addition.which}, which was added here: {error}; {remedy}") from error

    def declare(self, config: MeshConfig) -> None:
        """Have another configuration carried out by :meth:`run`."""
        self._newest = config
        self.look_again()

    def look_again(self) -> None:
        """Have :meth:`run` look what was added or taken away."""
        self._news.set()
        self._board.ask_again()  # a change that waits for a process ends: there are newer wishes

    async def run(self) -> None:
        """Carry out configurations and additions as they come, until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            config = self._newest
            assert config is not None
            try:
                wanted = self._file.read()
                await self.prepare(config, wanted)
            except CliError as error:
                self._changeover.report(str(error))
                continue
            self._additions = await self._possible(config, wanted)
            await self._changeover.to(self._plan(config, self._additions))

    async def _possible(self, config: MeshConfig, wanted: Additions) -> Additions:
        """What can be had of the additions; what cannot stays as it is, and that is said."""
        possible = wanted
        for _, release, addition in added_releases(config, wanted):
            try:
                await self._fetch(release)
                names = [f"{addition.which.prefix}.{index}" for index in range(release.workers)]
                missing = [name for name in names if name not in self._fleet.specs]
                check_memory([self._folders.folder(release.path)] * len(missing))
            except CliError as error:
                self._say(f"{addition.which} not started: {error}")
                running = self._additions.find(addition.which)
                possible = possible.with_added(running) if running else possible.without(addition.which)
        return possible

    async def _fetch(self, release: Release) -> None:
        await asyncio.to_thread(self._folders.fetch, release.path)

    async def _come_up(self, names: list[str]) -> None:
        """Wait until these are ready; a refusal passes by itself at first, while old leases end."""
        while not self._in(names, Phase.READY):
            await self._board.until(
                lambda: self._fleet.can_come_up() and (self._in(names, Phase.READY) or bool(self._refused(names)))
            )
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REFUSED_S):
                    await self._board.until(lambda: self._fleet.can_come_up() and not self._refused(names))
            if refused := self._refused(names):
                raise StartRefused(refused[0])

    def _refused(self, names: Iterable[str]) -> list[str]:
        """What the control plane says of those that it does not believe."""
        rows = (self._board.row(name) for name in names)
        return [row.refusal for row in rows if row is not None and row.phase is Phase.STARTING and row.refusal]

    def _is_clear(self, name: str) -> bool:
        """Whether it is known how a start went, for the time being."""
        row = self._board.row(name)
        return row is not None and (row.phase in (Phase.READY, Phase.CRASHED) or bool(row.refusal))

    def _in(self, names: Iterable[str], *phases: Phase) -> bool:
        return all(self._board.phase(name) in phases for name in names)

    def _plan(self, config: MeshConfig, additions: Additions) -> dict[str, ProcessSpec]:
        return plan(config, self.site, self._folders.folder, additions, self._folders.check)
