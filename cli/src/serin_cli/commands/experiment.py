"""`serin experiment`: a fixed split between two versions, whose outcome callers report."""

import argparse
import asyncio
import json
import sys

from serin.control.v1 import rollout_pb2

from serin_cli.arguments import model_name, number
from serin_cli.errors import CliError
from serin_cli.rollouts import shown
from serin_cli.rollouts.acting import act_on
from serin_cli.rollouts.asked import EXPERIMENT, SERVICES, Asked, AskedStep
from serin_cli.rollouts.client import ControlPlanes
from serin_cli.rollouts.durations import duration_flag, split_flag
from serin_cli.rollouts.reached import add_acting, add_reached, reached
from serin_cli.terminal import say, screen

DESCRIPTION = """\
Split a model's new sessions between two versions at a fixed share, for as long as you like. What callers report with
POST /v1/feedback is compared; nothing is promoted. Errors that are clearly worse still end it.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the actions and their flags."""
    actions = parser.add_subparsers(dest="action", metavar="start|get|stop", required=True)
    start = actions.add_parser("start", help="start one; prints its id alone on the last line")
    start.add_argument("--model", type=model_name, required=True, help="the model")
    start.add_argument("--service", choices=list(SERVICES), default="worker", help="what differs (default: worker)")
    start.add_argument("--to", required=True, metavar="VERSION", help="the version to compare with")
    start.add_argument("--also", choices=("tokenizer", "worker"), action="append", default=[], help="differs too")
    start.add_argument("--share", type=split_flag, default=50.0, metavar="SHARE", help="its share (default: 50%%)")
    start.add_argument(
        "--max-duration", type=duration_flag, default=0.0, metavar="TIME", help="how long its version may be waited for"
    )
    start.add_argument("--error-rate", type=number(0.0001, 0.2), default=0.0, metavar="X", help="default: 0.01")
    add_acting(start)
    get = actions.add_parser("get", help="show its outcome so far")
    get.add_argument("id", metavar="ID")
    get.add_argument("--json", action="store_true", help="print JSON")
    add_reached(get)
    stop = actions.add_parser("stop", help="end it: all traffic goes to the version that was there before")
    stop.add_argument("id", metavar="ID")
    add_acting(stop)


def run(arguments: argparse.Namespace) -> int:
    """Carry out one action."""
    return asyncio.run(_act(arguments))


async def _act(arguments: argparse.Namespace) -> int:
    async with reached(arguments) as control:
        if arguments.action == "start":
            return await _start(arguments, control)
        rollout = (await control.call("GetRollout", rollout_pb2.GetRolloutRequest(rollout_id=arguments.id))).rollout
        if shown.intent_of(rollout) != EXPERIMENT:
            raise CliError(f"{arguments.id} is a rollout, no experiment; see `serin rollout get {arguments.id}`")
        if arguments.action == "stop":
            return await _stop(arguments, control)
        if arguments.json:
            print(json.dumps(shown.document(rollout), indent=2))
        else:
            screen().show(shown.picture(rollout))
        return 0


async def _start(arguments: argparse.Namespace, control: ControlPlanes) -> int:
    asked = Asked(
        model=arguments.model,
        service=arguments.service,
        to=arguments.to,
        also=arguments.also,
        intent=EXPERIMENT,
        steps=[AskedStep(arguments.share, 1, arguments.max_duration)],
        error_rate=arguments.error_rate,
    )
    answer = await control.call("StartRollout", asked.message(arguments.actor))
    say(f"started; `serin experiment get {answer.rollout_id}` shows its outcome", sys.stderr)
    say(answer.rollout_id)
    return 0


async def _stop(arguments: argparse.Namespace, control: ControlPlanes) -> int:
    request = rollout_pb2.ActOnRolloutRequest(
        rollout_id=arguments.id,
        action=rollout_pb2.ROLLOUT_ACTION_ABORT,
        reason=arguments.reason or "stopped",
        actor=arguments.actor,
    )
    answer = await act_on(control, request)
    say(answer.rollout.reason if answer.effective else f"{arguments.id}: no effect: {answer.rollout.reason}")
    return 0
