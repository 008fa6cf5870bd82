"""Does something to a rollout; what state Redis does not know yet is said to every control plane, and to the person."""

import sys

from serin.control.v1 import rollout_pb2

from serin_cli.rollouts.client import ControlPlanes

UNWRITTEN = (
    "warning: state Redis does not answer: {id} is off the new version for whoever listens to the control plane at "
    "{took}, which writes it when Redis is back; should it end before, say it again; `serin rollout history {id}` then "
    "shows it"
)


async def act_on(control: ControlPlanes, request: rollout_pb2.ActOnRolloutRequest) -> rollout_pb2.ActOnRolloutResponse:
    """Act; returns what the control plane that took it says.

    Raises:
        UsageProblem: what was asked cannot be meant.
        CliError: it was refused, or no control plane answers.
    """
    answer: rollout_pb2.ActOnRolloutResponse = await control.call("ActOnRollout", request)
    if answer.unwritten:
        took = await control.tell_all("ActOnRollout", request)
        print(UNWRITTEN.format(id=request.rollout_id, took=", ".join(took)), file=sys.stderr)
    return answer
