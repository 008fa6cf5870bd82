"""`serin freeze`: forbid rollouts to start or move on."""

import argparse
import asyncio

from serin.control.v1 import rollout_pb2

from serin_cli.rollouts.reached import add_acting, reached

DESCRIPTION = """\
Forbid all rollouts to start or move on, until `serin freeze --off`. Traffic stays as it is; what must be taken back is
still taken back, by the judge as by a person.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument("--off", action="store_true", help="allow it again")
    add_acting(parser)


def run(arguments: argparse.Namespace) -> int:
    """Freeze or unfreeze."""
    return asyncio.run(_freeze(arguments))


async def _freeze(arguments: argparse.Namespace) -> int:
    request = rollout_pb2.FreezeRequest(frozen=not arguments.off, reason=arguments.reason, actor=arguments.actor)
    async with reached(arguments) as control:
        answer = await control.call("Freeze", request)
    state = "not frozen" if arguments.off else "frozen"
    print(f"rollouts are {state}" + ("" if answer.changed else ", as they were before"))
    return 0
