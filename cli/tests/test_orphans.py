"""No process outlives its supervisor, however the supervisor dies."""

import os
import signal
import subprocess
import sys

import psutil
from serin_cli.state_dir import await_condition

SUPERVISOR = """
import asyncio, sys
from pathlib import Path
from serin_cli.local.board import Board
from serin_cli.local.fleet import Fleet
from serin_cli.local.guard import Guard
from serin_cli.local.process import ProcessSpec, Tier
from serin_cli.state_dir import StateDir

CHILD = '''
import signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print('grandchild', subprocess.Popen([sys.executable, '-S', '-c', 'import signal; signal.pause()']).pid)
while True: signal.pause()
'''

async def main():
    state = StateDir(Path(sys.argv[1]))
    state.prepare()
    board = Board()
    fleet = Fleet(board, Guard(state.lock()), state.logs)
    fleet.start(ProcessSpec('child', Tier.WORKER, (sys.executable, '-u', '-S', '-c', CHILD)))
    log = state.logs / 'child.log'
    while not (log.exists() and log.read_text().endswith('\\n')):
        await asyncio.sleep(0.02)
    print(board.row('child').pid, log.read_text().split()[1], flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def _gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_sigkill_of_the_supervisor_leaves_nothing(state):
    """Children that ignore SIGTERM and their own children die with a killed supervisor, and the directory is free."""
    supervisor = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, str(state.root)], stdout=subprocess.PIPE, text=True
    )
    with supervisor:
        pids = [int(pid) for pid in supervisor.stdout.readline().split()]
        assert len(pids) == 2
        assert not any(_gone(pid) for pid in pids)
        assert state.is_held()
        supervisor.send_signal(signal.SIGKILL)
    assert await_condition(lambda: all(_gone(pid) for pid in pids), 60)
    assert await_condition(lambda: not state.is_held(), 60)


def test_a_killed_sentinel_still_leaves_no_child(state):
    """Should the sentinel be killed too, the kernel kills the children by itself."""
    supervisor = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, str(state.root)], stdout=subprocess.PIPE, text=True
    )
    with supervisor:
        pids = [int(pid) for pid in supervisor.stdout.readline().split()]
        sentinels = [
            p for p in psutil.Process(supervisor.pid).children() if any("sentinel.py" in part for part in p.cmdline())
        ]
        assert len(sentinels) == 1
        sentinels[0].kill()
        supervisor.send_signal(signal.SIGKILL)
    try:
        assert await_condition(lambda: _gone(pids[0]), 60)
    finally:
        os.kill(pids[1], signal.SIGKILL)  # the grandchild that nobody was left to kill
