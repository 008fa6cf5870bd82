"""Brings an answer to the store while it is made, keeps its claim alive, and says how it ended.

Knows nothing about who makes the answer, nor about who follows it.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from serin_gateway.idempotency.store import CLAIM_S, MAX_KEPT_BYTES, AnswersDown, AnswerStore, State
from serin_gateway.idempotency.transcript import Transcript

POST_EVERY_S = 0.25
"""What is made reaches other gateways in steps of this."""
BEAT_S = 1.0
"""A claim is renewed at least so often, whatever is made: whoever joins elsewhere waits for that sign of life."""
LAST_POSTS = 5


class Posting:
    """One answer's way into the store; `run` is a task of whoever makes the answer.

    Args:
        store: where it goes.
        name, fingerprint: of the answer, as they were claimed.
        transcript: what is made; its account is the claim's owner.
        on_not_kept: told when the store did not take the complete answer, whose repeat is then answered anew.
    """

    def __init__(
        self, store: AnswerStore, name: str, fingerprint: str, transcript: Transcript, on_not_kept: Callable[[], None]
    ) -> None:
        self._store = store
        self._name = name
        self._fingerprint = fingerprint
        self._transcript = transcript
        self._on_not_kept = on_not_kept
        self._num_kept = 0
        self._is_ours = True

    async def run(self) -> None:
        """Until the answer is over and the store has heard of it."""
        posted_at, loop, transcript = 0.0, asyncio.get_running_loop(), self._transcript
        while not transcript.is_over:
            with suppress(TimeoutError):
                async with asyncio.timeout(min(BEAT_S, CLAIM_S / 5)):
                    await transcript.changed()
            await asyncio.sleep(max(0.0, posted_at + POST_EVERY_S - loop.time()))
            posted_at = loop.time()
            if transcript.is_over:
                break
            with suppress(AnswersDown):  # the next step brings it too
                await self._post()
        for attempt in range(LAST_POSTS):
            try:
                await self._close()
                return
            except AnswersDown:
                await asyncio.sleep(attempt)
        self._on_not_kept()

    async def _post(self) -> bool:
        """Bring what was made since; False: the claim has lapsed, and somebody else makes the answer anew."""
        if self._is_ours and not await self._renew():
            # This gateway, or the store, was away for longer than a claim lives: it is taken again, if it is there.
            claim = await self._store.claim(self._name, self._fingerprint, self._transcript.account)
            self._num_kept = 0
            self._is_ours = claim.state is State.MINE and await self._renew()
        return self._is_ours

    async def _renew(self) -> bool:
        transcript = self._transcript
        frames = transcript.frames[self._num_kept :] if transcript.num_bytes <= MAX_KEPT_BYTES else []
        is_ours = await self._store.renew(self._name, transcript.account, frames, self._num_kept)
        self._num_kept += len(frames)
        return is_ours

    async def _close(self) -> None:
        transcript = self._transcript
        state = State.KEPT if transcript.num_bytes <= MAX_KEPT_BYTES else State.TOO_LONG
        if transcript.failure is not None:
            state = State.UNSEEN if transcript.is_billed and not transcript.frames else State.GONE
        elif not await self._post():
            return
        await self._store.finish(self._name, transcript.account, state)
