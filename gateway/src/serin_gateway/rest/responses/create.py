"""`POST /v1/responses`: from a body to a response that is made, and kept. Knows nothing about how either is done."""

import orjson

from serin_gateway.ask import Ask
from serin_gateway.conversation import Conversation
from serin_gateway.events import Completed
from serin_gateway.pipeline import Request
from serin_gateway.responses.identifier import new_response_id
from serin_gateway.responses.store import StoredResponse
from serin_gateway.rest.answering import answer, read_body
from serin_gateway.rest.client import Client
from serin_gateway.rest.parameters import RESPONSES, parse
from serin_gateway.rest.responses.asks import response_ask
from serin_gateway.rest.responses.items import given_items, kept_item
from serin_gateway.rest.responses.schemas import ResponseBody
from serin_gateway.rest.responses.shape import ResponseShape


async def create_response(client: Client, request: Request) -> None:
    """Make one response. It is kept when it is complete, or cut at its longest; not when it fails or nobody waits."""
    body, ignored = parse(ResponseBody, RESPONSES, await read_body(client, request), request.caller.unknown)
    desk, tenant = request.house.responses, request.caller.tenant
    bounds = request.house.catalog.current().policy.kept_responses
    items = given_items(body.input)
    response_id = new_response_id(request.receipt.request_id, body.previous_response_id or "")
    session = body.prompt_cache_key or body.user or response_id
    before = None
    if body.previous_response_id is not None:
        before = await desk.conversation(tenant, body.previous_response_id, request.max_body_bytes)
        session = body.prompt_cache_key or before.session
    ask, script = response_ask(body, items, before.turns if before is not None else (), session)
    shape = ResponseShape(response_id, body, is_kept=await desk.may_keep(body.store, bounds))
    given = [item for _, item in items]

    def changed(ask: Ask) -> None:
        """What guards masked is kept and said again as the model is shown it."""
        nonlocal given
        (conversation,) = ask.inputs
        assert isinstance(conversation, Conversation)
        given = script.items_as_in(conversation.messages, items)
        shape.asked_as_in(conversation)

    async def keep(completed: Completed) -> None:
        if not shape.is_kept:
            return
        head, output = shape.kept(completed.usage)
        kept_input = orjson.dumps([kept_item(item) for item in given])
        previous_id = body.previous_response_id or ""
        kept = StoredResponse(response_id, head, output, kept_input, previous_id, ask.session_keys[0])
        shape.is_kept = await desk.keep(tenant, kept, bounds)

    await answer(
        client,
        request,
        ask,
        shape,
        stream=bool(body.stream),
        ignored=ignored,
        keep=keep,
        failure=shape.failure,
        changed=changed,
    )
