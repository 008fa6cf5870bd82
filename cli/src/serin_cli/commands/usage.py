"""`serin usage`: what was used, and what it costs."""

import argparse
import asyncio
import sys
import time
from contextlib import suppress
from typing import get_args

from serin_control.config import ConfigInvalid, parse_config
from serin_control.errors import StoreDown
from serin_control.redis_store import RedisStore
from serin_gateway.ledger.usage import By, as_csv, decimal
from serin_gateway.limits.calendar import day_of
from serin_mesh.errors import MeshError

from serin_cli.admin_store import add_flags, open_desk, state_redis
from serin_cli.errors import CliError
from serin_cli.terminal import screen, table

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
    currency = await _currency(state_redis(arguments))
    if arguments.csv:
        sys.stdout.write(as_csv(rows, arguments.by, currency))
        return 0
    figured = ("lines", "prompt", "of it cached", "completion", f"cost {currency}".rstrip())
    shown = table(arguments.by, *figured, right=figured)
    for row in rows:
        figures = (row.lines, row.prompt_tokens, row.cached_tokens, row.completion_tokens)
        shown.add_row(row.name, *map(str, figures), decimal(row.nano))
    screen().show(shown)
    return 0


async def _currency(url: str) -> str:
    """What the configuration in force calls its money; empty: none is kept there, or only later versions can read it.

    Raises:
        CliError: the state Redis does not answer.
    """
    store = RedisStore(url)
    try:
        found = await store.read_config()
    except StoreDown as error:
        raise CliError(f"{error}; try again shortly") from error
    finally:
        await store.close()
    with suppress(ConfigInvalid):
        return parse_config(found.yaml).currency if found is not None else ""
    return ""
