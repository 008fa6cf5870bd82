"""Prepared grammars opened for requests: off the event loop, off the engine's thread, within a time.

Knows nothing about gRPC or steps.
"""

import asyncio
import contextlib
import functools
import threading
from collections.abc import Callable

from serin_worker.errors import GrammarOverrun, GrammarsUnsupported, RequestRefused
from serin_worker.grammars.constraint import Constraint
from serin_worker.grammars.vocabulary import GrammarVocabulary
from serin_worker.request import GenerationRequest

OPEN_S = 5.0
"""Seconds that opening a grammar may take; what was prepared takes one at most, usually milliseconds."""
MAX_AT_ONCE = 4


class Grammars:
    """Opens grammars over one vocabulary, which is read when the first one comes.

    Each is opened in a thread of its own: a thread cannot be stopped, and one that a grammar holds must not keep the
    process from ending.

    Args:
        read: reads the vocabulary.
        open_s: seconds that opening one may take.
    """

    def __init__(self, read: Callable[[], GrammarVocabulary], open_s: float = OPEN_S) -> None:
        self._read = functools.cache(read)
        self._reading = threading.Lock()
        self._open_s = open_s
        self._room = asyncio.Semaphore(MAX_AT_ONCE)

    async def open(self, request: GenerationRequest) -> dict[int, Constraint]:
        """What each of the request's choices may say, by index, its prior output followed.

        Raises:
            GrammarsUnsupported: no grammar can be followed with this vocabulary.
            GrammarRefused: the grammar is damaged.
            GrammarOverrun: it takes too long.
            RequestRefused: prior output does not follow it.
        """
        try:
            async with asyncio.timeout(self._open_s):
                await self._room.acquire()
                return await self._begin(request)
        except TimeoutError:
            raise GrammarOverrun(f"opening it takes more than {self._open_s:g} s") from None

    def _begin(self, request: GenerationRequest) -> "asyncio.Future[dict[int, Constraint]]":
        loop = asyncio.get_running_loop()
        done: asyncio.Future[dict[int, Constraint]] = loop.create_future()

        def settle(found: dict[int, Constraint] | Exception) -> None:
            self._room.release()
            if done.done():
                return
            if isinstance(found, Exception):
                done.set_exception(found)
            else:
                done.set_result(found)

        def work() -> None:
            try:
                found: dict[int, Constraint] | Exception = self._open(request)
            except Exception as error:  # noqa: BLE001 - carried to the caller
                found = error
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(settle, found)

        threading.Thread(target=work, name="serin-grammar", daemon=True).start()
        return done

    def _open(self, request: GenerationRequest) -> dict[int, Constraint]:
        with self._reading:
            vocabulary = self._read()
        first = Constraint(request.grammar, vocabulary)
        found = {index: first.fork() for index in range(1, request.num_choices)}
        found[0] = first
        for prior in request.prior:
            if prior.is_finished:
                del found[prior.choice_index]
                continue
            try:
                found[prior.choice_index].take(prior.token_ids)
            except GrammarOverrun as error:
                raise RequestRefused("prior", f"prior_outputs do not follow the grammar: {error}") from error
        return found


def no_grammars() -> Grammars:
    """Refuses every grammar."""

    def read() -> GrammarVocabulary:
        raise GrammarsUnsupported

    return Grammars(read)
