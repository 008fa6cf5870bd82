"""The plain completions endpoint: every shape of prompt."""

import pytest
from harness.asking import TINY
from openai import AsyncOpenAI


async def test_a_text_and_its_ids_are_the_same_prompt(client: AsyncOpenAI):
    """A prompt as text, as ids, in a list of one: one answer."""
    first = await client.completions.create(
        model=TINY, prompt="abc", max_tokens=12, temperature=0, extra_body={"return_token_ids": True}
    )
    token_ids = (first.choices[0].model_extra or {})["prompt_token_ids"]
    assert len(token_ids) == 3
    texts = [first.choices[0].text]
    for prompt in (token_ids, ["abc"], [token_ids]):
        again = await client.completions.create(model=TINY, prompt=prompt, max_tokens=12, temperature=0)
        texts.append(again.choices[0].text)
    assert len(set(texts)) == 1


async def test_several_prompts_keep_their_order(client: AsyncOpenAI):
    """Answer i belongs to prompt i, n of them each."""
    prompts = ["one", "two two", "three three three"]
    alone = [
        (await client.completions.create(model=TINY, prompt=prompt, max_tokens=10, temperature=0)).choices[0].text
        for prompt in prompts
    ]
    together = await client.completions.create(model=TINY, prompt=prompts, max_tokens=10, temperature=0, n=2)
    assert [choice.index for choice in together.choices] == list(range(6))
    assert [choice.text for choice in together.choices] == [text for text in alone for _ in range(2)]


async def test_echo_puts_the_prompt_first(client: AsyncOpenAI):
    """`echo` returns prompt and answer as one text."""
    plain = await client.completions.create(model=TINY, prompt="Once", max_tokens=8, temperature=0)
    echoed = await client.completions.create(model=TINY, prompt="Once", max_tokens=8, temperature=0, echo=True)
    assert echoed.choices[0].text == "Once" + plain.choices[0].text


async def test_log_probabilities_in_the_old_shape(client: AsyncOpenAI):
    """Tokens, their log-probabilities, the best alternatives and text offsets, one each per token."""
    answer = await client.completions.create(model=TINY, prompt="log", max_tokens=6, temperature=0, logprobs=3)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert "".join(logprobs.tokens or []) == answer.choices[0].text
    assert len(logprobs.token_logprobs or []) == 6
    assert all(len(alternatives or {}) in (3, 4) for alternatives in logprobs.top_logprobs or [])
    assert (logprobs.text_offset or [])[0] == 0


async def test_a_prompt_is_scored_as_it_was_made(client: AsyncOpenAI):
    """Log-probabilities of an answer are those that its tokens get as a prompt."""
    ask = {"model": TINY, "temperature": 0, "logprobs": 2}
    made = await client.completions.create(
        prompt="Once", max_tokens=8, **ask, extra_body={"return_token_ids": True, "ignore_eos": True}
    )
    extra = made.choices[0].model_extra or {}
    ids = [*extra["prompt_token_ids"], *extra["token_ids"]]
    echoed = await client.completions.create(prompt=ids, max_tokens=1, echo=True, **ask)
    first, again = made.choices[0].logprobs, echoed.choices[0].logprobs
    assert first is not None
    assert again is not None
    scored = again.token_logprobs or []
    assert (len(scored), scored[0]) == (len(ids) + 1, None)
    assert scored[len(ids) - 8 : -1] == pytest.approx(first.token_logprobs, abs=1e-4)
    assert (again.tokens or [])[len(ids) - 8 : -1] == first.tokens
    alone = (await client.completions.create(prompt=ids, max_tokens=0, echo=True, **ask)).choices[0].logprobs
    assert alone is not None
    assert alone.token_logprobs == pytest.approx(scored[:-1], abs=1e-4)
    tokens, tops = (alone.tokens or [])[1:], (alone.top_logprobs or [])[1:]
    assert [top[token] for token, top in zip(tokens, tops, strict=True)] == (alone.token_logprobs or [])[1:]


async def test_a_stream_says_what_the_answer_says(client: AsyncOpenAI):
    """Streamed texts join to the answer."""
    ask = {"model": TINY, "prompt": "stream", "max_tokens": 20, "temperature": 0}
    whole = await client.completions.create(**ask)
    stream = await client.completions.create(**ask, stream=True)
    assert "".join([chunk.choices[0].text async for chunk in stream]) == whole.choices[0].text
