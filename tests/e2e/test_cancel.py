"""The official SDK's caller leaves in the middle of an answer: nobody else notices."""

import asyncio

from harness.asking import greedy
from openai import AsyncOpenAI


async def test_a_closed_stream_leaves_others_alone(client: AsyncOpenAI):
    """Half of the streams are closed early; the others say what they say alone."""
    asks = [greedy(f"Stream {index}", max_tokens=300) for index in range(8)]
    alone = [(await client.chat.completions.create(**ask)).choices[0].message.content for ask in asks[4:]]

    async def stream(index: int) -> str:
        text = ""
        async with await client.chat.completions.create(**asks[index], stream=True) as chunks:
            async for chunk in chunks:
                text += chunk.choices[0].delta.content or ""
                if index < 4 and len(text) > 5 * (index + 1):
                    break
        return text

    texts = await asyncio.gather(*(stream(index) for index in range(8)))
    assert texts[4:] == alone
    assert all(len(text) < 300 for text in texts[:4])


async def test_a_cancelled_call_leaves_the_client_usable(client: AsyncOpenAI):
    """A task that waits for a whole answer is cancelled; the next question of the same client is answered."""
    waiting = asyncio.create_task(client.chat.completions.create(**greedy("Long", max_tokens=3000)))
    first = await client.chat.completions.create(**greedy("Short", max_tokens=2))
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert waiting.cancelled()
    again = await client.chat.completions.create(**greedy("Short", max_tokens=2))
    assert again.choices[0].message.content == first.choices[0].message.content
