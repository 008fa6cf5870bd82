"""Changes of what runs: nothing that serves stops for something that does not."""

import asyncio

import pytest
from serin_cli.local.board import Phase
from serin_cli.local.changeover import Changeover

SERVES = "import signal; signal.pause()  # {}"
FAILS = "raise SystemExit('no such device')  # {}"


@pytest.fixture
def said():
    """What was reported."""
    return []


@pytest.fixture
def outdated():
    """Set when there are newer wishes."""
    return asyncio.Event()


@pytest.fixture
async def changeover(fleet, board, said, outdated):
    """A changeover over an empty fleet, whose processes are ready as soon as they run."""
    board.listen(lambda row, before: _announce(board, fleet, row))
    yield Changeover(fleet, board, said.append, outdated.is_set)
    outdated.set()
    await fleet.stop_all()


def _announce(board, fleet, row) -> None:
    serves = any("signal.pause" in part for part in fleet.specs[row.name].command) if row.name in fleet.specs else False
    if row.phase is Phase.STARTING and row.pid is not None and serves:
        asyncio.get_running_loop().call_soon(board.update, row.name)
        board.update(row.name, phase=Phase.READY)


async def test_what_is_new_serves_before_what_is_gone_stops(changeover, fleet, board, child, said):
    """The old process is ready until the new one is, and is gone in the end."""
    await changeover.to({"old": child("old", SERVES)})
    stopped_while = []
    board.listen(lambda row, before: stopped_while.append(board.phase("new")) if row.phase is Phase.DRAINING else None)
    await changeover.to({"new": child("new", SERVES)})
    assert set(fleet.specs) == {"new"}
    assert set(stopped_while) == {Phase.READY}
    assert (said, board.alarms) == ([], ())


async def test_what_does_not_come_up_replaces_nothing(changeover, fleet, board, child, said, outdated):
    """The old process serves on, the reason stands on the board, and a newer wish is carried out in its place."""
    await changeover.to({"old": child("old", SERVES)})
    change = asyncio.create_task(changeover.to({"new": child("new", FAILS)}))
    async with asyncio.timeout(20):
        await board.until(lambda: bool(board.alarms))
    (sentence,) = said
    assert "new does not come up: no such device" in sentence
    assert board.phase("old") is Phase.READY
    outdated.set()
    board.update("old", activity="something changed")
    await change
    outdated.clear()
    await changeover.to({"old": child("old", SERVES)})
    assert set(fleet.specs) == {"old"}
    assert board.alarms == ()


async def test_bad_settings_are_taken_back(changeover, fleet, board, child, said):
    """One of two processes fails with its new settings: it gets the old ones back, and the other keeps them."""
    good = {name: child(name, SERVES.format("old")) for name in ("a", "b")}
    await changeover.to(good)
    async with asyncio.timeout(30):
        await changeover.to({name: child(name, FAILS) for name in ("a", "b")})
    assert fleet.specs == good
    assert board.phase("a") is board.phase("b") is Phase.READY
    assert "a does not come up: no such device; it runs with its old settings again" in said[0]


async def test_good_settings_are_taken(changeover, fleet, board, child, said):
    """A process that runs with its new settings keeps them."""
    await changeover.to({"a": child("a", SERVES.format("old"))})
    new = {"a": child("a", SERVES.format("new"))}
    await changeover.to(new)
    assert fleet.specs == new
    assert (said, board.alarms) == ([], ())


async def test_what_crashed_gives_way_at_once(changeover, fleet, board, child, outdated):
    """A process that does not run anyway is replaced without waiting for what else is new."""
    outdated.set()
    await changeover.to({"a": child("a", FAILS)})
    async with asyncio.timeout(20):
        await board.until(lambda: board.phase("a") is Phase.CRASHED)
    outdated.clear()
    await changeover.to({"a": child("a", SERVES)})
    assert board.phase("a") is Phase.READY
