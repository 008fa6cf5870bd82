"""Streams: their grammar, and that they say what the whole answer says."""

import json
from collections import defaultdict

import httpx
from harness.asking import greedy, question
from harness.server_sent_events import read_events
from openai import AsyncOpenAI


async def test_a_stream_says_what_the_answer_says(client: AsyncOpenAI):
    """The deltas join to the answer that is given without streaming; the first names the role, the last the reason."""
    ask = greedy("Stream this.", max_tokens=40)
    whole = await client.chat.completions.create(**ask)
    stream = await client.chat.completions.create(**ask, stream=True)
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content
    reasons = [chunk.choices[0].finish_reason for chunk in chunks]
    assert reasons[-1] == "length"
    assert reasons[:-1] == [None] * (len(chunks) - 1)
    assert len({chunk.id for chunk in chunks}) == 1
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}


async def test_usage_comes_last_when_asked_for(client: AsyncOpenAI):
    """`include_usage` adds one chunk without choices at the end; without it no chunk has usage."""
    ask = greedy("Stream this.", max_tokens=12, stream=True)
    stream = await client.chat.completions.create(**ask, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 12
    assert all(chunk.usage is None for chunk in chunks[:-1])
    plain = [chunk async for chunk in await client.chat.completions.create(**ask)]
    assert all(chunk.usage is None for chunk in plain)


async def test_the_wire_ends_with_done(http: httpx.AsyncClient):
    """Server-sent events: JSON in each, `[DONE]` last and once, the request's id in the headers."""
    body = greedy("On the wire.", max_tokens=6, stream=True)
    async with http.stream("POST", "/v1/chat/completions", json=body) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["x-request-id"]
        events = [event async for event in read_events(response)]
    assert events[-1] == "[DONE]"
    assert all(json.loads(event)["object"] == "chat.completion.chunk" for event in events[:-1])


async def test_choices_of_one_stream_are_told_apart(client: AsyncOpenAI):
    """With `n`, each choice's deltas join to what that choice is without streaming, and each ends once."""
    ask = question("Several.", max_tokens=20, temperature=1.4, seed=11, n=3, extra_body={"ignore_eos": True})
    whole = await client.chat.completions.create(**ask)
    texts: dict[int, str] = defaultdict(str)
    ends: dict[int, list[str]] = defaultdict(list)
    async for chunk in await client.chat.completions.create(**ask, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            if choice.finish_reason:
                ends[choice.index].append(choice.finish_reason)
    assert [texts[index] for index in range(3)] == [choice.message.content for choice in whole.choices]
    assert dict(ends) == {0: ["length"], 1: ["length"], 2: ["length"]}


async def test_no_part_of_a_stop_string_is_ever_streamed(client: AsyncOpenAI):
    """A stop string that spans many tokens is held back whole: what was streamed is the text before it."""
    ask = greedy("Hold back.", max_tokens=48)
    text = (await client.chat.completions.create(**ask)).choices[0].message.content or ""
    stop = text[20:28]
    streamed = ""
    reasons = []
    async for chunk in await client.chat.completions.create(**ask, stop=stop, stream=True):
        streamed += chunk.choices[0].delta.content or ""
        assert text[: text.index(stop)].startswith(streamed)
        reasons.append(chunk.choices[0].finish_reason)
    assert streamed == text[: text.index(stop)]
    assert reasons[-1] == "stop"


async def test_characters_are_never_split(client: AsyncOpenAI):
    """Random bytes at a high temperature arrive as valid text, the same as without streaming."""
    ask = question("Bytes.", max_tokens=64, temperature=2.0, seed=7)
    whole = await client.chat.completions.create(**ask)
    streamed = ""
    async for chunk in await client.chat.completions.create(**ask, stream=True):
        streamed += chunk.choices[0].delta.content or ""
    assert streamed == whole.choices[0].message.content


async def test_log_probabilities_travel_with_their_tokens(client: AsyncOpenAI):
    """Streamed entries are the entries of the whole answer, in order."""
    ask = greedy("Explain.", max_tokens=12, logprobs=True, top_logprobs=2)
    whole = await client.chat.completions.create(**ask)
    assert whole.choices[0].logprobs is not None
    streamed = []
    async for chunk in await client.chat.completions.create(**ask, stream=True):
        if chunk.choices[0].logprobs:
            streamed += chunk.choices[0].logprobs.content or []
    assert [entry.token for entry in streamed] == [entry.token for entry in whole.choices[0].logprobs.content or []]
