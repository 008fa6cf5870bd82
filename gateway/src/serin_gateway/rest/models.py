"""`GET /v1/models` and `GET /v1/models/{id}`: names that may be asked for. Knows nothing about lanes."""

from typing import Any

import orjson

from serin_gateway.catalog import ServedModel
from serin_gateway.pipeline import Request
from serin_gateway.rest.client import Client

PREFIX = b"/v1/models/"


class Models:
    """The models of the catalog in force.

    Args:
        created: Unix time reported for all of them; the mesh does not know when a model was made.
    """

    def __init__(self, created: int) -> None:
        self._created = created

    async def list(self, client: Client, request: Request) -> None:
        """All names that the caller may ask, aliases too."""
        names = sorted(request.house.catalog.current().names.items())
        data = [self._body(name, model) for name, model in names if request.caller.may_ask(model.name)]
        await client.respond(200, orjson.dumps({"object": "list", "data": data}))

    async def get(self, client: Client, request: Request) -> None:
        """One name."""
        name = client.scope["raw_path"][len(PREFIX) :].decode("latin-1")
        model = request.house.catalog.current().find(name, request.caller.may_ask)
        await client.respond(200, orjson.dumps(self._body(name, model)))

    def _body(self, name: str, model: ServedModel) -> dict[str, Any]:
        body = {
            "id": name,
            "object": "model",
            "created": self._created,
            "owned_by": "serin",
            "context_length": model.context_length,
            "ready": model.is_ready,
        }
        if model.num_dimensions:
            body["embedding_dimensions"] = model.num_dimensions
        return body if name == model.name else body | {"alias_of": model.name}
