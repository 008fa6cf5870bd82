"""`GET /v1/models` and `GET /v1/models/{id}`: names that may be asked for. Knows nothing about lanes."""

from typing import Any

import orjson

from serin_gateway.cascades.cascade import Cascade
from serin_gateway.catalog import ServedModel
from serin_gateway.pipeline import Request
from serin_gateway.rest.client import Client
from serin_gateway.routing.names import find_route, known_names

PREFIX = b"/v1/models/"


class Models:
    """The models of the catalog in force.

    Args:
        created: Unix time reported for all of them; the mesh does not know when a model was made.
    """

    def __init__(self, created: int) -> None:
        self._created = created

    async def list(self, client: Client, request: Request) -> None:
        """All names that the caller may ask, as it means them: aliases and cascades too."""
        catalog = request.house.catalog.current()
        data = [self._body(request, *one) for one in known_names(catalog, request.caller).items()]
        await client.respond(200, orjson.dumps({"object": "list", "data": data}))

    async def get(self, client: Client, request: Request) -> None:
        """One name."""
        name = client.scope["raw_path"][len(PREFIX) :].decode("latin-1")
        catalog = request.house.catalog.current()
        route = find_route(catalog, request.caller, name)
        target = route.cascade or route.models[0]
        await client.respond(200, orjson.dumps(self._body(request, name, target)))

    def _body(self, request: Request, name: str, target: ServedModel | Cascade) -> dict[str, Any]:
        serves = request.house.placement.serves
        body: dict[str, Any] = {"id": name, "object": "model", "created": self._created, "owned_by": "serin"}
        if isinstance(target, Cascade):
            models = [request.house.catalog.current().find(one) for one in (target.first, target.then)]
            body |= {
                "context_length": max(model.context_length for model in models),
                "ready": any(map(serves, models)),
                "cascade": {"first": target.first, "then": target.then},
            }
        else:
            body |= {"context_length": target.context_length, "ready": serves(target)}
            if target.num_dimensions:
                body["embedding_dimensions"] = target.num_dimensions
        return body if name == target.name else body | {"alias_of": target.name}
