"""Processes: started, restarted when they crash, refused when they never come up, stopped in order, never orphaned."""

import asyncio
import os
import re
import signal
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from serin_cli.errors import ModelRefused, StartRefused
from serin_cli.local.board import Phase
from serin_cli.local.process import LONGEST_DELAY_S, STEADY_S, Tier, backoff_s, is_steady
from serin_cli.state_dir import await_condition

FOREVER = "import signal; print('up'); signal.pause()"
POLITE = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (open({path!r}, 'a').write({name!r} + '\\n'), sys.exit(0)))
print('up')
while True: signal.pause()
"""
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up')\nwhile True: signal.pause()"
WITH_CHILD = """
import subprocess, sys, signal
child = subprocess.Popen([sys.executable, '-S', '-c', 'import signal; signal.pause()'])
print(f'grandchild {child.pid}.')
signal.pause()
"""


async def _said(path: Path, pattern: str) -> str:
    """Wait until a log holds what a pattern matches; its group, or all of it."""

    def look() -> re.Match[str] | None:
        return re.search(pattern, path.read_text()) if path.exists() else None

    assert await asyncio.to_thread(await_condition, lambda: look() is not None, 20)
    found = look()
    assert found is not None
    return found[found.lastindex or 0]


def _gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def test_a_crashed_process_is_started_again(fleet, board, state, child):
    """A process that is killed runs again under another pid, and the board counts the restart."""
    fleet.start(child("worker", FOREVER))
    log = state.logs / "worker.log"
    await _said(log, "up")
    board.update("worker", phase=Phase.READY)
    first = board.row("worker").pid
    os.kill(first, signal.SIGKILL)
    async with asyncio.timeout(60):
        await board.until(lambda: board.row("worker").phase is Phase.CRASHED)
        assert "killed" in board.row("worker").problem
        await board.until(lambda: board.row("worker").pid not in (None, first))
    assert board.row("worker").num_restarts == 1
    assert fleet.can_come_up()
    await fleet.stop_all()
    assert board.rows == []


async def test_what_it_reads_is_looked_at_before_each_start(fleet, board, state, child):
    """What was changed while it ran keeps it from starting again, its row says why, and once mended it starts."""
    wrong = ""

    def check() -> None:
        if wrong:
            raise ModelRefused("registry:small:v2", wrong)

    fleet.start(replace(child("worker", FOREVER), check=check))
    await _said(state.logs / "worker.log", "up")
    board.update("worker", phase=Phase.READY)
    first, wrong = board.row("worker").pid, "config.json was changed"
    os.kill(first, signal.SIGKILL)
    async with asyncio.timeout(60):
        await board.until(lambda: "config.json" in board.row("worker").problem)
        assert board.row("worker").describe() == (
            "crashed: not started: model 'registry:small:v2': config.json was changed"
        )
        assert board.row("worker").pid is None
        wrong = ""
        await board.until(lambda: board.row("worker").pid not in (None, first))
    assert "not started: model" in (state.logs / "worker.log").read_text()
    await fleet.stop_all()


async def test_a_process_that_never_comes_up_is_refused_with_its_last_error(fleet, board, child):
    """Three failed starts end the attempt; the refusal quotes the error and names the log."""
    fleet.start(child("worker", "raise ValueError('no such model')"))
    with pytest.raises(
        StartRefused,
        match=r"worker stopped 3 times while starting: ValueError: no such model \(<string>:1\) \(log: .*worker.log\)",
    ):
        async with asyncio.timeout(60):
            await board.until(lambda: fleet.can_come_up() and False)
    await fleet.stop_all()


async def test_a_refused_setting_is_not_tried_again(fleet, board, child):
    """Exit code 2 means a bad setting: one attempt, and its line is passed on."""
    fleet.start(
        child("gateway", "import sys; sys.exit(print('serin-gateway: --port: 70000: accepted: 0..65535') or 2)")
    )
    with pytest.raises(StartRefused, match="gateway stopped while starting: serin-gateway: --port: 70000") as refused:
        async with asyncio.timeout(60):
            await board.until(lambda: fleet.can_come_up() and False)
    assert board.row("gateway").num_restarts == 0
    assert refused.value.exit_code == 2
    await fleet.stop_all()


async def test_a_json_error_line_is_the_reason(fleet, board, child):
    """Of a service's JSON log, the last error tells why it died, not the last line."""
    lines = [
        '{"event": "worker.failed", "level": "error", "error": "weights are truncated"}',
        '{"event": "server.closed", "level": "info"}',
    ]
    fleet.start(child("worker", f"import sys; print({lines[0]!r}); print({lines[1]!r}); sys.exit(1)"))
    async with asyncio.timeout(60):
        await board.until(lambda: board.row("worker") is not None and board.row("worker").phase is Phase.CRASHED)
    assert board.row("worker").problem == "worker.failed: weights are truncated"
    await fleet.stop_all()


async def test_tiers_stop_in_order(fleet, state, child, tmp_path):
    """The gateway stops first, the stores last, each after the one before it is gone."""
    order = tmp_path / "order"
    for tier in reversed(Tier):
        fleet.start(child(tier.name, POLITE.format(path=str(order), name=tier.name), tier))
    for tier in Tier:
        await _said(state.logs / f"{tier.name}.log", "up")
    await fleet.stop_all()
    assert order.read_text().split() == [tier.name for tier in Tier]


async def test_what_ignores_sigterm_is_killed_after_its_grace(fleet, board, state, child):
    """A process that does not stop is killed, and stopping twice at once is one stop."""
    fleet.start(child("worker", STUBBORN, grace_s=0.2))
    await _said(state.logs / "worker.log", "up")
    pid = board.row("worker").pid
    async with asyncio.timeout(60):
        await asyncio.gather(fleet.stop(["worker"]), fleet.stop(["worker"]))
    assert _gone(pid)


async def test_grandchildren_die_with_a_crash(fleet, board, state, child):
    """What a crashed process had started does not stay behind."""
    fleet.start(child("worker", WITH_CHILD))
    grandchild = int(await _said(state.logs / "worker.log", r"grandchild (\d+)\."))
    os.kill(board.row("worker").pid, signal.SIGKILL)
    async with asyncio.timeout(60):
        await board.until(lambda: board.row("worker").phase is Phase.CRASHED)
    assert await asyncio.to_thread(await_condition, lambda: _gone(grandchild), 20)
    await fleet.stop_all()


def test_steadiness_counts_from_ready(board):
    """However long it loaded: who dies right after becoming ready was not steady, and loading never is."""
    board.update("worker", phase=Phase.STARTING, pid=1, started_at=0.0)
    assert not is_steady(board.row("worker"), time.time())
    board.update("worker", phase=Phase.READY)
    ready_at = board.row("worker").ready_at
    assert not is_steady(board.row("worker"), ready_at + STEADY_S)
    board.update("worker", address="127.0.0.1:1")
    assert is_steady(board.row("worker"), ready_at + STEADY_S + 1)
    board.update("worker", phase=Phase.STARTING)
    board.update("worker", phase=Phase.READY)
    assert board.row("worker").ready_at > ready_at


def test_backoff_doubles_and_is_bounded():
    """Waiting doubles from half a second to its bound, within a fifth."""
    for failures in range(1, 100):
        expected = min(LONGEST_DELAY_S, 0.5 * 2 ** (failures - 1))
        assert 0.8 * expected <= backoff_s(failures) <= 1.2 * expected
