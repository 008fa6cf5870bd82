"""The loop: requests share batches and nothing else; refusals, cancels, failures and the end."""

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest
import torch
from serin_worker.config import EngineConfig
from serin_worker.embedding.loop import EmbeddingLoop
from serin_worker.embedding.request import EmbeddingBounds, EmbeddingRequest
from serin_worker.embedding.startup import load_encoder
from serin_worker.errors import (
    DrainEnds,
    EngineStopped,
    InputTooLong,
    NotComputed,
    NotFinite,
    QueueFull,
    RequestRefused,
)
from serin_worker.serving import StepWatch
from serin_worker.testing import write_tiny_encoder

BOUNDS = EmbeddingBounds(max_tokens=64, vocabulary_size=100, num_dimensions=4, can_shorten=True)
NAN, BROKEN = 98, 99


class Held:
    """An encoder of no model: a vector is the input's length and ids; it waits at a gate before each batch."""

    def __init__(self) -> None:
        self.num_layers_run = 0
        self.gate = threading.Event()
        self.gate.set()
        self.reached = threading.Semaphore(0)
        self.batches: list[list[list[int]]] = []

    def encode(self, inputs):
        """NaN and failures where an id asks for them."""
        self.reached.release()
        assert self.gate.wait(60)
        self.batches.append([list(one) for one in inputs])
        if any(BROKEN in one for one in inputs):
            raise RuntimeError("an input that no model can take")
        rows = [[len(one), sum(one), one[0], torch.nan if NAN in one else 0] for one in inputs]
        return torch.tensor(rows, dtype=torch.float32)

    def shorten(self, vectors, num_dimensions):
        """The beginning."""
        return vectors[:, :num_dimensions]


@pytest.fixture
async def held() -> AsyncIterator[tuple[EmbeddingLoop, Held]]:
    """A loop over it, with room for ten inputs in line."""
    encoder = Held()
    loop = EmbeddingLoop(encoder, BOUNDS, max_batch_tokens=64, max_num_waiting=10)
    loop.start()
    yield loop, encoder
    encoder.gate.set()
    await loop.stop()


def embed(loop: EmbeddingLoop, *inputs, num_dimensions: int = 0) -> "asyncio.Task":
    """A request as a task that has begun."""
    return asyncio.create_task(loop.embed(EmbeddingRequest(inputs, num_dimensions)))


async def busy(loop: EmbeddingLoop, encoder: Held) -> "asyncio.Task":
    """Close the gate and have one request wait at it."""
    encoder.gate.clear()
    first = embed(loop, [1])
    assert await asyncio.to_thread(encoder.reached.acquire, timeout=60)
    return first


async def test_requests_share_batches_and_get_their_own_vectors(held):
    """What waits while one is computed is computed together, in order of length; answers keep their order."""
    loop, encoder = held
    first = await busy(loop, encoder)
    second = embed(loop, [7] * 8, [5], num_dimensions=2)
    third = embed(loop, [3] * 9, [2] * 8)
    await asyncio.sleep(0)
    encoder.gate.set()
    await first
    assert (await second).vectors.tolist() == [[8, 56], [1, 5]]
    assert (await third).vectors.tolist() == [[9, 27, 3, 0], [8, 16, 2, 0]]
    assert encoder.batches == [[[1]], [[7] * 8, [2] * 8, [3] * 9], [[5]]]
    assert (loop.counts.num_inputs, loop.counts.num_tokens, loop.counts.num_padded_tokens) == (5, 27, 29)
    assert not loop.has_work


async def test_what_is_refused(held):
    """By name, before anything waits."""
    loop, _ = held
    for inputs, num_dimensions, parameter in (
        ([], 0, "runs"),
        ([[1]] * 2049, 0, "runs"),
        ([[1], []], 0, "runs[1]"),
        ([[1], [100]], 0, "runs[1]"),
        ([[1]], 5, "dimension_count"),
    ):
        with pytest.raises(RequestRefused) as refused:
            await loop.embed(EmbeddingRequest(inputs, num_dimensions))
        assert refused.value.parameter == parameter
    with pytest.raises(InputTooLong) as too_long:
        await loop.embed(EmbeddingRequest([[1], [1] * 65]))
    assert (too_long.value.num_tokens, too_long.value.max_tokens) == (65, 64)
    joined = EmbeddingBounds(max_tokens=64, vocabulary_size=100, num_dimensions=4, can_shorten=False)
    joined.check(EmbeddingRequest([[1]], 4))
    with pytest.raises(RequestRefused, match="joins"):
        joined.check(EmbeddingRequest([[1]], 2))


async def test_the_line_is_bounded(held):
    """Ten inputs may wait; one more is told to come back. A request finds an empty line however large it is."""
    loop, encoder = held
    first = await busy(loop, encoder)
    second = embed(loop, *[[1]] * 12)
    await asyncio.sleep(0)
    with pytest.raises(QueueFull):
        await loop.embed(EmbeddingRequest([[1]]))
    encoder.gate.set()
    await asyncio.gather(first, second)


async def test_a_cancelled_request_leaves_the_line(held):
    """Its inputs are never computed, and others take their place."""
    loop, encoder = held
    first = await busy(loop, encoder)
    leaving, staying = embed(loop, *[[5]] * 6), embed(loop, *[[6]] * 4)
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    assert loop.num_waiting == 4
    encoder.gate.set()
    await asyncio.gather(first, staying)
    assert not any([5] in batch for batch in encoder.batches)


@pytest.mark.parametrize(("id_", "error"), [(NAN, NotFinite), (BROKEN, NotComputed)])
async def test_a_failing_input_fails_its_request_alone(held, id_, error):
    """Those that shared its batch are answered; the loop goes on."""
    loop, encoder = held
    first = await busy(loop, encoder)
    bad, good = embed(loop, [1], [id_]), embed(loop, [4], [5])
    await asyncio.sleep(0)
    encoder.gate.set()
    with pytest.raises(error):
        await bad
    assert (await good).vectors[:, 2].tolist() == [4, 5]
    await first
    assert loop.failure is None
    assert await loop.computes_numbers()


async def test_open_requests_are_handed_over(held):
    """All of them, also the one that is being computed; what it becomes is dropped."""
    loop, encoder = held
    tasks = [await busy(loop, encoder), embed(loop, [2])]
    await asyncio.sleep(0)
    assert loop.hand_over(DrainEnds()) == 2
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [DrainEnds, DrainEnds]
    encoder.gate.set()
    assert (await loop.embed(EmbeddingRequest([[3]]))).vectors[0, 2] == 3


async def test_a_batch_that_stands_still_is_noticed(held):
    """The same watch as over the engine: work without a layer for so long, by its own clock."""
    loop, encoder = held
    now = [0.0]
    watch = StepWatch(loop, 2.5, lambda: now[0])
    first = await busy(loop, encoder)
    for _ in range(4):
        now[0] += 0.5
        assert watch.is_moving()
    encoder.num_layers_run += 1
    now[0] += 0.9
    assert watch.is_moving()
    for _ in range(3):
        now[0] += 1.0
        is_moving = watch.is_moving()
    assert not is_moving
    encoder.gate.set()
    await first
    # A batch counts as a step only after its answers; the next one's answer comes after both.
    assert await loop.computes_numbers()
    assert watch.is_moving()


async def test_after_the_end_nothing_is_taken(held):
    """What is open fails, and so does what comes later."""
    loop, encoder = held
    tasks = [await busy(loop, encoder), embed(loop, [2])]
    await asyncio.sleep(0)
    stopping = asyncio.create_task(loop.stop())
    await asyncio.sleep(0)
    encoder.gate.set()
    await stopping
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[1], EngineStopped)
    with pytest.raises(EngineStopped):
        await loop.embed(EmbeddingRequest([[1]]))


async def test_an_invariant_vector_depends_on_its_input_alone(tmp_path):
    """Bit by bit: alone, and among many requests at once."""
    encoder, about = load_encoder(write_tiny_encoder(tmp_path), EngineConfig(numerics="invariant"))
    assert about.numerics == "invariant"
    loop = EmbeddingLoop(encoder, about.bounds, max_batch_tokens=2048, max_num_waiting=500, is_invariant=True)
    loop.start()
    try:
        inputs = [[number + 1] * (1 + 5 * number) for number in range(12)]
        alone = [(await loop.embed(EmbeddingRequest([ids]))).vectors[0] for ids in inputs]
        crowd = await asyncio.gather(*(loop.embed(EmbeddingRequest([ids, *inputs])) for ids in inputs))
        assert all(torch.equal(one.vectors[0], bits) for one, bits in zip(crowd, alone, strict=True))
    finally:
        await loop.stop()
