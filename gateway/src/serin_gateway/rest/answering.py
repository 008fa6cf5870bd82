"""From a parsed body to a response: begins the request, then streams its events or collects them.

Knows nothing about how an API writes an event; that is its shape's.
"""

from collections.abc import Sequence

from serin_gateway.ask import Ask
from serin_gateway.events import Completed, Event
from serin_gateway.pipeline import Request
from serin_gateway.rest.client import Client
from serin_gateway.rest.headers import ignored_headers, limit_headers, route_headers
from serin_gateway.rest.shape import Shape


async def read_body(client: Client, request: Request) -> bytes:
    """The body, within what the mesh's policy allows."""
    return await client.read_body(request.max_body_bytes)


async def answer(
    client: Client, request: Request, ask: Ask, shape: Shape, *, stream: bool, ignored: Sequence[str] = ()
) -> None:
    """Answer an ask; a client that leaves takes everything downstream with it.

    Raises:
        MeshError: refused, or failed; when the stream has begun the door writes it there.
        ClientGone: nobody is left to answer.
    """
    async with client.watched():
        outbox = await request.begin(ask)
        events = await outbox.take()  # whatever refuses the request raises here, before the response begins
        shape.begin(request.receipt)
        client.headers += route_headers(request.receipt)
        if request.standing is not None:
            client.headers += limit_headers(request.standing)
        client.headers += ignored_headers(ignored)
        if stream:
            await client.start_stream()
            while not _is_last(events):
                data = b"".join([shape.chunk(event) for event in events])
                if data:
                    await client.write(data)
                events = await outbox.take()
            data = b"".join([shape.chunk(event) for event in events])
        else:
            while True:
                for event in events:
                    shape.add(event)
                if _is_last(events):
                    break
                events = await outbox.take()
    # What was reserved is free before the client learns that the answer is complete.
    await request.settle()
    if stream:
        await client.write(data + shape.stream_end, more=False)
    else:
        await client.respond(200, shape.whole())


def _is_last(events: list[Event]) -> bool:
    return isinstance(events[-1], Completed)
