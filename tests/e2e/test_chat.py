"""Chat completions through the official SDK, against a mesh of real processes."""

import asyncio

import pytest
from harness.asking import TINY, count_words, greedy, question
from openai import AsyncOpenAI


async def test_the_demo_model_answers_with_usage(client: AsyncOpenAI):
    """A question is answered, the answer ends by itself, and every token is counted."""
    answer = await client.chat.completions.create(**greedy("What is the capital of France?", model="small"))
    choice = answer.choices[0]
    assert choice.message.role == "assistant"
    assert choice.message.content == "Paris"
    assert choice.finish_reason == "stop"
    assert answer.model == "small"
    assert answer.object == "chat.completion"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 0
    assert answer.usage.completion_tokens > 0
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


async def test_two_models_and_an_alias_are_served_by_one_mesh(client: AsyncOpenAI):
    """Each model answers in its own way; an alias answers as its model does."""
    small = await client.chat.completions.create(**greedy("What is 2 + 3?", model="small"))
    alias = await client.chat.completions.create(**greedy("What is 2 + 3?", model="demo"))
    tiny = await client.chat.completions.create(**greedy("What is 2 + 3?", max_tokens=8))
    assert small.choices[0].message.content == alias.choices[0].message.content
    assert tiny.choices[0].message.content != small.choices[0].message.content
    assert tiny.model == TINY


async def test_listed_models_can_be_looked_up(client: AsyncOpenAI):
    """Every listed model can be retrieved by its id, aliases too."""
    listed = [model.id async for model in client.models.list()]
    assert {"small", "demo", TINY} <= set(listed)
    for model_id in listed:
        assert (await client.models.retrieve(model_id)).id == model_id


async def test_max_tokens_ends_with_length(client: AsyncOpenAI):
    """Both names of the limit count tokens exactly; the answer says why it ended."""
    for name in ("max_tokens", "max_completion_tokens"):
        ask = {**greedy("Go on."), name: 7}
        if name != "max_tokens":
            del ask["max_tokens"]
        answer = await client.chat.completions.create(**ask)
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 7


async def test_greedy_answers_repeat(client: AsyncOpenAI):
    """Temperature 0 gives one answer, whichever other way of being greedy is used."""
    plain = await client.chat.completions.create(**greedy("Repeat yourself.", max_tokens=24))
    again = await client.chat.completions.create(**greedy("Repeat yourself.", max_tokens=24))
    top_one = await client.chat.completions.create(
        **question("Repeat yourself.", max_tokens=24, temperature=1.3, extra_body={"top_k": 1})
    )
    texts = {answer.choices[0].message.content for answer in (plain, again, top_one)}
    assert len(texts) == 1


async def test_a_seed_repeats_and_another_differs(client: AsyncOpenAI):
    """The seed decides a sampled answer."""

    async def ask(seed: int) -> str | None:
        answer = await client.chat.completions.create(
            **question("Say something.", max_tokens=32, temperature=1.5, seed=seed)
        )
        return answer.choices[0].message.content

    assert await ask(5) == await ask(5)
    assert await ask(5) != await ask(6)


async def test_several_choices_share_a_prompt(client: AsyncOpenAI):
    """`n` answers arrive in order of index; sampled ones differ, greedy ones are equal."""
    sampled = await client.chat.completions.create(
        **question("Say something.", max_tokens=24, temperature=1.5, seed=1, n=3, extra_body={"ignore_eos": True})
    )
    assert [choice.index for choice in sampled.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in sampled.choices}) == 3
    assert sampled.usage is not None
    assert sampled.usage.completion_tokens == 3 * 24
    equal = await client.chat.completions.create(**greedy("Say something.", max_tokens=24, n=3))
    assert len({choice.message.content for choice in equal.choices}) == 1


async def test_a_stop_string_ends_the_answer_before_itself(client: AsyncOpenAI):
    """The text before the first stop string is returned; tokens behind the one that completes it are not billed."""
    whole = await client.chat.completions.create(**greedy("Stop somewhere.", max_tokens=40))
    text = whole.choices[0].message.content
    assert text is not None
    stop = text[12:15]
    stopped = await client.chat.completions.create(**greedy("Stop somewhere.", max_tokens=40, stop=[stop, "\x00never"]))
    assert stopped.choices[0].message.content == text[: text.index(stop)]
    assert stopped.choices[0].finish_reason == "stop"
    assert stopped.usage is not None
    assert stopped.usage.completion_tokens == text.index(stop) + len(stop)  # the tiny model has one token per character


async def test_log_probabilities_describe_the_answer(client: AsyncOpenAI):
    """One entry per token: bytes that join to the text, the most probable first, the greedy one among them."""
    answer = await client.chat.completions.create(**greedy("Explain.", max_tokens=16, logprobs=True, top_logprobs=5))
    choice = answer.choices[0]
    assert choice.logprobs is not None
    entries = choice.logprobs.content
    assert entries is not None
    assert len(entries) == 16
    assert b"".join(bytes(entry.bytes or []) for entry in entries).decode() == choice.message.content
    for entry in entries:
        ranked = [alternative.logprob for alternative in entry.top_logprobs]
        assert len(ranked) == 5
        assert ranked == sorted(ranked, reverse=True)
        assert entry.logprob <= 0
        assert entry.top_logprobs[0].token == entry.token
        assert entry.logprob == pytest.approx(ranked[0])


async def test_logit_bias_changes_the_choice_of_tokens(client: AsyncOpenAI):
    """A token biased by -100 does not appear; one biased by +100 is all there is."""
    plain = await client.chat.completions.create(**greedy("Bias.", max_tokens=8, extra_body={"return_token_ids": True}))
    token_ids = (plain.choices[0].model_extra or {})["token_ids"]
    banned = token_ids[0]
    other = await client.chat.completions.create(
        **greedy("Bias.", max_tokens=8, logit_bias={str(banned): -100}, extra_body={"return_token_ids": True})
    )
    assert banned not in (other.choices[0].model_extra or {})["token_ids"]
    only = await client.chat.completions.create(
        **greedy("Bias.", max_tokens=8, logit_bias={str(banned): 100}, extra_body={"return_token_ids": True})
    )
    assert (only.choices[0].model_extra or {})["token_ids"] == [banned] * 8


@pytest.mark.parametrize(
    "extension",
    [{"min_p": 0.2}, {"repetition_penalty": 1.5}, {"min_tokens": 4}, {"top_k": 3}],
    ids=lambda extension: next(iter(extension)),
)
async def test_widely_used_extensions_work(client: AsyncOpenAI, extension: dict[str, object]):
    """Each extension is accepted and the answer is complete."""
    answer = await client.chat.completions.create(
        **question("Extend.", max_tokens=8, temperature=0.9, seed=3, extra_body={"ignore_eos": True, **extension})
    )
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 8


async def test_penalties_forbid_what_was_said(client: AsyncOpenAI):
    """The strongest penalties make greedy answers use more different tokens."""
    plain = await client.chat.completions.create(**greedy("aaaa", max_tokens=48))
    penalised = await client.chat.completions.create(
        **greedy("aaaa", max_tokens=48, frequency_penalty=2, presence_penalty=2)
    )
    distinct = [len(set(answer.choices[0].message.content or "")) for answer in (plain, penalised)]
    assert distinct[1] > distinct[0]


async def test_stop_token_ids_end_a_choice(client: AsyncOpenAI):
    """A stop id ends the choice with reason `stop`."""
    plain = await client.chat.completions.create(
        **greedy("Stop id.", max_tokens=12, extra_body={"return_token_ids": True})
    )
    token_ids = (plain.choices[0].model_extra or {})["token_ids"]
    stopped = await client.chat.completions.create(
        **greedy("Stop id.", max_tokens=12, extra_body={"stop_token_ids": [token_ids[5]]})
    )
    assert stopped.choices[0].finish_reason == "stop"
    assert stopped.usage is not None
    assert stopped.usage.completion_tokens == token_ids.index(token_ids[5]) + 1


async def test_parameters_without_effect_are_accepted(client: AsyncOpenAI):
    """What is at its documented default, or changes nothing, is taken and changes nothing."""
    plain = await client.chat.completions.create(**greedy("Harmless.", max_tokens=8))
    decorated = await client.chat.completions.create(
        **greedy(
            "Harmless.", max_tokens=8, user="u-1", metadata={"team": "a"}, store=False, service_tier="auto",
            parallel_tool_calls=True, response_format={"type": "text"}, top_p=1, presence_penalty=0, n=1,
        )
    )  # fmt: skip
    assert decorated.choices[0].message.content == plain.choices[0].message.content


async def test_a_conversation_with_every_plain_role(client: AsyncOpenAI):
    """System, user and assistant turns are all part of the prompt: each one added makes it longer."""
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": [{"type": "text", "text": "And "}, {"type": "text", "text": "now?"}]},
    ]
    lengths = []
    for count in (1, 2, 4):
        answer = await client.chat.completions.create(model=TINY, messages=turns[:count], max_tokens=1, temperature=0)
        assert answer.usage is not None
        lengths.append(answer.usage.prompt_tokens)
    assert lengths == sorted(set(lengths))


async def test_sixty_four_at_once_are_all_equal(client: AsyncOpenAI):
    """64 parallel greedy requests in `numerics: invariant` give 64 equal answers, equal to the one given alone."""
    ask = greedy("Count to ten.", model="small", max_tokens=24, extra_body={"ignore_eos": True})
    alone = await client.chat.completions.create(**ask)
    answers = await asyncio.gather(*(client.chat.completions.create(**ask) for _ in range(64)))
    assert {answer.choices[0].message.content for answer in answers} == {alone.choices[0].message.content}
    assert {answer.usage.completion_tokens for answer in answers if answer.usage} == {24}


async def test_different_prompts_at_once_do_not_mix(client: AsyncOpenAI):
    """Answers of 24 different prompts are the same at once as one by one."""
    asks = [greedy(f"Prompt number {index}: {count_words(index)}", max_tokens=20) for index in range(24)]
    one_by_one = [(await client.chat.completions.create(**ask)).choices[0].message.content for ask in asks]
    at_once = await asyncio.gather(*(client.chat.completions.create(**ask) for ask in asks))
    assert [answer.choices[0].message.content for answer in at_once] == one_by_one
