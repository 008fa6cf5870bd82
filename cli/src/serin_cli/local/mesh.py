"""A local mesh from its first process to its last: stores, control plane, then whatever is declared.

Knows the order of things; each thing itself is known by its own module.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace

from serin_control.config import parse_config
from serin_mesh.errors import MeshError

from serin_cli.admin_store import open_key_store
from serin_cli.errors import StartRefused
from serin_cli.local.additions import AdditionsFile
from serin_cli.local.board import Board, Phase
from serin_cli.local.default_key import ensure_default_key
from serin_cli.local.edge import edge_site, edge_spec, follow_edge
from serin_cli.local.fleet import Fleet
from serin_cli.local.follow import follow_additions, follow_config, follow_instances, follow_store
from serin_cli.local.model_folder import ModelFolders
from serin_cli.local.names import CACHE_STORE, CONTROL, EDGE, STATE_STORE
from serin_cli.local.plan import Site, control_spec
from serin_cli.local.ports import free_port, is_listening
from serin_cli.local.probe import ready_models
from serin_cli.local.process import Tier
from serin_cli.local.reconcile import Reconciler
from serin_cli.local.registry import ControlPlane
from serin_cli.local.store_policy import check_cache_store, check_state_store
from serin_cli.local.valkey import store_spec, store_url
from serin_cli.local.wish import Wish
from serin_cli.models.registry import ModelRegistry
from serin_cli.state_dir import StateDir, write_private

LISTENER_POLL_S = 0.02
FIRST_ANSWER_S = 5.0


class LocalMesh:
    """The processes of one mesh, kept as the control plane's configuration declares them."""

    def __init__(self, wish: Wish, state: StateDir, board: Board, fleet: Fleet, say: Callable[[str], None]) -> None:
        self._wish, self._state, self._board, self._fleet, self._say = wish, state, board, fleet, say
        site = Site(
            control_port=free_port(),
            http_port=0,
            grpc_port=0,
            mesh_secret=state.mesh_secret,
            config=state.config,
            state_redis=wish.state_redis or store_url(STATE_STORE, state),
            cache_redis=wish.cache_redis or store_url(CACHE_STORE, state),
            num_cores=os.cpu_count() or 1,
        )
        self._additions = AdditionsFile(state.additions)
        folders = ModelFolders(ModelRegistry(state))
        self._reconciler = Reconciler(wish, site, fleet, board, say, additions=self._additions, folders=folders)
        self._control: ControlPlane | None = None
        self._followers: list[asyncio.Task[None]] = []

    @property
    def site(self) -> Site:
        """Where the mesh is reached; ports are right once it has started."""
        return self._reconciler.site

    async def start(self) -> None:
        """Bring everything up; returns when all of it is ready.

        Raises:
            CliError: something is missing or taken, or a process will not come up.
        """
        config = parse_config(self._wish.config)
        await self._check_given_stores()
        self._find_edge()
        additions = self._additions.read()  # what is wrong is said before anything is started
        await self._reconciler.find_added(additions.added)
        if self._decides():  # else what is remembered may be something else
            await self._reconciler.prepare(config, additions)
        await self._start_stores()
        control = await self._start_control()
        self._start_edge()
        await self._make_default_key()
        in_force, seen = await control.config(), self._additions.stamp()
        await self._reconciler.begin(parse_config(in_force.yaml))
        if self.site.edge is not None:
            await self._ready(EDGE)
        await self._first_answer()
        self._follow(follow_config(control, in_force.revision, self._reconciler.declare))
        self._follow(follow_additions(self._additions, seen, self._reconciler.look_again))
        self._follow(self._reconciler.run())

    async def follow(self) -> None:
        """Keep the processes as declared until cancelled; raises what went wrong in doing so."""
        done, _ = await asyncio.wait(self._followers, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def stop(self) -> None:
        """Drain everything in order."""
        for task in self._followers:
            task.cancel()
        await asyncio.gather(*self._followers, return_exceptions=True)
        if self._control is not None:
            with contextlib.suppress(MeshError):  # then a rollout that runs pauses, as after a crash
                await self._control.suspend_rollouts()
        await self._fleet.stop_all()
        if self._control is not None:
            await self._control.close()
        self._state.remove_sockets(STATE_STORE, CACHE_STORE, EDGE)

    def _find_edge(self) -> None:
        wish = self._wish.edge
        if wish is not None:
            edge = edge_site(wish, self._reconciler.claim, self._state)
            self._reconciler.site = replace(self._reconciler.site, edge=edge)

    def _start_edge(self) -> None:
        if self.site.edge is not None:
            self._fleet.start(edge_spec(self.site.edge, self.site.control, self._state))
            self._follow(follow_edge(self.site.edge, self._board))

    async def _check_given_stores(self) -> None:
        """Look at the Redis of whoever starts the mesh: nothing is started beside one that is of no use.

        Raises:
            CliError: it does not answer, or would lose state.
        """
        if self._wish.state_redis is not None:
            await check_state_store(self._wish.state_redis)
        if self._wish.cache_redis is not None:
            await check_cache_store(self._wish.cache_redis)

    async def _start_stores(self) -> None:
        """Start the embedded stores, where no other one was given."""
        given = {STATE_STORE: self._wish.state_redis, CACHE_STORE: self._wish.cache_redis}
        names = [name for name, url in given.items() if url is None]
        for name in names:
            self._fleet.start(store_spec(name, self._state))
            self._follow(follow_store(name, store_url(name, self._state), self._board))
        for name in names:
            await self._ready(name)

    async def _start_control(self) -> ControlPlane:
        if self._decides():
            write_private(self._state.config, self._wish.config)
        self._fleet.start(control_spec(self.site))
        # Dialling before somebody listens would cost a second: so long a channel waits after a refused connection.
        while self._fleet.can_come_up() and not await is_listening(self.site.control_port):  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(LISTENER_POLL_S)
        self._control = control = ControlPlane(self.site.control)
        self._follow(follow_instances(control, CONTROL, self._board, lambda text: self._say(f"alarm: {text}")))
        await self._ready(CONTROL)
        try:
            if self._wish.replaces and (await control.config()).yaml != self._wish.config:
                await control.apply(self._wish.config)
        except MeshError as error:
            raise StartRefused(f"the control plane refused the configuration: {error}") from error
        return control

    async def _make_default_key(self) -> None:
        async with open_key_store(self.site.state_redis) as store:
            await ensure_default_key(self._state, store, time.time())

    def _decides(self) -> bool:
        """Whether the wish's configuration counts, rather than what the control plane remembers.

        The control plane takes its file over only where that has changed since; an unchanged file keeps its memory.
        """
        return self._wish.replaces or not self._state.config.exists()

    async def _first_answer(self) -> None:
        """Wait until the gateway has heard of each model's workers too, so that who asks at once is answered.

        Not for long: there may be none, or all of them may be elsewhere and silent.
        """
        clusters = [row.cluster for row in self._fleet.specs.values() if row.tier is Tier.WORKER]
        models = {cluster.partition(".")[2].rpartition("@")[0] for cluster in clusters}
        key, port = self._state.read_default_key(), self.site.http_port
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_ANSWER_S):
                while not models <= await asyncio.to_thread(ready_models, port, key):  # noqa: ASYNC110 - no event tells
                    await asyncio.sleep(LISTENER_POLL_S)

    async def _ready(self, name: str) -> None:
        await self._board.until(lambda: self._fleet.can_come_up() and self._board.phase(name) is Phase.READY)

    def _follow(self, loop: Coroutine[None, None, None]) -> None:
        self._followers.append(asyncio.create_task(loop))
