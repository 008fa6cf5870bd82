"""Commands for tests: as typed, from the arguments to the exit code, without the second that a new Python takes."""

import contextlib
import io
import subprocess
from concurrent.futures import ThreadPoolExecutor

from serin_cli.__main__ import main

_thread = ThreadPoolExecutor(1)  # one at a time, since what is printed belongs to the process; where no loop runs


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a command in this process. Not for `serin up`, whose signals are the main thread's.

    Args:
        arguments: what is typed after ``serin``.

    Returns:
        Its exit code, and what it printed.
    """
    out, err = io.StringIO(), io.StringIO()

    def printed() -> int:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            return main(arguments)

    code = _thread.submit(printed).result()
    return subprocess.CompletedProcess(["serin", *arguments], code, out.getvalue(), err.getvalue())
