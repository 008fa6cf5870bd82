"""Does something to a rollout; what state Redis does not know yet is said to every control plane, and to the person."""

import sys

from serin.control.v1 import rollout_pb2

from serin_cli.errors import NoControlPlane
from serin_cli.rollouts.client import ControlPlanes
from serin_cli.terminal import say

UNWRITTEN = (
    "warning: state Redis does not answer: {id} is off the new version for whoever listens to the control plane at "
    "{took}, which writes it when Redis is back; should it end before, say it again; `serin rollout history {id}` then "
    "shows it"
)

OFFLINE = "if all of them are dead or hang, `serin rollout abort {id} --offline` writes it for the next one that starts"
"""What remains to be done without a control plane."""


async def act_on(control: ControlPlanes, request: rollout_pb2.ActOnRolloutRequest) -> rollout_pb2.ActOnRolloutResponse:
    """Act; returns what the control plane that took it says.

    Raises:
        UsageProblem: what was asked cannot be meant.
        CliError: it was refused, or no control plane answers.
    """
    try:
        answer: rollout_pb2.ActOnRolloutResponse = await control.call("ActOnRollout", request)
    except NoControlPlane as error:
        if request.action != rollout_pb2.ROLLOUT_ACTION_ABORT:
            raise
        raise NoControlPlane(f"{error}; {OFFLINE.format(id=request.rollout_id)}") from error
    if answer.unwritten:
        took = await control.tell_all("ActOnRollout", request)
        say(UNWRITTEN.format(id=request.rollout_id, took=", ".join(took)), sys.stderr)
    return answer
