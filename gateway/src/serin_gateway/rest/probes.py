"""`/live`, `/ready` and `/metrics`. Knows nothing about what makes a gateway ready."""

import orjson
from serin_mesh.errors import MeshError, Reason
from serin_mesh.metrics import CONTENT_TYPE, scrape
from serin_mesh.readiness import Readiness, State

from serin_gateway.pipeline import Request
from serin_gateway.rest.client import Client


class Probes:
    """What orchestrators and Prometheus ask."""

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness

    async def live(self, client: Client) -> None:
        """Whether the process should be left alone."""
        await self._report(client, self._readiness.condition.state is not State.STALLED)

    async def ready(self, client: Client) -> None:
        """Whether requests are welcome."""
        await self._report(client, self._readiness.is_ready)

    async def metrics(self, client: Client, request: Request) -> None:
        """All metrics in Prometheus' text format.

        Raises:
            MeshError: ROLE_INSUFFICIENT, the caller is of another organization: projects of all are in them.
        """
        home = request.house.desk.home
        if request.caller.organization != home:
            raise MeshError(Reason.ROLE_INSUFFICIENT, f"metrics are for {home!r}, the mesh's own organization")
        await client.respond(200, scrape(), CONTENT_TYPE.encode())

    async def _report(self, client: Client, good: bool) -> None:
        now = self._readiness.condition
        if not good:
            client.headers.append((b"retry-after", b"1"))
        await client.respond(
            200 if good else 503, orjson.dumps({"state": now.state.value, "activity": now.activity}) + b"\n"
        )
