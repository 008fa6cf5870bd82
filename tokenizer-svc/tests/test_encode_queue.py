"""Texts are encoded in batches off the event loop, and nobody pays for somebody else's text."""

import asyncio
import threading

import pytest
from serin_tokenizer_svc import encode_queue
from serin_tokenizer_svc.encode_queue import BATCH_CHARS, NUM_BATCHES, EncodeQueue
from serin_tokenizer_svc.errors import EncodeBusy


@pytest.fixture(autouse=True)
def _no_text_is_short(monkeypatch):
    monkeypatch.setattr(encode_queue, "SHORT_CHARS", 0)


class Encoder:
    """Encodes a text to its characters' numbers, when it is let to.

    Attributes:
        batches: texts of each call, with whether special tokens are added.
        gate: calls wait until it is open.
        entered: released by each call.
    """

    def __init__(self):
        self.batches = []
        self.gate = threading.Event()
        self.entered = threading.Semaphore(0)

    def __call__(self, texts, add_special_tokens):
        """Encode."""
        self.batches.append((list(texts), add_special_tokens))
        self.entered.release()
        assert self.gate.wait(30)
        if "bad" in texts:
            raise RuntimeError("bad")
        return [[ord(char) for char in text] for text in texts]


async def jobs_behind_a_closed_gate(encoder, queue, *texts):
    """Jobs that wait while all threads are busy with a first job each."""
    busy = []
    for _ in range(NUM_BATCHES):
        busy.append(asyncio.create_task(queue.encode(["busy"], True)))
        await asyncio.to_thread(encoder.entered.acquire)
    waiting = [asyncio.create_task(queue.encode([text], True)) for text in texts]
    await asyncio.sleep(0)
    return busy, waiting


async def test_calls_that_wait_become_one_batch():
    """Everything that arrived meanwhile is encoded together, and everybody gets their own."""
    encoder = Encoder()
    async with EncodeQueue(encoder) as queue:
        busy, waiting = await jobs_behind_a_closed_gate(encoder, queue, "a", "b", "c")
        encoder.gate.set()
        assert await asyncio.gather(*waiting) == [[[97]], [[98]], [[99]]]
        await asyncio.gather(*busy)
    batches = [texts for texts, _ in encoder.batches]
    assert ["a", "b", "c"] in batches
    assert (queue.num_batches, queue.num_chars) == (3, 0)


async def test_batches_are_bounded_and_alike():
    """A batch ends at its size and where special tokens are wanted differently."""
    encoder = Encoder()
    long = "x" * BATCH_CHARS
    async with EncodeQueue(encoder) as queue:
        busy, waiting = await jobs_behind_a_closed_gate(encoder, queue, "a", long, "b")
        other = asyncio.create_task(queue.encode(["c"], False))
        await asyncio.sleep(0)
        encoder.gate.set()
        await asyncio.gather(*busy, *waiting, other)
    assert (["a"], True) in encoder.batches
    assert ([long], True) in encoder.batches
    assert (["c"], False) in encoder.batches


async def test_who_leaves_is_not_encoded():
    """A call that was cancelled while it waited costs nothing."""
    encoder = Encoder()
    async with EncodeQueue(encoder) as queue:
        busy, waiting = await jobs_behind_a_closed_gate(encoder, queue, "a", "gone", "b")
        waiting[1].cancel()
        await asyncio.sleep(0)
        encoder.gate.set()
        await asyncio.gather(*busy, waiting[0], waiting[2])
    assert not any("gone" in texts for texts, _ in encoder.batches)


async def test_a_failure_reaches_those_of_its_batch():
    """They learn it; later calls work."""
    encoder = Encoder()
    encoder.gate.set()
    async with EncodeQueue(encoder) as queue:
        with pytest.raises(RuntimeError, match="bad"):
            await queue.encode(["bad"], True)
        assert await queue.encode(["a"], True) == [[97]]


async def test_text_is_bounded_in_characters():
    """What waits and what is at work count together; too much is refused at once, one large text alone is not."""
    encoder = Encoder()
    async with EncodeQueue(encoder, max_chars=10) as queue:
        first = asyncio.create_task(queue.encode(["x" * 20], True))
        await asyncio.to_thread(encoder.entered.acquire)  # it is at work, nothing waits
        with pytest.raises(EncodeBusy):
            await queue.encode(["y"], True)
        with pytest.raises(EncodeBusy):
            await queue.run(list, 1)
        encoder.gate.set()
        await first
        assert queue.num_chars == 0
        assert await queue.encode(["y"], True) == [[121]]
        assert await queue.run(lambda: [1], 11) == [1]
        assert queue.num_chars == 0


async def test_one_large_text_is_at_work_at_a_time():
    """The others wait, whichever way they came; short ones pass them; all are answered in the end."""
    encoder = Encoder()
    large = "x" * (BATCH_CHARS + 1)
    num_alone = 0

    def alone():
        nonlocal num_alone
        num_alone += 1
        return [7]

    async with EncodeQueue(encoder, max_chars=10 * BATCH_CHARS) as queue, asyncio.timeout(60):
        tasks = [asyncio.create_task(queue.encode([large], True)) for _ in range(3)]
        tasks.append(asyncio.create_task(queue.run(alone, len(large))))
        await asyncio.to_thread(encoder.entered.acquire)
        short = asyncio.create_task(queue.encode(["a"], True))
        await asyncio.to_thread(encoder.entered.acquire)
        assert [texts == [large] for texts, _ in encoder.batches] == [True, False]
        assert num_alone == 0
        encoder.gate.set()
        assert await short == [[97]]
        assert [len(ids) for ids in await asyncio.gather(*tasks)] == [1, 1, 1, 1]
        assert queue.num_chars == 0


async def test_who_leaves_while_it_is_encoded_still_counts():
    """A thread cannot be stopped: until it is done its text is in memory."""
    encoder = Encoder()
    async with EncodeQueue(encoder, max_chars=10) as queue:
        first = asyncio.create_task(queue.encode(["x" * 20], True))
        await asyncio.to_thread(encoder.entered.acquire)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        with pytest.raises(EncodeBusy):
            await queue.encode(["y"], True)
        encoder.gate.set()


async def test_a_job_right_behind_an_answer_is_not_forgotten(monkeypatch):
    """Who asks again in the very step in which it was answered is served, though the last batch's task still ends."""
    monkeypatch.setattr(encode_queue, "NUM_BATCHES", 1)
    encoder = Encoder()
    encoder.gate.set()
    async with EncodeQueue(encoder) as queue, asyncio.timeout(60):
        for text in "abc":
            assert await queue.encode([text], True) == [[ord(text)]]


async def test_short_texts_are_encoded_at_once(monkeypatch):
    """No thread is asked: it would cost more than the text."""
    monkeypatch.setattr(encode_queue, "SHORT_CHARS", 8)
    encoder = Encoder()
    encoder.gate.set()
    async with EncodeQueue(encoder) as queue:
        assert await queue.encode(["a", "b" * 7], True) == [[97], [98] * 7]
        assert await queue.run(lambda: [threading.get_ident()], 8) == [threading.get_ident()]
        assert await queue.run(lambda: [threading.get_ident()], 9) != [threading.get_ident()]
        assert (queue.num_batches, queue.num_chars) == (0, 0)
