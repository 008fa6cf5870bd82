"""Encoding off the event loop: calls that arrive while a batch is at work become the next batch.

Knows nothing about templates or gRPC. The library encodes a batch on all cores without Python's lock.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from serin_tokenizer_svc.errors import EncodeBusy

BATCH_CHARS = 1 << 18
"""A batch is closed when it has this much text, so that a short text never waits for many long ones."""
NUM_BATCHES = 2
"""Batches at work at once: one long text does not keep the others waiting."""

Encode = Callable[[Sequence[str], bool], list[list[int]]]


@dataclass(frozen=True, slots=True)
class EncodeJob:
    """Texts that one caller waits for."""

    texts: Sequence[str]
    add_special_tokens: bool
    num_chars: int
    done: "asyncio.Future[list[list[int]]]"


class EncodeQueue:
    """Collects texts into batches; an asynchronous context manager."""

    def __init__(self, encode: Encode, max_waiting_chars: int = 64 << 20) -> None:
        self._encode = encode
        self._max_waiting_chars = max_waiting_chars
        self._waiting: deque[EncodeJob] = deque()
        self.num_waiting_chars = 0
        self.num_batches = 0
        self._running: set[asyncio.Task[None]] = set()
        self._num_at_work = 0
        self._threads = ThreadPoolExecutor(NUM_BATCHES, thread_name_prefix="encode")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for job in self._waiting:
            job.done.cancel()
        self._waiting.clear()
        await asyncio.gather(*self._running)
        self._threads.shutdown()

    async def encode(self, texts: Sequence[str], add_special_tokens: bool) -> list[list[int]]:
        """Ids of each text, in order.

        Raises:
            EncodeBusy: too much text waits already.
        """
        num_chars = sum(map(len, texts))
        if self._waiting and self.num_waiting_chars + num_chars > self._max_waiting_chars:
            raise EncodeBusy(f"{self.num_waiting_chars} characters wait to be encoded; try again")
        job = EncodeJob(texts, add_special_tokens, num_chars, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        self.num_waiting_chars += num_chars
        if self._num_at_work < NUM_BATCHES:
            self._num_at_work += 1
            task = asyncio.create_task(self._run())
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        return await job.done

    async def run(self, work: Callable[[], list[int]]) -> list[int]:
        """Other work on the same threads: a text that needs encoding piece by piece."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def _run(self) -> None:
        try:
            while batch := self._next_batch():
                await self._encode_batch(batch)
        finally:
            # In the same step as seeing that nothing waits: a task is done one turn of the loop later, and a job that
            # comes in between must not count on it.
            self._num_at_work -= 1

    async def _encode_batch(self, batch: Sequence[EncodeJob]) -> None:
        self.num_batches += 1
        texts = [text for job in batch for text in job.texts]
        special = batch[0].add_special_tokens
        try:
            ids = await asyncio.get_running_loop().run_in_executor(self._threads, self._encode, texts, special)
        except Exception as error:  # noqa: BLE001 - handed to those who wait
            for job in batch:
                if not job.done.done():
                    job.done.set_exception(error)
            return
        at = 0
        for job in batch:
            if not job.done.done():
                job.done.set_result(ids[at : at + len(job.texts)])
            at += len(job.texts)

    def _next_batch(self) -> list[EncodeJob]:
        batch: list[EncodeJob] = []
        num_chars = 0
        while self._waiting:
            job = self._waiting[0]
            if batch and not _fits(job, batch[0], num_chars):
                break
            self._waiting.popleft()
            self.num_waiting_chars -= job.num_chars
            if job.done.done():  # its caller went away
                continue
            batch.append(job)
            num_chars += job.num_chars
        return batch


def _fits(job: EncodeJob, first: EncodeJob, num_chars: int) -> bool:
    return job.add_special_tokens == first.add_special_tokens and num_chars + job.num_chars <= BATCH_CHARS
