"""Whose answer is made and whose is followed, when requests come under an `Idempotency-Key`.

The first request of a key has its answer made here, by a task of the desk's own: it goes on when its client leaves, so
what was begun is paid for once. It and every repeat, at whichever gateway, follow what is made; a repeat for as long as
it has time. An answer that failed is made again by whoever asks next. Knows nothing about doors, nor about what a frame
is.
"""

import asyncio
import hashlib
import re
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from serin_mesh.errors import MeshError, Reason

from serin_gateway.idempotency.following import followed
from serin_gateway.idempotency.posting import Posting
from serin_gateway.idempotency.store import AnswersDown, AnswerStore, State
from serin_gateway.idempotency.transcript import Transcript

T = TypeVar("T")

MAX_RUNNING_BYTES = 256 << 20
"""Of all answers that are being made under keys here; beyond, further ones are refused."""

Make = Callable[[Transcript], Awaitable[None]]
"""Makes an answer, frame by frame, billed as the transcript's account; raises what the caller is told when it fails."""


@dataclass(slots=True)
class _Running:
    fingerprint: str
    transcript: Transcript
    task: asyncio.Task[None]


class IdempotencyDesk:
    """Sees that the answer of a key is made once.

    Args:
        store: where answers are kept.
        on_not_kept: told when the store did not take a complete answer, whose repeat is then answered anew.
    """

    def __init__(self, store: AnswerStore, on_not_kept: Callable[[], None] = lambda: None) -> None:
        self._store = store
        self._on_not_kept = on_not_kept
        self._running: dict[str, _Running] = {}
        self._draining: asyncio.Task[None] | None = None

    async def answer(
        self, subject: str, key: str, fingerprint: str, make: Make, *, timeout_s: float
    ) -> AsyncGenerator[bytes, None]:
        """The frames of a key's answer, as they come; ``make`` is called if it is for this request to make them.

        Args:
            subject: whose key it is; the same key of somebody else is another one.
            key: as the client sent it.
            fingerprint: of all that was asked; a repeat asks the same.
            make: makes the answer; runs to its end, whoever still follows.
            timeout_s: time that this request has left. It bounds how long a repeat waits for what others make; ``make``
                sees to its own.

        Raises:
            MeshError: PARAMETER_INVALID, it is no key; IDEMPOTENCY_CONFLICT, it was used for something else, or its
                answer was delivered and is not kept; NOT_READY, whether it was used cannot be known now; QUEUE_FULL;
                UPSTREAM_UNAVAILABLE, the gateway that made it is gone; DEADLINE_EXCEEDED, ``timeout_s`` are over and
                somebody else still makes it; whatever ``make`` raises.
        """
        name = _name(subject, key)
        patience = _Patience(timeout_s)
        while True:
            running = self._running.get(name)
            if running is not None and running.transcript.failure is not None:
                await patience.wait(asyncio.wait((running.task,)))  # until the store has heard of it
                continue
            is_made_for_us = running is None
            if running is None:
                self._check_room()
                claim = await self._ask(self._store.claim(name, fingerprint, owner := secrets.token_hex(16)))
                if claim.state is State.MINE:
                    running = self._begin(name, owner, fingerprint, make)
            first = claim.fingerprint if running is None else running.fingerprint
            if first != fingerprint:
                raise MeshError(
                    Reason.IDEMPOTENCY_CONFLICT,
                    "this Idempotency-Key was used for another request; take a new key for each request",
                )
            if running is not None:
                frames = running.transcript.follow()
                async for frame in frames if is_made_for_us else patience.frames(frames):
                    yield frame
                return
            num_seen = 0
            frames = followed(lambda at: self._ask(self._store.read(name, at)), claim.owner)
            async for frame in patience.frames(frames):
                num_seen += 1
                yield frame
            if num_seen:
                return

    def begin_drain(self, grace_s: float) -> None:
        """Let what is being made end within the grace; the rest is cancelled, and may be asked for again."""
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain(grace_s), name="drain answers of keys")

    async def drain(self) -> None:
        """Wait for the end of the drain, which begins now if it has not; nothing is being made after it."""
        self.begin_drain(0.0)
        assert self._draining is not None
        await self._draining
        await self._drain(0.0)

    async def _drain(self, grace_s: float) -> None:
        tasks = [running.task for running in self._running.values()]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=grace_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, name: str, owner: str, fingerprint: str, make: Make) -> _Running:
        transcript = Transcript(owner)
        posting = Posting(self._store, name, fingerprint, transcript, self._on_not_kept)
        task = asyncio.create_task(self._make(name, transcript, make, posting), name="answer of a key")
        running = self._running[name] = _Running(fingerprint, transcript, task)
        return running

    async def _make(self, name: str, transcript: Transcript, make: Make, posting: Posting) -> None:
        keeping = asyncio.create_task(posting.run())
        try:
            await make(transcript)
            transcript.end()
        except asyncio.CancelledError:
            transcript.end(MeshError(Reason.NOT_READY, "this gateway stops; ask again under the same key"))
            raise
        except Exception as error:  # noqa: BLE001 - whoever follows is told
            transcript.end(error)
        finally:
            with suppress(asyncio.CancelledError):
                await keeping
            self._running.pop(name, None)

    async def _ask(self, call: Awaitable[T]) -> T:
        try:
            return await call
        except AnswersDown as error:
            raise MeshError(
                Reason.NOT_READY,
                "whether this Idempotency-Key was used before cannot be known at the moment; try again shortly",
                retry_after_s="2",
            ) from error

    def _check_room(self) -> None:
        if sum(running.transcript.num_bytes for running in self._running.values()) > MAX_RUNNING_BYTES:
            raise MeshError(Reason.QUEUE_FULL, "too many answers under Idempotency-Keys at once; try again shortly")


class _Patience:
    """How long a request waits for what is made for another one, which goes on whatever becomes of this one."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._until = asyncio.get_running_loop().time() + timeout_s

    async def frames(self, made: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """What is made, as it comes; what is there already is shown however late it is asked for."""
        with suppress(StopAsyncIteration):
            while True:
                yield await self.wait(anext(made))

    async def wait(self, event: Awaitable[T]) -> T:
        """What is waited for.

        Raises:
            MeshError: DEADLINE_EXCEEDED.
        """
        try:
            async with asyncio.timeout_at(self._until):
                return await event
        except TimeoutError:
            raise MeshError(
                Reason.DEADLINE_EXCEEDED,
                f"this answer was not complete within the {self._timeout_s:.3g} s that this repeat had; it is still "
                "being made: ask again under the same Idempotency-Key",
            ) from None


_KEY = re.compile(r"[\x21-\x7e]{1,255}")


def _name(subject: str, key: str) -> str:
    if not _KEY.fullmatch(key):
        raise MeshError(
            Reason.PARAMETER_INVALID,
            "Idempotency-Key: accepted: 1 to 255 visible ASCII characters",
            parameter="idempotency-key",
        )
    return hashlib.blake2b(f"{subject}\0{key}".encode(), digest_size=16).hexdigest()
