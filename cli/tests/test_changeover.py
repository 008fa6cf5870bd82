"""Changes of what runs: nothing that serves stops for something that does not."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from serin_cli.local import changeover as module
from serin_cli.local.board import Phase
from serin_cli.local.changeover import Changeover

SERVES = "import signal; signal.pause()  # {}"
SERVES_NEXT_TIME = """
import os, signal, sys  # first: {path}
if not os.path.exists({path!r}):
    open({path!r}, "w").close()
    sys.exit("too big")
signal.pause()  # {settings}"""
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
    """A changeover over an empty fleet, whose processes are ready as soon as they run and their siblings are alike."""
    board.listen(lambda row, before: _announce(board, fleet))
    yield Changeover(fleet, board, said.append, outdated.is_set)
    outdated.set()
    await fleet.stop_all()


def _announce(board, fleet) -> None:
    """Do what the control plane does, after each change: siblings that differ from those that serve are refused."""
    asyncio.get_running_loop().call_soon(_judge, board, fleet)


def _judge(board, fleet) -> None:
    for name, spec in fleet.specs.items():
        row = board.row(name)
        if row is None or row.phase is not Phase.STARTING or row.pid is None or not _comes_up(spec):
            continue
        serving = [other for other in fleet.specs.values() if board.phase(other.name) in (Phase.READY, Phase.DRAINING)]
        others = [other for other in serving if spec.cluster and other.cluster == spec.cluster]
        if any(_settings(other) != _settings(spec) for other in others):
            board.update(name, refusal="other digests")
        else:
            board.update(name, phase=Phase.READY, refusal="")


def _comes_up(spec) -> bool:
    code = spec.command[-1]
    _, found, rest = code.partition("first: ")
    return "signal.pause" in code and (not found or Path(rest.splitlines()[0]).exists())


def _settings(spec) -> str:
    return spec.command[-1].rpartition("# ")[2]


@pytest.fixture
def worker(child):
    """Makes one of some siblings that have settings in common."""

    def make(index: int, settings: str, code: str = SERVES):
        return replace(child(f"w{index}", code.format(settings)), cluster="workers")

    return make


def named(*specs):
    """Specs by their names."""
    return {spec.name: spec for spec in specs}


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
    async with asyncio.timeout(60):
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
    async with asyncio.timeout(60):
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
    async with asyncio.timeout(60):
        await board.until(lambda: board.phase("a") is Phase.CRASHED)
    outdated.clear()
    await changeover.to({"a": child("a", SERVES)})
    assert board.phase("a") is Phase.READY


async def test_siblings_that_differ_do_not_wait_for_one_another(changeover, fleet, board, worker, said):
    """A worker more, and other settings: what is new comes up beside the old one, and serves when that stops."""
    await changeover.to(named(worker(0, "old")))
    stopped_while = []
    board.listen(lambda row, _: stopped_while.append(board.row("w1").refusal) if row.phase is Phase.DRAINING else None)
    new = named(worker(0, "new"), worker(1, "new"))
    async with asyncio.timeout(60):
        await changeover.to(new)
    assert stopped_while == ["other digests"]
    assert fleet.specs == new
    assert board.phase("w0") is board.phase("w1") is Phase.READY
    assert (said, board.alarms) == ([], ())


async def test_siblings_are_replaced_one_after_the_other(changeover, fleet, board, worker, said):
    """Other settings for three: at no time is none of them ready or about to be let in, and in the end all are."""
    await changeover.to(named(*(worker(index, "old") for index in range(3))))
    able = []

    def count(row, before) -> None:
        able.append(sum(one.phase is Phase.READY or bool(one.refusal) for one in board.rows))

    board.listen(count)
    new = named(*(worker(index, "new") for index in range(3)))
    async with asyncio.timeout(60):
        await changeover.to(new)
    assert fleet.specs == new
    assert min(able) == 2
    assert [board.phase(name) for name in new] == [Phase.READY] * 3
    assert (said, board.alarms) == ([], ())


async def test_a_sibling_that_goes_makes_way(changeover, fleet, board, worker, said):
    """One fewer, and other settings: the one that stays serves once the other is gone."""
    await changeover.to(named(worker(0, "old"), worker(1, "old")))
    async with asyncio.timeout(60):
        await changeover.to(named(worker(0, "new")))
    assert set(fleet.specs) == {"w0"}
    assert board.phase("w0") is Phase.READY
    assert (said, board.alarms) == ([], ())


async def test_what_is_refused_for_good_is_said(changeover, fleet, board, worker, said, outdated, monkeypatch):
    """Beside a sibling that stays it will never serve: that stands on the board until a newer wish gets its way."""
    monkeypatch.setattr(module, "REFUSED_S", 0.05)
    await changeover.to(named(worker(0, "files as they were")))
    change = asyncio.create_task(changeover.to(named(worker(0, "files as they were"), worker(1, "changed files"))))
    async with asyncio.timeout(60):
        while not board.alarms:
            await asyncio.wait({change}, timeout=0.01)
        assert "w1 is not ready: refused: other digests; what ran before stays" in board.alarms[0]
        assert board.phase("w0") is Phase.READY
        outdated.set()
        board.ask_again()
        await change
        outdated.clear()
        await changeover.to(named(worker(0, "files as they were")))
    assert set(fleet.specs) == {"w0"}
    assert board.alarms == ()


async def test_a_start_that_takes_long_is_said(changeover, fleet, board, child, said, outdated, monkeypatch):
    """Be it made or not; it goes on, and what ran before stays; a newer wish does not wait for it."""
    await changeover.to({"old": child("old", SERVES)})
    monkeypatch.setattr(module, "SLOW_S", 0.0)  # before there is a process that the board could know
    change = asyncio.create_task(changeover.to({"new": child("new", "import time; time.sleep(60)")}))
    async with asyncio.timeout(60):
        while not board.alarms:
            await asyncio.wait({change}, timeout=0.01)
        assert "new is not ready: starting; it goes on starting" in board.alarms[0]
        assert board.phase("old") is Phase.READY
        outdated.set()
        board.ask_again()
        await change
        outdated.clear()
        await changeover.to({"old": child("old", SERVES)})
    assert set(fleet.specs) == {"old"}
    assert board.alarms == ()


async def test_siblings_go_back_together(changeover, fleet, board, worker, said):
    """The first runs with its new settings and waits to be let in, the second does not: both get the old ones again."""
    old = named(*(worker(index, "old") for index in range(3)))
    await changeover.to(old)
    async with asyncio.timeout(60):
        await changeover.to(named(worker(0, "new"), worker(1, "new", FAILS), worker(2, "new")))
    assert fleet.specs == old
    assert [board.phase(name) for name in old] == [Phase.READY] * 3
    assert "w1 does not come up: no such device; it runs with its old settings again" in said[0]


async def test_the_last_sibling_keeps_settings_that_the_others_have(
    changeover, fleet, board, worker, said, tmp_path, monkeypatch
):
    """It fails once with its new settings, and is refused with its old ones, which nobody else has: it tries again."""
    monkeypatch.setattr(module, "REFUSED_S", 0.05)
    await changeover.to(named(worker(0, "old"), worker(1, "old")))
    flaky = SERVES_NEXT_TIME.format(path=str(tmp_path / "tried"), settings="new")
    new = named(worker(0, "new"), worker(1, "", flaky))
    seen = []
    board.listen(lambda row, before: seen.append((row.phase, row.refusal)) if row.name == "w1" else None)
    async with asyncio.timeout(60):
        await changeover.to(new)
    assert (Phase.CRASHED, "") in seen
    assert (Phase.STARTING, "other digests") in seen
    assert fleet.specs == new
    assert board.phase("w0") is board.phase("w1") is Phase.READY
    assert board.alarms == ()
