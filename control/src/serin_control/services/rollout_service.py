"""RolloutService: what people ask of rollouts, and what they are told."""

from collections.abc import AsyncIterator
from typing import Any

from serin.control.v1 import registry_pb2, rollout_pb2, rollout_pb2_grpc
from serin_mesh.call import caller
from serin_mesh.errors import MeshError, Reason
from serin_mesh.one_line import is_one_line

from serin_control.rollouts.act import Actor
from serin_control.rollouts.desk import Desk
from serin_control.services.messages import KINDS
from serin_control.services.refusals import as_mesh_errors
from serin_control.services.rollout_messages import (
    act_message,
    action_from,
    forecast_message,
    rollback_service_from,
    rollout_message,
    spec_from,
)

MAX_TEXT = 500
PAGE = 20
HISTORY_PAGE = 100


class RolloutService(rollout_pb2_grpc.RolloutServiceServicer):
    """Serves a :class:`Desk`. Who may call what is the server's affair; who called is written down here."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def StartRollout(  # noqa: N802 - the method's name in the contract
        self, request: rollout_pb2.StartRolloutRequest, context: Any
    ) -> rollout_pb2.StartRolloutResponse:
        """Start one."""
        with as_mesh_errors():
            spec = spec_from(request)
            rollout = await self._desk.start(spec, request.golden_jsonl, _actor(request.actor))
        return rollout_pb2.StartRolloutResponse(rollout_id=rollout.id, reason=rollout.reason)

    async def GetRollout(  # noqa: N802 - as above
        self, request: rollout_pb2.GetRolloutRequest, context: Any
    ) -> rollout_pb2.GetRolloutResponse:
        """One as it is now."""
        with as_mesh_errors():
            rollout = await self._desk.get(request.rollout_id)
        return rollout_pb2.GetRolloutResponse(rollout=rollout_message(rollout))

    async def ListRollouts(  # noqa: N802 - as above
        self, request: rollout_pb2.ListRolloutsRequest, context: Any
    ) -> rollout_pb2.ListRolloutsResponse:
        """A page of them, newest first."""
        with as_mesh_errors():
            found, more = await self._desk.page(request.model, request.page_size or PAGE, request.page_token)
        return rollout_pb2.ListRolloutsResponse(rollouts=map(rollout_message, found), next_page_token=more)

    async def WatchRollout(  # noqa: N802 - as above
        self, request: rollout_pb2.WatchRolloutRequest, context: Any
    ) -> AsyncIterator[rollout_pb2.WatchRolloutResponse]:
        """One now and after each change, until it has ended."""
        with as_mesh_errors():
            async for rollout in self._desk.watch(request.rollout_id):
                yield rollout_pb2.WatchRolloutResponse(rollout=rollout_message(rollout))

    async def ActOnRollout(  # noqa: N802 - as above
        self, request: rollout_pb2.ActOnRolloutRequest, context: Any
    ) -> rollout_pb2.ActOnRolloutResponse:
        """Pause, resume, promote or abort one. Without effect: the reason says why."""
        with as_mesh_errors():
            action = action_from(request.action)
            move = await self._desk.act(
                request.rollout_id, action, _actor(request.actor), _text("reason", request.reason)
            )
        message = rollout_message(move.rollout)
        if not move.effective:
            message.reason = move.reason
        unwritten = not self._desk.is_written(request.rollout_id)
        return rollout_pb2.ActOnRolloutResponse(rollout=message, effective=move.effective, unwritten=unwritten)

    async def PlanRollout(  # noqa: N802 - as above
        self, request: rollout_pb2.PlanRolloutRequest, context: Any
    ) -> rollout_pb2.PlanRolloutResponse:
        """What it would need."""
        with as_mesh_errors():
            golden = request.start.golden_jsonl
            found = self._desk.forecast(spec_from(request.start), request.sessions_per_second, golden)
        return rollout_pb2.PlanRolloutResponse(
            steps=[forecast_message(step, forecast) for step, forecast in found.steps],
            sessions_per_second=found.sessions_per_s,
            note=found.note,
        )

    async def Rollback(  # noqa: N802 - as above
        self, request: rollout_pb2.RollbackRequest, context: Any
    ) -> rollout_pb2.RollbackResponse:
        """Give a model's traffic back."""
        with as_mesh_errors():
            service = rollback_service_from(request.service)
            back = await self._desk.rollback(
                request.model, request.to_version, _actor(request.actor), _text("reason", request.reason), service
            )
        whose = KINDS[back.service] if back.service is not None else registry_pb2.SERVICE_KIND_UNSPECIFIED
        return rollout_pb2.RollbackResponse(version=back.version, lane=back.lane, note=back.note, service=whose)

    async def Freeze(  # noqa: N802 - as above
        self, request: rollout_pb2.FreezeRequest, context: Any
    ) -> rollout_pb2.FreezeResponse:
        """Forbid rollouts to move on, or allow it again."""
        with as_mesh_errors():
            changed = await self._desk.freeze(request.frozen, _actor(request.actor), _text("reason", request.reason))
        return rollout_pb2.FreezeResponse(changed=changed)

    async def SuspendRollouts(  # noqa: N802 - as above
        self, request: rollout_pb2.SuspendRolloutsRequest, context: Any
    ) -> rollout_pb2.SuspendRolloutsResponse:
        """The mesh is being stopped: nothing moves on here any more."""
        await self._desk.suspend()
        return rollout_pb2.SuspendRolloutsResponse()

    async def ListActs(  # noqa: N802 - as above
        self, request: rollout_pb2.ListActsRequest, context: Any
    ) -> rollout_pb2.ListActsResponse:
        """A page of the history, newest first."""
        with as_mesh_errors():
            found, more = await self._desk.history(
                request.rollout_id, request.page_size or HISTORY_PAGE, request.page_token
            )
        return rollout_pb2.ListActsResponse(acts=map(act_message, found), next_page_token=more)


def _actor(name: str) -> Actor:
    return Actor(_text("actor", name), caller().service or "")


def _text(key: str, text: str) -> str:
    """Text that goes into the history: one line of it, not endless."""
    if len(text) > MAX_TEXT or not is_one_line(text):
        raise MeshError(
            Reason.ROLLOUT_INVALID, f"{key}: {text[:40]!r}: accepted: at most {MAX_TEXT} printable characters", key=key
        )
    return text
