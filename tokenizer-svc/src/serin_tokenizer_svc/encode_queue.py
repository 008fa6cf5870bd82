"""Encoding off the event loop: calls that arrive while a batch is at work become the next batch.

A short text is encoded where it is asked: that takes less time than to tell a thread of it. Knows nothing about
templates or gRPC. The library encodes a batch on all cores without Python's lock.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from serin_tokenizer_svc.errors import EncodeBusy

BATCH_CHARS = 1 << 18
"""A batch is closed when it has this much text, so that a short text never waits for many long ones."""
SHORT_CHARS = 1024
"""Text that is encoded at once: less than a millisecond, in which nothing else is done."""
NUM_BATCHES = 2
"""Batches at work at once: one long text does not keep the others waiting."""
MAX_CHARS = 8 << 20
"""Text that may wait and be at work together. At work a character takes about 140 bytes of memory."""

Encode = Callable[[Sequence[str], bool], list[list[int]]]


@dataclass(frozen=True, slots=True)
class EncodeJob:
    """Texts that one caller waits for."""

    texts: Sequence[str]
    add_special_tokens: bool
    num_chars: int
    done: "asyncio.Future[list[list[int]]]"


class EncodeQueue:
    """Collects texts into batches; an asynchronous context manager.

    Of texts that fill a batch alone one is at work at a time, so memory is bounded; short ones pass the others.
    """

    def __init__(self, encode: Encode, max_chars: int = MAX_CHARS) -> None:
        self._encode = encode
        self._max_chars = max_chars
        self._waiting: deque[EncodeJob] = deque()
        self._large = asyncio.Lock()
        self.num_chars = 0
        """Of all texts that wait or are at work."""
        self.num_batches = 0
        self._running: set[asyncio.Task[Any]] = set()
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
        if num_chars <= SHORT_CHARS:
            return self._encode(texts, add_special_tokens)
        self._take(num_chars)
        job = EncodeJob(texts, add_special_tokens, num_chars, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        self._go_on()
        return await job.done

    async def run(self, work: Callable[[], list[int]], num_chars: int) -> list[int]:
        """Other work on the same threads: a text that needs encoding piece by piece.

        Raises:
            EncodeBusy: too much text waits already.
        """
        if num_chars <= SHORT_CHARS:
            return work()
        self._take(num_chars)
        task = asyncio.create_task(self._work_alone(work, num_chars))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)  # a thread cannot be stopped: until it is done, its text counts

    def _take(self, num_chars: int) -> None:
        if self.num_chars and self.num_chars + num_chars > self._max_chars:
            raise EncodeBusy(f"{self.num_chars} characters wait to be encoded; try again")
        self.num_chars += num_chars

    async def _work_alone(self, work: Callable[[], list[int]], num_chars: int) -> list[int]:
        try:
            async with self._large if num_chars > BATCH_CHARS else nullcontext():
                return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self.num_chars -= num_chars
            self._go_on()

    def _go_on(self) -> None:
        if self._waiting and self._num_at_work < NUM_BATCHES:
            self._num_at_work += 1
            task = asyncio.create_task(self._run())
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _run(self) -> None:
        try:
            while batch := self._next_batch():
                async with self._large if _is_large(batch[0]) else nullcontext():
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
        finally:
            self.num_chars -= sum(job.num_chars for job in batch)
        at = 0
        for job in batch:
            if not job.done.done():
                job.done.set_result(ids[at : at + len(job.texts)])
            at += len(job.texts)

    def _next_batch(self) -> list[EncodeJob]:
        batch: list[EncodeJob] = []
        num_chars = 0
        passed: list[EncodeJob] = []
        while self._waiting:
            job = self._waiting[0]
            if batch and not _fits(job, batch[0], num_chars):
                break
            self._waiting.popleft()
            if job.done.done():  # its caller went away
                self.num_chars -= job.num_chars
            elif _is_large(job) and self._large.locked():
                passed.append(job)
            else:
                batch.append(job)
                num_chars += job.num_chars
        self._waiting.extendleft(reversed(passed))
        return batch


def _is_large(job: EncodeJob) -> bool:
    return job.num_chars > BATCH_CHARS


def _fits(job: EncodeJob, first: EncodeJob, num_chars: int) -> bool:
    return job.add_special_tokens == first.add_special_tokens and num_chars + job.num_chars <= BATCH_CHARS
