"""The Anthropic API against a real model, by its official SDK: the same answers as over the OpenAI API."""

from collections.abc import AsyncIterator

import anthropic
import httpx2
import pytest
from harness.asking import TINY, greedy
from harness.clients import NO_TLS
from harness.running_mesh import RunningMesh
from openai import AsyncOpenAI

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
ASK = {"model": "small", "max_tokens": 16, "messages": QUESTION, "extra_body": {"temperature": 0}}


@pytest.fixture
async def messages(mesh: RunningMesh) -> AsyncIterator[anthropic.resources.AsyncMessages]:
    """The SDK's messages, set up as `serin env` says; nothing is tried again."""
    plain = httpx2.AsyncClient(verify=NO_TLS, timeout=60)
    async with anthropic.AsyncAnthropic(
        base_url=mesh.rest, api_key=mesh.key, max_retries=0, http_client=plain
    ) as client:
        yield client.messages


async def test_a_message_is_what_a_chat_completion_is(messages, client: AsyncOpenAI):
    """Text, tokens and the end of it; whole and streamed; counting counts what is charged."""
    told = await client.chat.completions.create(**greedy(QUESTION[0]["content"], model="small", max_tokens=16))
    message = await messages.create(**ASK)
    assert message.content[0].text == told.choices[0].message.content == "Paris"
    assert (message.stop_reason, told.choices[0].finish_reason) == ("end_turn", "stop")
    num_input = message.usage.input_tokens + message.usage.cache_read_input_tokens
    assert (num_input, message.usage.output_tokens) == (told.usage.prompt_tokens, told.usage.completion_tokens)
    assert (await messages.count_tokens(model="small", messages=QUESTION)).input_tokens == num_input
    async with messages.stream(**ASK) as stream:
        assert "".join([text async for text in stream.text_stream]) == "Paris"
        assert (await stream.get_final_message()).usage.output_tokens == message.usage.output_tokens


async def test_an_answer_that_is_begun_is_gone_on_with(messages):
    """The assistant's last turn is no turn of its own: the model goes on inside it."""
    begun = [*QUESTION, {"role": "assistant", "content": "Par"}]
    message = await messages.create(**ASK | {"messages": begun})
    assert message.content[0].text == "is"


async def test_a_stop_sequence_ends_it(messages):
    """Named, and not part of the text."""
    ask = {
        "model": TINY,
        "max_tokens": 40,
        "messages": [{"role": "user", "content": "Go."}],
        "extra_body": {"temperature": 0},
    }
    text = (await messages.create(**ask)).content[0].text
    stopped = await messages.create(**ask, stop_sequences=[text[10:14]])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", text[10:14])
    assert stopped.content[0].text == text[: text.index(text[10:14])]


async def test_a_prompt_that_is_too_long_is_refused_with_both_numbers(messages):
    """As the SDK's own error."""
    with pytest.raises(anthropic.BadRequestError, match=r"[0-9]{3,}.*[0-9]{3,}"):
        await messages.create(**ASK | {"messages": [{"role": "user", "content": "word " * 4000}]})
