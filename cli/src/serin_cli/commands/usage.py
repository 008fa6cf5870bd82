"""`serin usage`: what was used, and what it costs."""

import argparse
import asyncio
import sys
import time
from typing import get_args

from rich.table import Table
from serin_gateway.ledger.usage import By, as_csv, decimal
from serin_gateway.limits.calendar import day_of
from serin_mesh.errors import MeshError

from serin_cli.admin_store import add_flags, open_desk
from serin_cli.errors import CliError
from serin_cli.local.display import wide_console

DESCRIPTION = """\
Show what was used and what it costs, from the ledger's sums by day. Cost is exact, in the currency that the mesh's
serin.yaml names.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    today = day_of(time.time())
    parser.add_argument("--from", dest="first", metavar="DAY", default=today, help="YYYY-MM-DD, UTC (default: today)")
    parser.add_argument("--to", dest="last", metavar="DAY", default=today, help="the last day (default: today)")
    parser.add_argument("--by", choices=get_args(By), default="project", help="what to add up by (default: project)")
    parser.add_argument("--csv", action="store_true", help="print CSV instead of a table")
    add_flags(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the rows."""
    try:
        return asyncio.run(_show(arguments))
    except MeshError as error:
        raise CliError(error.message) from error


async def _show(arguments: argparse.Namespace) -> int:
    async with open_desk(arguments) as at:
        rows = await at.desk.usage(at.actor, arguments.first, arguments.last, arguments.by)
    if arguments.csv:
        sys.stdout.write(as_csv(rows, arguments.by, ""))
        return 0
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column(arguments.by, no_wrap=True)
    for heading in ("lines", "prompt", "of it cached", "completion", "cost"):
        table.add_column(heading, no_wrap=True, justify="right")
    for row in rows:
        figures = (row.lines, row.prompt_tokens, row.cached_tokens, row.completion_tokens)
        table.add_row(row.name, *map(str, figures), decimal(row.nano))
    wide_console().print(table)
    return 0
