"""Keeps `mesh.json` true while a mesh runs.

Knows the board and the record, nothing about processes.
"""

import asyncio
import os
from collections.abc import Callable
from dataclasses import asdict

from serin_cli.local.board import Board
from serin_cli.local.plan import HOST, Site
from serin_cli.record import MeshRecord
from serin_cli.state_dir import StateDir

TOGETHER_S = 0.1  # changes so near to each other are written at once


class Recorder:
    """Writes the record after changes of the board and its alarms, and at each change of the mesh's phase."""

    def __init__(self, state: StateDir, board: Board, site: Callable[[], Site]) -> None:
        self._state, self._board, self._site = state, board, site
        self._phase = "starting"
        self._pending: asyncio.TimerHandle | None = None
        board.listen(lambda *_: self._soon())
        board.listen_alarms(self._soon)

    def enter(self, phase: str) -> None:
        """Write down that the mesh is ``starting``, ``ready`` or ``draining``."""
        self._phase = phase
        self._write()

    def close(self) -> None:
        """Remove the record: the mesh is gone."""
        if self._pending is not None:
            self._pending.cancel()
        self._state.record.unlink(missing_ok=True)

    def _soon(self) -> None:
        if self._pending is None:
            self._pending = asyncio.get_running_loop().call_later(TOGETHER_S, self._write)

    def _write(self) -> None:
        if self._pending is not None:
            self._pending.cancel()
            self._pending = None
        site = self._site()
        MeshRecord(
            pid=os.getpid(),
            phase=self._phase,
            rest=f"http://{HOST}:{site.http_port}",
            grpc=f"{HOST}:{site.grpc_port}",
            control=site.control,
            state_redis=site.state_redis,
            edge=site.edge.url if site.edge is not None else "",
            edge_trust=str(site.edge.shown.trust) if site.edge is not None else "",
            edge_mesh=f"{HOST}:{site.edge.mesh_port}" if site.edge is not None and site.edge.mesh_port else "",
            alarms=list(self._board.alarms),
            processes=[asdict(row) for row in self._board.rows],
        ).write(self._state)
