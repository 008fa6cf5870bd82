"""Makes the processes what the configuration declares: starts what is new, then drains what is gone.

Knows no order between services beyond that; what a configuration needs is planned elsewhere.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace

from serin_control.config import MeshConfig

from serin_cli.errors import CliError
from serin_cli.local.board import Board, Phase
from serin_cli.local.fleet import Fleet
from serin_cli.local.model_folder import ModelFolders, check_memory
from serin_cli.local.plan import Site, plan
from serin_cli.local.ports import PortClaims
from serin_cli.local.process import ProcessSpec, Tier
from serin_cli.local.wish import Wish

DECLARED_TIERS = (Tier.GATEWAY, Tier.WORKER, Tier.TOKENIZER, Tier.CACHE)


class Reconciler:
    """Follows one configuration after the other; the newest wins, also in the middle of a change."""

    def __init__(self, wish: Wish, site: Site, fleet: Fleet, board: Board, say: Callable[[str], None]) -> None:
        self.site = site
        self._wish, self._fleet, self._board, self._say = wish, fleet, board, say
        self._folders = ModelFolders()
        self._ports = PortClaims()
        self._newest: MeshConfig | None = None
        self._news = asyncio.Event()

    def claim(self, flag: str, port: int) -> int:
        """A port for something else of the mesh; see :meth:`PortClaims.claim`."""
        return self._ports.claim(flag, port)

    async def prepare(self, config: MeshConfig) -> None:
        """Find models, memory and ports for a configuration, before anything is started for it.

        Raises:
            CliError: one of them is not to be had.
        """
        releases = [release for model in config.models.values() for release in model.releases()]
        for release in releases:
            await asyncio.to_thread(self._folders.fetch, release.path)
        running = sum(spec.tier is Tier.WORKER for spec in self._fleet.specs.values())
        needed = [self._folders.folder(release.path) for release in releases for _ in range(release.workers)]
        check_memory(needed[running:])
        http, grpc = self._wish.ports(config)
        self.site = replace(
            self.site, http_port=self._ports.claim("--port", http), grpc_port=self._ports.claim("--grpc-port", grpc)
        )

    async def begin(self, config: MeshConfig) -> None:
        """Start everything a configuration declares and wait until it is ready.

        Raises:
            CliError: something is missing, or a process will not come up.
        """
        await self.prepare(config)
        specs = self._plan(config)
        for spec in specs.values():
            self._fleet.start(spec)
        await self._board.until(lambda: self._fleet.can_come_up() and self._in(specs, Phase.READY))

    def declare(self, config: MeshConfig) -> None:
        """Have another configuration carried out by :meth:`run`."""
        self._newest = config
        self._news.set()

    async def run(self) -> None:
        """Carry out configurations as they come, until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            assert self._newest is not None
            try:
                await self.prepare(self._newest)
            except CliError as error:
                self._say(f"configuration not carried out: {error}")
                continue
            await self._change(self._plan(self._newest))

    async def _change(self, specs: dict[str, ProcessSpec]) -> None:
        running = {name: spec for name, spec in self._fleet.specs.items() if spec.tier in DECLARED_TIERS}
        added = [name for name in specs if name not in running]
        for name in added:
            self._fleet.start(specs[name])
        await self._settled(added)
        for name, spec in specs.items():
            if name in running and spec != running[name] and not self._news.is_set():
                await self._fleet.stop([name])
                self._fleet.start(spec)
                await self._settled([name])
        if not self._news.is_set():
            await self._fleet.stop([name for name in running if name not in specs])

    async def _settled(self, names: Iterable[str]) -> None:
        """Wait until processes are ready or clearly are not, or until there are newer wishes."""
        names = list(names)
        await self._board.until(lambda: self._news.is_set() or self._in(names, Phase.READY, Phase.CRASHED))

    def _in(self, names: Iterable[str], *phases: Phase) -> bool:
        return all(self._board.phase(name) in phases for name in names)

    def _plan(self, config: MeshConfig) -> dict[str, ProcessSpec]:
        return plan(config, self.site, self._folders.folder)
