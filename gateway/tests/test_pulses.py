"""Who lives: workers that report, workers that stop reporting, and a gateway that was held up itself."""

import structlog
from openai import AsyncOpenAI
from serin_gateway.upstream.pulses import SILENT_TICKS, Pulses
from whole_path import whole_path

HERE = "127.0.0.1:9000"


def test_silence_is_told_with_every_tick_and_ends_with_a_report():
    """After so many ticks without a report, not one earlier; whoever stopped listening is not told."""
    pulses, told = Pulses(), []
    pulses.heard(HERE)
    pulses.listen(HERE, lambda: told.append("kept"))
    forgotten = lambda: told.append("forgotten")  # noqa: E731 - it needs a name to be forgotten by
    pulses.listen(HERE, forgotten)
    pulses.forget(HERE, forgotten)
    for _ in range(SILENT_TICKS - 1):
        pulses.tick()
    assert (pulses.is_silent(HERE), told) == (False, [])
    for _ in range(3):
        pulses.tick()
    assert (pulses.is_silent(HERE), told) == (True, ["kept"] * 3)
    assert not pulses.is_lost(HERE)
    pulses.heard(HERE)
    assert not pulses.is_silent(HERE)


def test_those_who_fall_silent_at_once_are_all_silent_before_anybody_is_told():
    """Who hears of one and looks for another one to go on with must not find it speaking."""
    pulses, seen = Pulses(), []
    others = [f"127.0.0.1:900{number}" for number in range(3)]
    for endpoint in others:
        pulses.heard(endpoint)
        pulses.listen(endpoint, lambda: seen.append([pulses.is_silent(one) for one in others]))
    for _ in range(SILENT_TICKS):
        pulses.tick()
    assert seen == [[True] * 3] * 3


def test_who_never_reported_is_unknown():
    """No report, or a connection that ended: whether it lives is not known, so nothing is taken from it."""
    pulses, told = Pulses(), []
    pulses.listen(HERE, lambda: told.append(1))
    for _ in range(2 * SILENT_TICKS):
        pulses.tick()
    pulses.heard(HERE)
    pulses.unheard(HERE)
    for _ in range(2 * SILENT_TICKS):
        pulses.tick()
    assert (pulses.is_silent(HERE), told) == (False, [])


def test_who_is_silent_stays_so_when_the_connection_goes_too():
    """A stopped process loses its connections some time later: that is no sign of life."""
    pulses = Pulses()
    pulses.heard(HERE)
    for _ in range(SILENT_TICKS):
        pulses.tick()
    pulses.unheard(HERE)
    assert pulses.is_silent(HERE)
    pulses.gone(HERE)
    assert not pulses.is_silent(HERE)


def test_silence_is_logged_by_the_name_of_who_is_silent():
    """Once when it begins and once when it ends, for a tokenizer as for a worker."""
    pulses = Pulses()
    with structlog.testing.capture_logs() as log:
        pulses.heard(HERE, "tokenizer")
        for _ in range(2 * SILENT_TICKS):
            pulses.tick()
        pulses.moved(HERE)
        pulses.heard(HERE, "tokenizer")
    assert [entry["event"] for entry in log] == ["tokenizer.silent", "tokenizer.heard_again"]


def test_a_gateway_that_was_held_up_takes_nobody_for_dead():
    """However long it stood still, it has ticked once."""
    pulses = Pulses()
    pulses.heard(HERE)
    pulses.tick()
    assert not pulses.is_silent(HERE)


async def test_the_stream_of_a_silent_worker_goes_on_elsewhere(tmp_path):
    """Both workers pause in the middle of an answer; the one that has it falls silent, and the other one ends it."""
    async with (
        whole_path(tmp_path, "hello there", num_workers=2) as path,
        AsyncOpenAI(base_url=f"{path.url}/v1", api_key=path.key, max_retries=0) as client,
    ):
        for worker in path.workers:
            worker.pause_at = 4
        ask = {"model": "small", "messages": [{"role": "user", "content": "hi"}], "stream": True}
        stream = await client.chat.completions.create(**ask)
        text = ""
        while not text:  # then the gateway has heard of the worker, and something is to be gone on with
            text += (await anext(stream)).choices[0].delta.content or ""
        silent = next(worker for worker in path.workers if worker.reached.is_set())
        other = next(worker for worker in path.workers if worker is not silent)
        other.pause_at = None
        endpoints = {w.instance: w.endpoint for w in path.catalog.current().models[0].lanes[0].workers}
        pulses = path.house._pulses
        pulses.heard(endpoints[silent.name])
        for _ in range(SILENT_TICKS):
            pulses.tick()
        await silent.went_idle.wait()
        # gRPC picks among listed addresses here: it may come back to the silent one, which is let go now.
        silent.pause_at = None
        silent.gate.set()
        text += "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert text == "hello there"
    assert path.registry.get_sample_value("serin_gateway_resumes_total", {"model": "small", "reason": "silent"}) == 1
