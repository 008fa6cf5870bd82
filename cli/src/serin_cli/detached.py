"""`serin up` in a session of its own, while somebody watches it come up.

Whoever starts it holds the state directory, and hands that on: nobody else's log is written over, and who comes second
is told so. Knows the command's output and its record, nothing about the mesh.
"""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from serin_cli.errors import NoMesh
from serin_cli.record import read_record
from serin_cli.state_dir import LOCK_VARIABLE, StateDir

POLL_S = 0.1


def start_detached(arguments: Sequence[str], state: StateDir) -> int:
    """Run the same command without `--detach` and pass on what it says until it is ready or has ended.

    Raises:
        StartRefused: another mesh runs here.
    """
    log, lock = state.logs / "up.log", state.lock()
    try:
        with log.open("wb") as output:
            child = subprocess.Popen(
                [sys.executable, "-m", "serin_cli", *(word for word in arguments if word != "--detach")],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                pass_fds=(lock,),
                env={**os.environ, LOCK_VARIABLE: str(lock)},
            )
    finally:
        os.close(lock)
    try:
        return _pass_on(child, log, state)
    except KeyboardInterrupt:
        child.terminate()
        child.wait()
        raise


def _pass_on(child: "subprocess.Popen[bytes]", log: Path, state: StateDir) -> int:
    held = ""  # the newest line: if the command ends, it says why, and belongs where refusals go
    with log.open(encoding="utf-8", errors="replace") as output:
        while True:
            code, ready = child.poll(), _is_ready(state, child.pid)  # before reading: what was said by then is complete
            *lines, held = (held + output.read()).rstrip("\n").split("\n")
            for line in lines:
                print(line, flush=True)
            if code is not None:
                print(held or f"serin up ended with exit code {code}; see {log}", file=sys.stderr)
                return code or 1
            held += "\n" if held else ""
            if ready:
                commands = (f"`{state.command(words)}`" for words in ("serin status", "serin logs -f", "serin down"))
                print(f"{held}detached as process {child.pid}; {', '.join(commands)}")
                return 0
            time.sleep(POLL_S)


def _is_ready(state: StateDir, pid: int) -> bool:
    try:
        record = read_record(state)
    except NoMesh:
        return False
    return record.pid == pid and record.phase == "ready"
