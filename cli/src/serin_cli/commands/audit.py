"""`serin audit`: who changed what, and whether the log of it is intact."""

import argparse
import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime

from serin_gateway.audit.entry import Entry, Head, find_faults, has_been
from serin_gateway.keys import KeyStoreDown
from serin_mesh.errors import MeshError

from serin_cli.admin_store import OpenDesk, add_flags, open_desk
from serin_cli.errors import CliError
from serin_cli.terminal import say, screen, table

DESCRIPTION = """\
Show who changed what, or verify that the log is intact: entries are chained and sealed, so one that was changed,
removed or reordered is found. Note the head that verify prints: --expect finds out whether an older log was put back.
"""
PAGE = 1000


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the actions and their flags."""
    actions = parser.add_subparsers(dest="action", metavar="list|verify", required=True)
    listing = actions.add_parser("list", help="show entries")
    listing.add_argument("--json", action="store_true", help="print entries as JSON, a line each")
    verify = actions.add_parser("verify", help="find what was changed, removed or reordered; exit code 1: something")
    verify.add_argument("--expect", metavar="HEAD", type=_head, help="a head that was printed before: NUMBER:DIGEST")
    for action in (listing, verify):
        add_flags(action)


def run(arguments: argparse.Namespace) -> int:
    """Carry out one action."""
    try:
        return asyncio.run(_act(arguments))
    except MeshError as error:
        raise CliError(error.message) from error
    except KeyStoreDown as error:
        raise CliError(f"{error}; see `serin status`") from error


async def _act(arguments: argparse.Namespace) -> int:
    async with open_desk(arguments) as at:
        head = await at.desk.audit.head()
        entries = [entry for first in range(1, head.number + 2, PAGE) for entry in await _page(at, first)]
        if arguments.action == "list":
            show(entries, as_json=arguments.json)
            return 0
        faults = find_faults(entries, head, at.secret)
        if arguments.expect is not None and not has_been(arguments.expect, entries):
            faults.append(f"entry {arguments.expect.number} is not the one of the head that was noted")
    for fault in faults:
        say(fault)
    if not faults:
        print(f"{head.number} entries, intact; head {head}")
    return 1 if faults else 0


def _head(text: str) -> Head:
    try:
        return Head.parse(text)
    except ValueError:
        why = (
            "accepted: NUMBER:DIGEST, the number of an entry and 64 hex digits, as `serin audit verify` prints its head"
        )
        raise argparse.ArgumentTypeError(f"{text[:80]!r}: {why}") from None


async def _page(at: OpenDesk, first: int) -> Sequence[Entry | None]:
    return await at.desk.entries(at.actor, first, PAGE)


def show(entries: Sequence[Entry | None], *, as_json: bool) -> None:
    """Print them; None: one that cannot be read."""
    if as_json:
        for entry in entries:
            print(json.dumps(asdict(entry) if entry else None))
        return
    rows = table("number", "when", "who", "what", "on", "outcome", "facts", wraps=("facts",))
    for entry in entries:
        if entry is None:
            rows.add_row("?", "", "", "cannot be read", "", "", "")
            continue
        when = datetime.fromtimestamp(entry.at, UTC).strftime("%Y-%m-%d %H:%M:%S")
        facts = json.dumps(entry.facts) if entry.facts else ""
        rows.add_row(str(entry.number), when, entry.actor, entry.action, entry.target, entry.outcome, facts)
    screen().show(rows)
