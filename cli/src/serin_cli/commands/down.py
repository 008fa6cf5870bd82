"""`serin down`: drain and stop the mesh of a state directory."""

import argparse
import contextlib
import os
import signal

from serin_cli.arguments import add_state, integer, state_path
from serin_cli.errors import CliError
from serin_cli.record import read_record
from serin_cli.state_dir import StateDir, await_condition

DESCRIPTION = """\
Drain the mesh and stop it: running answers are finished first. Keys and state stay in the state directory.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument(
        "--wait", type=integer(1, 86_400), default=180, metavar="SECONDS", help="how long to wait for it (default: 180)"
    )
    add_state(parser)


def run(arguments: argparse.Namespace) -> int:
    """Ask it to stop and wait for its end."""
    state = StateDir(state_path(arguments.state))
    record = read_record(state)
    with contextlib.suppress(ProcessLookupError):
        os.kill(record.pid, signal.SIGTERM)
    if not await_condition(lambda: not state.is_held(), arguments.wait):
        raise CliError(
            f"the mesh on {state.root} still drains after {arguments.wait} s; "
            f"run `{state.command('serin down')}` again to wait on"
        )
    print(f"stopped the mesh on {state.root}")
    return 0
