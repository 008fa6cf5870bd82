"""The events of an async generator on a `Work` stream: for workers that are scripts or twins, and compute nothing.

Knows nothing about what makes the events.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager

from serin.worker.v1 import worker_pb2
from serin_mesh.errors import MeshError

MAX_WAITING = 64
"""Events that wait to be taken before the generator has to."""

Response = worker_pb2.GenerateResponse


class Pulled:
    """What a generator has yielded and nobody has taken yet."""

    def __init__(self) -> None:
        self._events: list[Response] = []
        self._failure: MeshError | None = None
        self._taken = asyncio.Event()
        self._on_arrival: Callable[[], None] = lambda: None

    def listen(self, on_arrival: Callable[[], None]) -> None:
        """Have this called whenever there is something to take."""
        self._on_arrival = on_arrival
        if self._events or self._failure:
            on_arrival()

    def take(self) -> Iterator[Response]:
        """What there is now.

        Raises:
            MeshError: the generator raised it, after the events before.
        """
        events, self._events = self._events, []
        self._taken.set()
        yield from events
        if self._failure is not None:
            raise self._failure

    async def pull(self, responses: AsyncGenerator[Response, None]) -> None:
        """Take in all that a generator yields."""
        try:
            async with aclosing(responses):
                async for response in responses:
                    self._events.append(response)
                    self._on_arrival()
                    while len(self._events) >= MAX_WAITING:
                        self._taken.clear()
                        await self._taken.wait()
        except MeshError as error:
            self._failure = error
            self._on_arrival()


@asynccontextmanager
async def pulled(responses: AsyncGenerator[Response, None]) -> AsyncIterator[Pulled]:
    """A source of these events while the block runs."""
    source = Pulled()
    task = asyncio.create_task(source.pull(responses), name="pull")
    try:
        yield source
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
