"""Completions through the official SDK."""

from serin_gateway.testing import saying


async def test_every_shape_of_prompt(front):
    """A text, ids, lists of both."""
    for prompt, bodies in (
        ("ab", [b"ab"]),
        ([97, 98], [b"ab"]),
        (["ab", "c"], [b"ab", b"c"]),
        ([[97], [98, 99]], [b"a", b"bc"]),
    ):
        front.house.workers.orders.clear()
        answer = await front.openai.completions.create(model="small", prompt=prompt)
        assert [choice.text for choice in answer.choices] == ["hello"] * len(bodies)
        assert sorted(bytes(order.prompt) for _, order in front.house.workers.orders) == sorted(bodies)
        assert answer.object == "text_completion"


async def test_several_prompts_and_choices_keep_their_order(fronts):
    """Index = prompt times n plus choice; whole and streamed."""
    async with fronts(saying("x", "yy")) as front:
        ask = {"model": "small", "prompt": ["a", "b"], "n": 2}
        answer = await front.openai.completions.create(**ask)
        assert [(choice.index, choice.text) for choice in answer.choices] == [(0, "x"), (1, "yy"), (2, "x"), (3, "yy")]
        texts = dict.fromkeys(range(4), "")
        async for chunk in await front.openai.completions.create(**ask, stream=True):
            for choice in chunk.choices:
                texts[choice.index] += choice.text
        assert texts == {0: "x", 1: "yy", 2: "x", 3: "yy"}


async def test_sixteen_tokens_unless_asked_otherwise(fronts):
    """As in the OpenAI API."""
    async with fronts(saying("x" * 50)) as front:
        answer = await front.openai.completions.create(model="small", prompt="a")
        assert answer.choices[0].text == "x" * 16
        assert answer.choices[0].finish_reason == "length"


async def test_echo_comes_first(front):
    """Also in a stream, once a choice, and for ids."""
    for prompt in ("ab", [97, 98]):
        answer = await front.openai.completions.create(model="small", prompt=prompt, echo=True, n=2)
        assert [choice.text for choice in answer.choices] == ["abhello", "abhello"]
    stream = await front.openai.completions.create(model="small", prompt="ab", echo=True, stream=True)
    assert "".join([chunk.choices[0].text async for chunk in stream]) == "abhello"


async def test_log_probabilities_in_the_old_shape(front):
    """Lists of equal length; offsets count characters, and go on from chunk to chunk."""
    answer = await front.openai.completions.create(model="small", prompt="ab", logprobs=2)
    logprobs = answer.choices[0].logprobs
    assert logprobs.tokens == list("hello")
    assert logprobs.text_offset == [0, 1, 2, 3, 4]
    assert logprobs.token_logprobs == [-0.5] * 5
    assert all(len(alternatives) == 2 for alternatives in logprobs.top_logprobs)
    offsets = []
    async for chunk in await front.openai.completions.create(model="small", prompt="ab", logprobs=0, stream=True):
        if chunk.choices and chunk.choices[0].logprobs:
            offsets += chunk.choices[0].logprobs.text_offset
    assert offsets == [0, 1, 2, 3, 4]


async def test_token_ids(front):
    """Of prompt and answer, for every choice."""
    answer = await front.openai.completions.create(
        model="small", prompt="ab", n=2, extra_body={"return_token_ids": True}
    )
    for choice in answer.choices:
        assert choice.model_extra["prompt_token_ids"] == [97, 98]
        assert choice.model_extra["token_ids"] == [*b"hello", 256]
