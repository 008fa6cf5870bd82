"""From a parsed body to a response: begins the request, then streams its events or collects them.

Knows nothing about how an API writes an event; that is its shape's.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from serin_mesh.errors import MeshError

from serin_gateway.ask import Ask
from serin_gateway.events import Completed
from serin_gateway.journal import report_defect
from serin_gateway.pipeline import Request
from serin_gateway.rest.client import Client, ClientGone
from serin_gateway.rest.errors import ToldInStream, internal_error
from serin_gateway.rest.headers import answer_headers
from serin_gateway.rest.shape import Shape


async def read_body(client: Client, request: Request) -> bytes:
    """The body, within what the mesh's policy allows."""
    return await client.read_body(request.max_body_bytes)


async def answer(
    client: Client,
    request: Request,
    ask: Ask,
    shape: Shape,
    *,
    stream: bool,
    ignored: Sequence[str] = (),
    keep: Callable[[Completed], Awaitable[None]] | None = None,
    failure: Callable[[MeshError], bytes] | None = None,
    changed: Callable[[Ask], None] = lambda ask: None,
) -> None:
    """Answer an ask; a client that leaves takes everything downstream with it.

    Args:
        client: who is answered.
        request: theirs.
        ask: what is asked.
        shape: writes the answer.
        stream: as its events happen.
        ignored: names of parameters that had no effect.
        keep: awaited once the answer is complete, before the client learns that it is.
        failure: how a stream says that it failed, where the API has more to say than its plain error.
        changed: told the ask that goes on, where guards may have changed it; for APIs that say again what was asked.

    Raises:
        MeshError: refused, or failed; when the stream has begun it is told there, here or by the door.
        ClientGone: nobody is left to answer.
    """
    try:
        await _answer(client, request, ask, shape, stream, ignored, keep, changed)
    except ClientGone:
        raise
    except Exception as error:
        if failure is None or not (stream and client.has_started):
            raise
        if not isinstance(error, MeshError):
            report_defect(error, request.receipt.request_id)
        told = error if isinstance(error, MeshError) else internal_error(request.receipt.request_id)
        with suppress(ClientGone):
            await client.write(failure(told))
        raise ToldInStream(told) from error


async def _answer(
    client: Client,
    request: Request,
    ask: Ask,
    shape: Shape,
    stream: bool,
    ignored: Sequence[str],
    keep: Callable[[Completed], Awaitable[None]] | None,
    changed: Callable[[Ask], None],
) -> None:
    data = b""
    async with client.watched():
        outbox = await request.begin(ask, changed)
        events = await outbox.take()  # whatever refuses the request raises here, before the response begins
        shape.begin(request.receipt)
        client.headers += answer_headers(request.receipt, request.standing, ignored)
        if stream:
            await client.start_stream()
        while True:
            last = events[-1]
            completed = last if isinstance(last, Completed) else None
            events = events if completed is None else events[:-1]
            if stream:
                data = b"".join([shape.chunk(event) for event in events])
            else:
                for event in events:
                    shape.add(event)
            if completed is not None:
                break
            if data:
                await client.write(data)
            events = await outbox.take()
    # What was reserved, and somebody may miss, is free before the client learns that the answer is complete.
    await request.settle()
    if keep is not None:
        await keep(completed)
    if stream:
        await client.write(data + shape.chunk(completed) + shape.stream_end, more=False)
    else:
        shape.add(completed)
        await client.respond(200, shape.whole())
