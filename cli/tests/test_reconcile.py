"""Configurations that follow one another: the newest wins, also while the one before it is carried out."""

import asyncio
from pathlib import Path

import pytest
from serin_cli.errors import StartRefused
from serin_cli.local import reconcile
from serin_cli.local.additions import AdditionsFile
from serin_cli.local.board import Phase
from serin_cli.local.model_folder import ModelFolders
from serin_cli.local.plan import Site
from serin_cli.local.reconcile import Reconciler
from serin_cli.local.wish import Wish
from serin_cli.models.registry import ModelRegistry
from serin_control.config import parse_config

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "models" / "small" / "v2"
SITE = Site(21000, 0, 0, Path("/s/secret"), Path("/s/serin.yaml"), "redis://state", "redis://cache", 2)
NEVER_READY = 7  # with so many sequences, a stand-in for a worker never comes up


class StandIns(Reconciler):
    """Plans as ever, and has a stand-in started for each worker instead of it."""

    def __init__(self, child, *arguments, **named) -> None:
        super().__init__(*arguments, **named)
        self._child = child

    def _plan(self, config, additions):
        planned = super()._plan(config, additions)
        flags = {name: " ".join(spec.command) for name, spec in planned.items() if name.startswith("worker")}
        return {name: self._child(name, f"import signal; signal.pause()  # {said}") for name, said in flags.items()}


@pytest.fixture
async def reconciler(fleet, board, state, child):
    """One that runs, over an empty fleet."""

    def announce(row, before) -> None:
        wanted = fleet.specs.get(row.name)
        able = wanted is not None and f"--max-sequences={NEVER_READY}" not in wanted.command[-1]
        if row.phase is Phase.STARTING and row.pid is not None and able:
            board.update(row.name, phase=Phase.READY)

    board.listen(announce)
    wish = Wish("", replaces=True, http_port=0, grpc_port=0)
    file, folders = AdditionsFile(state.additions), ModelFolders(ModelRegistry(state))
    reconciler = StandIns(child, wish, SITE, fleet, board, lambda text: None, additions=file, folders=folders)
    running = asyncio.create_task(reconciler.run())
    yield reconciler
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await fleet.stop_all()


def declared(**keys):
    """A configuration of one model with these settings."""
    lines = "".join(f"    {key}: {value}\n" for key, value in keys.items())
    return parse_config(f"models:\n  small:\n    path: {FOLDER}\n{lines}")


async def until_running(board, **wanted):
    """Wait until exactly these are on the board, in these phases."""
    async with asyncio.timeout(60):
        await board.until(
            lambda: {row.name.removeprefix("worker.small.v1."): row.phase for row in board.rows} == wanted
        )


@pytest.mark.parametrize("stuck", [{"workers": 2, "max_sequences": NEVER_READY}, {"max_sequences": NEVER_READY}])
async def test_a_newer_configuration_replaces_an_unfinished_change(reconciler, fleet, board, stuck):
    """A worker that is new, or has other settings, never comes up: what is declared next is carried out anyway."""
    reconciler.declare(declared())
    await until_running(board, **{"0": Phase.READY})
    reconciler.declare(declared(**stuck))
    async with asyncio.timeout(60):
        await board.until(lambda: any(row.phase is Phase.STARTING and row.pid for row in board.rows))
    reconciler.declare(declared(workers=2))
    await until_running(board, **{"0": Phase.READY, "1": Phase.READY})
    assert not any(f"={NEVER_READY}" in spec.command[-1] for spec in fleet.specs.values())
    reconciler.declare(declared(workers=1))
    await until_running(board, **{"0": Phase.READY})
    assert board.alarms == ()


async def test_of_many_at_once_the_last_is_carried_out(reconciler, fleet, board):
    """What is declared before anything of the one before it has begun leaves nothing behind."""
    for number in range(1, 5):
        reconciler.declare(declared(workers=number, max_sequences=NEVER_READY + number % 2))
        await asyncio.sleep(0)
    reconciler.declare(declared(workers=2, max_sequences=3))

    def is_carried_out():  # what was declared before may have come up for a moment
        ready = [row.name for row in board.rows if row.phase is Phase.READY]
        return len(ready) == len(board.rows) == 2 and all(
            "--max-sequences=3" in spec.command[-1] for spec in fleet.specs.values()
        )

    async with asyncio.timeout(60):
        await board.until(is_carried_out)


async def test_a_start_that_the_control_plane_refuses_for_good_ends(reconciler, fleet, board, monkeypatch):
    """A version whose files are others than it was accepted with does not keep `serin up` waiting: it says why."""
    monkeypatch.setattr(reconcile, "REFUSED_S", 0.05)

    def refuse(row, before) -> None:
        if row.pid is not None and not row.refusal:
            board.update(row.name, refusal="worker.small@v1 is announced with other files")

    board.listen(refuse)
    with pytest.raises(StartRefused, match="announced with other files"):
        await reconciler.begin(declared(max_sequences=NEVER_READY))


async def test_a_start_that_is_refused_at_first_goes_on(reconciler, fleet, board):
    """While the lease of the one before lasts, what replaces it is refused; that passes."""

    def refuse(row, before) -> None:
        if row.pid is not None and not row.refusal and row.phase is Phase.STARTING:
            board.update(row.name, refusal="siblings differ")
            asyncio.get_running_loop().call_soon(lambda: board.update(row.name, phase=Phase.READY, refusal=""))

    board.listen(refuse)
    await reconciler.begin(declared(max_sequences=NEVER_READY))
    assert [row.phase for row in board.rows] == [Phase.READY]
