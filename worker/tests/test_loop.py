"""The engine's thread and its streams."""

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest
from serin_worker.engine import Engine
from serin_worker.errors import DrainEnds, EngineStalled, EngineStopped, PromptTooLong, QueueFull, ReaderTooSlow
from serin_worker.loop import EngineLoop
from serin_worker.outputs import Delta, Failed, Output, Scored, Started, Summary
from serin_worker.request import GenerationRequest, Sampling, ScoreRequest, Stopping
from serin_worker.stream import OutputStream
from serin_worker.testing import engine_without_model, tokens_of

GREEDY = Sampling(temperature=0.0)


@pytest.fixture
async def loop() -> AsyncIterator[EngineLoop]:
    """A running loop over an engine without a model."""
    engine_loop = EngineLoop(engine_without_model()[0], max_num_requests=4)
    engine_loop.start()
    yield engine_loop
    await engine_loop.stop()


async def read_all(stream: OutputStream) -> list[Output]:
    """Everything until the stream ends."""
    outputs: list[Output] = []
    while batch := await stream.read():
        outputs += batch
    return outputs


def request(name: str, max_tokens: int = 20) -> GenerationRequest:
    """A greedy request."""
    return GenerationRequest(name, [1, 2, 3], GREEDY, Stopping(max_tokens=max_tokens))


async def test_a_stream_is_started_then_deltas_then_summary(loop):
    """Outputs keep their order, positions have no gap, and the stream ends with the summary."""
    with loop.submit(request("a")) as stream:
        outputs = await read_all(stream)
    assert isinstance(outputs[0], Started)
    assert isinstance(outputs[-1], Summary)
    position = 0
    for delta in (output for output in outputs if isinstance(output, Delta)):
        assert delta.first_position == position
        position += len(delta.token_ids)
    assert position == 20


async def test_unread_tokens_become_one_delta(loop):
    """Whoever reads late gets everything at once, in one delta a choice."""
    with loop.submit(request("a")) as stream:
        await loop.drain()
        outputs = await stream.read()
        assert [len(output.token_ids) for output in outputs if isinstance(output, Delta)] == [20]
        assert await stream.read() == []


async def test_closing_a_stream_frees_its_blocks(loop):
    """A reader that leaves takes its request with it."""
    with loop.submit(request("a", max_tokens=200)) as stream:
        await stream.read()
    await loop.drain()
    assert await loop.call(lambda engine: (engine.num_requests, engine.pool.num_free)) == (0, 64)


async def test_the_same_id_again_gets_only_its_own_tokens(loop):
    """Late tokens of an aborted request never reach a new one with the same id."""
    for _ in range(20):
        with loop.submit(request("a", max_tokens=150)) as stream:
            await stream.read()
        with loop.submit(request("a", max_tokens=3)) as stream:
            outputs = await read_all(stream)
        assert len(tokens_of(outputs)) == 3
        assert isinstance(outputs[0], Started)


async def test_a_refusal_comes_through_the_stream(loop):
    """What the engine refuses fails that request alone."""
    with loop.submit(GenerationRequest("long", [1] * 400, GREEDY)) as stream:
        (failed,) = await read_all(stream)
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, PromptTooLong)
    assert (failed.error.num_prompt_tokens, failed.error.context_length) == (400, 256)


async def test_open_requests_are_bounded(loop):
    """The fifth of four is refused at once, and a place is free again after one is closed."""
    streams = [loop.submit(request(str(number), max_tokens=200)) for number in range(4)]
    with pytest.raises(QueueFull):
        loop.submit(request("5"))
    streams[0].close()
    streams[0] = loop.submit(request("5"))
    for stream in streams:
        stream.close()


async def test_a_crash_fails_every_request_and_says_why():
    """After an engine failure nothing hangs: open requests and later ones get the error."""
    engine, runner = engine_without_model()
    engine_loop = EngineLoop(engine)
    engine_loop.start()
    stream = engine_loop.submit(request("a", max_tokens=200))
    await stream.read()

    def explode(plan: object) -> None:
        raise RuntimeError("the device is gone")

    runner.run = explode
    outputs = await read_all(stream)
    assert isinstance(outputs[-1], Failed)
    assert "the device is gone" in str(outputs[-1].error)
    with pytest.raises(EngineStopped, match="the device is gone"):
        engine_loop.submit(request("b"))
    with pytest.raises(EngineStopped, match="the device is gone"):
        await engine_loop.call(lambda _: None)
    await engine_loop.stop()


async def test_stopping_fails_what_is_open():
    """An ordered end leaves no reader waiting."""
    engine_loop = EngineLoop(engine_without_model()[0])
    engine_loop.start()
    stream = engine_loop.submit(request("a", max_tokens=200))
    await stream.read()
    await engine_loop.stop()
    outputs = await read_all(stream)
    assert isinstance(outputs[-1], Failed)
    with pytest.raises(EngineStopped):
        engine_loop.submit(request("b"))


async def test_streams_are_handed_over_and_leave_nothing(loop):
    """Every open stream ends with the reason, behind all that was made; blocks are free; new requests are served."""
    streams = [loop.submit(request(str(number), max_tokens=200)) for number in range(3)]
    for stream in streams:
        await stream.read()
    assert loop.hand_over(DrainEnds()) == 3
    for stream in streams:
        outputs = await read_all(stream)
        assert isinstance(outputs[-1], Failed)
        assert isinstance(outputs[-1].error, DrainEnds)
    assert loop.num_open == 0
    assert await loop.call(lambda engine: (engine.num_requests, engine.pool.num_free)) == (0, 64)
    assert loop.hand_over(DrainEnds()) == 0
    with loop.submit(request("next", max_tokens=3)) as stream:
        assert len(tokens_of(await read_all(stream))) == 3


async def test_a_stuck_engine_does_not_keep_its_streams():
    """They are handed over while the step hangs; when it moves again, what they held is free."""
    engine, runner = engine_without_model()
    engine_loop, compute = EngineLoop(engine), runner.run
    may_go_on, is_stuck = threading.Event(), threading.Event()

    def hang(plan):
        is_stuck.set()
        assert may_go_on.wait(30)
        return compute(plan)

    engine_loop.start()
    stream = engine_loop.submit(request("a", max_tokens=200))
    await stream.read()
    runner.run = hang
    assert await asyncio.to_thread(is_stuck.wait, 30)
    engine_loop.hand_over(EngineStalled(2.5))
    outputs = await read_all(stream)
    assert isinstance(outputs[-1], Failed)
    runner.run = compute
    may_go_on.set()
    assert await engine_loop.call(lambda engine: (engine.num_requests, engine.pool.num_free)) == (0, 64)
    await engine_loop.stop()


async def test_scores_and_generations_run_side_by_side(loop):
    """A score is answered while a long generation goes on."""
    with loop.submit(request("long", max_tokens=200)) as stream, loop.submit(ScoreRequest("s", [1], [2, 3])) as score:
        await stream.read()
        outputs = await read_all(score)
        assert isinstance(outputs[-1], Scored)


async def test_a_reader_that_stops_reading_is_cut_off():
    """Unread tokens are bounded; beyond that the request is aborted and its reader told why."""
    cancelled: list[str] = []
    stream = OutputStream("a", cancelled.append, max_pending_tokens=10)
    for position in range(20):
        stream.push(Delta(0, position, [1]))
    (failed,) = await stream.read()
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, ReaderTooSlow)
    assert cancelled == ["a"]


async def test_many_readers_at_once():
    """256 streams are all served to their end by one thread, and nothing is left in the engine."""
    engine: Engine = engine_without_model(num_blocks=512, max_num_sequences=32)[0]
    engine_loop = EngineLoop(engine)
    engine_loop.start()
    streams = [engine_loop.submit(request(str(number))) for number in range(256)]
    results = await asyncio.gather(*(read_all(stream) for stream in streams))
    assert {tuple(tokens_of(outputs)) for outputs in results} == {tuple(tokens_of(results[0]))}
    await engine_loop.stop()
    assert engine.pool.num_free == 512
