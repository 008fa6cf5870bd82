"""The loops that keep the board and the reconciler informed. Each runs until it is cancelled.

Knows where news come from, not what is done about them.
"""

import asyncio
from collections.abc import Callable

from serin_control.config import MeshConfig, parse_config

from serin_cli.local.additions import AdditionsFile
from serin_cli.local.board import Board, Phase
from serin_cli.local.registry import ControlPlane, put_on_board
from serin_cli.local.store_policy import await_store

LOOK_S = 0.2


async def follow_store(name: str, url: str, board: Board) -> None:
    """Say when a store that was started answers; stores announce themselves to nobody."""

    def starting() -> bool:
        row = board.row(name)
        return row is not None and row.phase is Phase.STARTING and row.pid is not None

    while True:
        await board.until(starting)
        await await_store(url)
        if starting():
            board.update(name, phase=Phase.READY)


async def follow_instances(control: ControlPlane, name: str, board: Board, alarm: Callable[[str], None]) -> None:
    """Put what instances say about themselves on the board; ``name`` is the control plane's own row."""
    standing: set[str] = set()
    async for snapshot in control.watch_instances():
        row = board.row(name)
        if row is not None and row.phase is Phase.STARTING:
            board.update(name, phase=Phase.READY, address=control.address)
        put_on_board(snapshot, board)
        for sentence in snapshot.alarms:
            if sentence not in standing:
                alarm(sentence)
        standing = set(snapshot.alarms)
        board.sound(snapshot.alarms)


async def follow_config(control: ControlPlane, revision: int, declared: Callable[[MeshConfig], None]) -> None:
    """Tell of each configuration after ``revision``."""
    async for message in control.watch_config():
        if message.revision != revision:
            revision = message.revision
            declared(parse_config(message.yaml))


async def follow_additions(file: AdditionsFile, seen: tuple[int, int] | None, changed: Callable[[], None]) -> None:
    """Tell of each change of the file after it was as ``seen`` says; another process writes it."""
    while True:
        stamp = file.stamp()
        if stamp != seen:
            seen = stamp
            changed()
        await asyncio.sleep(LOOK_S)
