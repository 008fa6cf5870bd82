"""What becomes of kept responses: read, listed by their input, deleted. Knows nothing about how they are kept."""

from typing import Any, get_args

import orjson
from serin_mesh.errors import Reason

from serin_gateway.ask import refuse
from serin_gateway.pipeline import Request
from serin_gateway.rest.client import Client
from serin_gateway.rest.responses.schemas import Includable

PREFIX = b"/v1/responses/"
DEFAULT_LIMIT = 20
MAX_LIMIT = 100

RETRIEVE_QUERY = {
    "include": "Accepted; what was asked for when the response was made is in it.",
    "include_obfuscation": "false only: streams are not padded.",
    "stream": "false only: the events of a stream are not kept.",
    "starting_after": "Refused, as `stream`.",
}
LIST_QUERY = {
    "after": "Item behind which the list begins.",
    "limit": f"Items, 1 to {MAX_LIMIT}; default: {DEFAULT_LIMIT}.",
    "order": "asc, or desc (the default): the last one first.",
    "include": "Accepted; items are listed with all they have.",
}
LISTS = ("include",)
"""Parameters of both that may come several times."""


async def retrieve_response(client: Client, request: Request) -> None:
    """The response, as it was answered."""
    query = client.query
    _check_include(query.get("include", ()))
    for name in ("stream", "include_obfuscation"):
        for value in query.get(name, ()):
            if value != "false":
                raise refuse(
                    name,
                    f"{value[:32]!r} is not supported; accepted: false, or left out",
                    Reason.PARAMETER_UNSUPPORTED,
                )
    if "starting_after" in query:
        raise refuse(
            "starting_after",
            "is not supported: the events of a stream are not kept; leave it out",
            Reason.PARAMETER_UNSUPPORTED,
        )
    head, output = await request.house.responses.find(request.caller.tenant, _response_id(client))
    await client.respond(200, orjson.dumps(orjson.loads(head) | {"output": orjson.Fragment(output)}))


async def list_input_items(client: Client, request: Request) -> None:
    """What was asked: the response's own input, without what it continues."""
    query = client.query
    _check_include(query.get("include", ()))
    order = query.get("order", ("desc",))[0]
    if order not in ("asc", "desc"):
        raise refuse("order", f"{order[:32]!r} is not accepted; accepted: asc, desc")
    limit = query.get("limit", (str(DEFAULT_LIMIT),))[0]
    if not (limit.isascii() and limit.isdecimal() and len(limit) <= 3 and 1 <= int(limit) <= MAX_LIMIT):
        raise refuse("limit", f"{limit[:32]!r} is not accepted; accepted: 1 to {MAX_LIMIT}")
    stored = await request.house.responses.find_input(request.caller.tenant, _response_id(client))
    items: list[dict[str, Any]] = orjson.loads(stored)
    if order == "desc":
        items.reverse()
    if "after" in query:
        after = query["after"][0]
        at = next((at for at, item in enumerate(items) if item["id"] == after), None)
        if at is None:
            raise refuse("after", f"{after[:80]!r} is no item of this list")
        items = items[at + 1 :]
    shown = items[: int(limit)]
    body = {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": len(shown) < len(items),
    }
    await client.respond(200, orjson.dumps(body))


async def delete_response(client: Client, request: Request) -> None:
    """Forget the response; what continues it goes on."""
    response_id = _response_id(client)
    await request.house.responses.delete(request.caller.tenant, response_id)
    await client.respond(200, orjson.dumps({"id": response_id, "object": "response", "deleted": True}))


async def cancel_response(client: Client, request: Request) -> None:
    """Refused for every response that there is: none is made in the background."""
    await request.house.responses.find(request.caller.tenant, _response_id(client))
    raise refuse(
        "background",
        "only a response made in the background can be cancelled, and none is; to stop one, close its connection",
        Reason.PARAMETER_UNSUPPORTED,
    )


def _response_id(client: Client) -> str:
    path: bytes = client.scope["raw_path"]
    return path[len(PREFIX) :].partition(b"/")[0].decode("latin-1")


def _check_include(names: Any) -> None:
    for name in names:
        if name not in get_args(Includable):
            raise refuse("include", f"{name[:64]!r} is not accepted; accepted: {', '.join(get_args(Includable))}")
