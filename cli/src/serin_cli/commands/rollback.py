"""`serin rollback`: give a model's traffic back, at once."""

import argparse
import asyncio
import sys

from serin.control.v1 import rollout_pb2

from serin_cli.arguments import model_name
from serin_cli.errors import NoControlPlane
from serin_cli.rollouts.acting import OFFLINE
from serin_cli.rollouts.asked import SERVICES
from serin_cli.rollouts.reached import add_acting, reached
from serin_cli.terminal import say

DESCRIPTION = """\
Give all traffic of a model back to the version it had before, or to another one that still runs. A version that a
rollout replaced is kept a day for this. If nothing of it runs any more, traffic stays where it is and the command that
brings it back is printed. While a rollout of the model runs, that one is taken back, whatever it moves; with --to only
one of its lanes. Gateways, which all models share, return to what they were with --service gateway.

It is meant for emergencies: no judge is asked and nothing is confirmed. A version that --to names and that never had
the traffic gets it too; that it was never judged is then said and written into the history.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument("--model", type=model_name, required=True, help="the model")
    parser.add_argument("--to", default="", metavar="VERSION", help="version to go back to (default: the one before)")
    parser.add_argument("--service", choices=["gateway"], help="the gateways, which all models share, instead")
    add_acting(parser)


def run(arguments: argparse.Namespace) -> int:
    """Roll back."""
    return asyncio.run(_roll_back(arguments))


async def _roll_back(arguments: argparse.Namespace) -> int:
    request = rollout_pb2.RollbackRequest(
        model=arguments.model,
        to_version=arguments.to,
        reason=arguments.reason,
        actor=arguments.actor,
    )
    if arguments.service:
        request.service = SERVICES[arguments.service]
    async with reached(arguments) as control:
        try:
            answer = await control.call("Rollback", request)
        except NoControlPlane as error:
            raise NoControlPlane(f"{error}; of a rollout that runs: {OFFLINE.format(id='ID')}") from error
    if answer.note:
        say(f"note: {answer.note}", sys.stderr)
    whose = "the gateways" if answer.service == SERVICES["gateway"] else arguments.model
    say(f"all traffic of {whose} is on {answer.version}")
    return 0
