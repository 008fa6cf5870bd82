"""Takes what callers think of answers they got. Knows nothing about how they say it, or who judges by it."""

import re
import time

from serin_mesh.errors import MeshError, Reason

from serin_gateway.ask import refuse
from serin_gateway.observing.buffer import ObservationBuffer
from serin_gateway.observing.keeper import RecordKeeper
from serin_gateway.observing.observation import Feedback
from serin_gateway.observing.records import RecordsDown
from serin_gateway.responses.identifier import request_of

_ID = re.compile(r"(?:chatcmpl-|cmpl-|msg_)?([A-Za-z0-9._-]{1,100})")
"""A request's identifier, also inside the identifier that an API gives its answer."""


class FeedbackDesk:
    """Takes feedback.

    Args:
        keeper: knows the requests.
        buffer: where it goes.
    """

    def __init__(self, keeper: RecordKeeper, buffer: ObservationBuffer) -> None:
        self._keeper = keeper
        self._buffer = buffer

    async def give(self, tenant: str, request_id: str, score: float) -> bool:
        """Take what a tenant thinks of the answer to one of its requests, by whichever of its keys, from 0 to 1.

        Returns:
            Whether it counts: the first on a request does, later ones change nothing.

        Raises:
            MeshError: PARAMETER_INVALID; NOT_FOUND, no such request of this tenant was answered, or it is too long ago;
                UPSTREAM_UNAVAILABLE, that cannot be known now.
        """
        if not 0 <= score <= 1:
            raise refuse("score", f"{score!r:.80} is not accepted; accepted: 0 to 1")
        found = _ID.fullmatch(request_of(request_id) or request_id)
        if found is None:
            raise refuse("request_id", "accepted: the x-request-id or the id of an answer")
        try:
            for name in dict.fromkeys((request_id, found[1])):
                record = await self._keeper.find(tenant, name)
                if record is not None and record.lane:
                    break
            else:
                raise MeshError(
                    Reason.NOT_FOUND,
                    "no answered request of this tenant has this identifier; requests are known for at most a day",
                    parameter="request_id",
                )
            if not await self._keeper.claim_feedback(tenant, record.request_id):
                return False
        except RecordsDown as error:
            raise MeshError(
                Reason.UPSTREAM_UNAVAILABLE, "feedback cannot be taken at the moment; try again", retry_after_s="2"
            ) from error
        self._buffer.feedback(
            Feedback(record.request_id, record.model, record.lane, record.session, score, time.time())
        )
        return True
