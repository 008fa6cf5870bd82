"""`GET /v1/models` and `GET /v1/models/{id}`: names that may be asked for, as the client's API writes them.

Knows nothing about lanes.
"""

from typing import Any

import orjson

from serin_gateway.ask import refuse
from serin_gateway.cascades.cascade import Cascade
from serin_gateway.catalog import ServedModel
from serin_gateway.pipeline import Request
from serin_gateway.rest.anthropic.models import QUERY, model_body, model_page
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
        data = [self._body(client, request, *one) for one in known_names(catalog, request.caller).items()]
        _check_query(client, "the OpenAI API lists all models at once")
        page = model_page(client.query, data) if client.speaks_anthropic else {"object": "list", "data": data}
        await client.respond(200, orjson.dumps(page))

    async def get(self, client: Client, request: Request) -> None:
        """One name."""
        _check_query(client, "the OpenAI API has no such parameter")
        name = client.scope["raw_path"][len(PREFIX) :].decode("latin-1")
        catalog = request.house.catalog.current()
        route = find_route(catalog, request.caller, name)
        target = route.cascade or route.models[0]
        await client.respond(200, orjson.dumps(self._body(client, request, name, target)))

    def _body(self, client: Client, request: Request, name: str, target: ServedModel | Cascade) -> dict[str, Any]:
        if isinstance(target, Cascade):
            models = [request.house.catalog.current().find(one) for one in (target.first, target.then)]
        else:
            models = [target]
        context_length = max(model.context_length for model in models)
        if client.speaks_anthropic:
            return model_body(name, context_length)
        body: dict[str, Any] = {
            "id": name,
            "object": "model",
            "created": self._created,
            "owned_by": "serin",
            "context_length": context_length,
            "ready": any(map(request.house.placement.serves, models)),
        }
        if isinstance(target, Cascade):
            body["cascade"] = {"first": target.first, "then": target.then}
        elif target.num_dimensions:
            body["embedding_dimensions"] = target.num_dimensions
        return body if name == target.name else body | {"alias_of": target.name}


def _check_query(client: Client, why: str) -> None:
    for name in () if client.speaks_anthropic else client.query:
        if name in QUERY:
            raise refuse(name, f"only with the header anthropic-version; {why}")
