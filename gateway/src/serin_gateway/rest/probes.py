"""`/live`, `/ready` and `/metrics`. Knows nothing about what makes a gateway or a model ready."""

import orjson
from serin_mesh.errors import MeshError, Reason
from serin_mesh.metrics import CONTENT_TYPE, scrape
from serin_mesh.readiness import Readiness, State

from serin_gateway.collaborators import Collaborators
from serin_gateway.pipeline import Request
from serin_gateway.rest.client import Client

WAITING = "waiting"
"""The state of a gateway that takes requests and has nobody to answer them."""


class Probes:
    """What orchestrators and Prometheus ask."""

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness

    async def live(self, client: Client, house: Collaborators) -> None:
        """Whether the process should be left alone."""
        now = self._readiness.condition
        await _report(client, now.state is not State.STALLED, now.state.value, now.activity)

    async def ready(self, client: Client, house: Collaborators) -> None:
        """Whether a balancer should send requests here: the process takes them, and some model would answer now.

        A model is ready here exactly where `/v1/models` says so. Who asks anyway is answered as ever.
        """
        now = self._readiness.condition
        if self._readiness.is_ready and not _serves_any(house):
            await _report(client, False, WAITING, "no model has a worker and a tokenizer that answer")
        else:
            await _report(client, self._readiness.is_ready, now.state.value, now.activity)

    async def metrics(self, client: Client, request: Request) -> None:
        """All metrics in Prometheus' text format.

        Raises:
            MeshError: ROLE_INSUFFICIENT, the caller is of another organization: projects of all are in them.
        """
        home = request.house.desk.home
        if request.caller.organization != home:
            raise MeshError(Reason.ROLE_INSUFFICIENT, f"metrics are for {home!r}, the mesh's own organization")
        await client.respond(200, scrape(), CONTENT_TYPE.encode())


def _serves_any(house: Collaborators) -> bool:
    try:
        models = house.catalog.current().models
    except MeshError:  # nothing is published yet
        return False
    return any(map(house.placement.serves, models))


async def _report(client: Client, is_good: bool, state: str, activity: str) -> None:
    if not is_good:
        client.headers.append((b"retry-after", b"1"))
    await client.respond(200 if is_good else 503, orjson.dumps({"state": state, "activity": activity}) + b"\n")
