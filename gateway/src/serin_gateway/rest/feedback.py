"""`POST /v1/feedback`: what a caller thinks of an answer. Knows nothing about what becomes of it."""

import orjson

from serin_gateway.pipeline import Request
from serin_gateway.rest.answering import read_body
from serin_gateway.rest.client import Client
from serin_gateway.rest.headers import ignored_headers
from serin_gateway.rest.parameters import parse
from serin_gateway.rest.schemas import FeedbackBody

_WORDS = {"up": 1.0, "down": 0.0}


async def give_feedback(client: Client, request: Request) -> None:
    """Take feedback on a request of the caller's tenant: who shows an answer may hold another key than who asked."""
    body, ignored = parse(FeedbackBody, {}, await read_body(client, request), request.caller.unknown)
    score = _WORDS[body.score] if isinstance(body.score, str) else float(body.score)
    counted = await request.house.feedback.give(request.caller.tenant, body.request_id, score)
    answer = {"object": "feedback", "request_id": body.request_id, "score": score, "counted": counted}
    client.headers += ignored_headers(ignored)
    await client.respond(200, orjson.dumps(answer))
