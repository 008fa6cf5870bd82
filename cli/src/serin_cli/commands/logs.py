"""`serin logs`: what the processes of a mesh logged."""

import argparse
import contextlib
import sys
from pathlib import Path

from serin_mesh.one_line import escaped

from serin_cli.arguments import add_state, integer, state_path
from serin_cli.errors import NoMesh, UsageProblem
from serin_cli.log_lines import Follower, readable
from serin_cli.state_dir import StateDir

DESCRIPTION = """\
Show what the processes logged last; SERVICE is a name from `serin status` or its beginning (worker, tokenizer.small).
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument("service", nargs="?", metavar="SERVICE", help="only this process, or all whose names begin so")
    parser.add_argument("-f", "--follow", action="store_true", help="go on as more is logged; Ctrl-C ends")
    parser.add_argument(
        "-n", "--lines", type=integer(0, 1_000_000), default=100, metavar="N", help="last lines of each (default: 100)"
    )
    parser.add_argument("--raw", action="store_true", help="lines as they were written")
    add_state(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the last lines, then perhaps follow."""
    state = StateDir(state_path(arguments.state))
    names = _names(state.logs, arguments.service)
    width = max(map(len, names)) if len(names) > 1 else 0

    def show(name: str, line: str) -> None:
        prefix = f"{name:<{width}} | " if width else ""
        print(prefix + (line if arguments.raw else escaped(readable(line))))

    follower = Follower([state.logs / f"{name}.log" for name in names], arguments.lines)
    for path, line in follower.tail():
        show(path.stem, line)
    sys.stdout.flush()
    if arguments.follow:
        with contextlib.suppress(KeyboardInterrupt):
            for path, line in follower.follow():
                show(path.stem, line)
                sys.stdout.flush()
    return 0


def _names(logs: Path, service: str | None) -> list[str]:
    names = sorted(path.stem for path in logs.glob("*.log"))
    if not names:
        raise NoMesh(f"nothing is logged in {logs}; start a mesh with `serin up`, or name another with --state DIR")
    if service is None:
        return names
    chosen = [name for name in names if name == service or name.startswith(f"{service}.")]
    if not chosen:
        raise UsageProblem(f"serin logs: {service!r}: accepted: {', '.join(names)}")
    return chosen
