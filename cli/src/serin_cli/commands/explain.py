"""`serin explain`: what became of one request."""

import argparse
import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict

from serin_gateway.observing.record import RequestRecord
from serin_gateway.observing.records import RecordsDown

from serin_cli.admin_store import add_mesh_organization
from serin_cli.arguments import add_state, one_line, redis_url, state_path
from serin_cli.errors import CliError
from serin_cli.record import read_record
from serin_cli.request_store import open_records
from serin_cli.request_story import story
from serin_cli.state_dir import StateDir
from serin_cli.terminal import say

DESCRIPTION = """\
Say what became of a request: who asked, which lane and worker answered, where the time went, why it was refused.
REQUEST_ID is the x-request-id of its response. Gateways remember their last 100,000 requests, for at most a day.
"""
PREFIXES = ("chatcmpl-", "cmpl-")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument("request_id", metavar="REQUEST_ID", type=one_line, help="x-request-id, or the id of an answer")
    parser.add_argument("--json", action="store_true", help="print the record instead of words")
    parser.add_argument("--state-redis", type=redis_url, metavar="URL", help="of a mesh that `serin up` does not run")
    add_mesh_organization(parser)
    add_state(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print what is known of a request."""
    url = arguments.state_redis or read_record(StateDir(state_path(arguments.state))).state_redis
    try:
        records = asyncio.run(_find(url, arguments.mesh_organization, arguments.request_id))
    except RecordsDown as error:
        raise CliError(f"{error}; see `serin status`") from error
    if not records:
        raise CliError(
            f"{arguments.request_id}: no request of this name is remembered; gateways keep their last 100,000 for at "
            "most a day, and none of callers without a valid key"
        )
    for record in records:
        if arguments.json:
            print(json.dumps(asdict(record)))
        else:
            for line in story(record):
                say(line)
    return 0


async def _find(url: str, organization: str, request_id: str) -> Sequence[RequestRecord]:
    """Its records: callers choose identifiers, so several tenants may have used the same."""
    async with open_records(url, organization) as records:
        found = await records.find(request_id)
        for prefix in PREFIXES:
            if not found and request_id.startswith(prefix):
                found = await records.find(request_id.removeprefix(prefix))
        return sorted(found, key=lambda record: record.at)
