"""Chat completions through the official SDK: what is asked is answered, whole and streamed."""

from serin_gateway.testing import saying

HI = [{"role": "user", "content": "hi"}]


async def test_an_answer_has_text_reason_usage_and_lane(front):
    """The whole answer, as the SDK parses it."""
    answer = await front.openai.chat.completions.create(model="small", messages=HI)
    choice = answer.choices[0]
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", "hello", "stop")
    assert (answer.object, answer.model, answer.system_fingerprint) == ("chat.completion", "small", "lane-a")
    prompt = len("user: hi\n")
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (prompt, 6)
    assert answer.usage.total_tokens == prompt + 6
    assert answer.usage.prompt_tokens_details.cached_tokens == 0


async def test_a_stream_says_the_same(front):
    """Role first, text, reason last; one id; usage only when asked for."""
    stream = await front.openai.chat.completions.create(model="small", messages=HI, stream=True)
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "hello"
    assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == "stop"
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.usage is None for chunk in chunks)
    stream = await front.openai.chat.completions.create(
        model="small", messages=HI, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 6
    assert all(chunk.usage is None for chunk in chunks[:-1])


async def test_choices_are_told_apart(fronts):
    """`n` answers by index, whole and streamed."""
    async with fronts(saying("one", "two", "three")) as front:
        answer = await front.openai.chat.completions.create(model="small", messages=HI, n=3)
        assert [(c.index, c.message.content) for c in answer.choices] == [(0, "one"), (1, "two"), (2, "three")]
        assert answer.usage.completion_tokens == 4 + 4 + 6
        texts = {0: "", 1: "", 2: ""}
        async for chunk in await front.openai.chat.completions.create(model="small", messages=HI, n=3, stream=True):
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
        assert texts == {0: "one", 1: "two", 2: "three"}


async def test_a_stop_string_cuts_text_and_bill(fronts):
    """Text before it is returned; tokens up to the one that completes it are counted, later ones are not."""
    async with fronts(saying("one two three", piece=4)) as front:
        answer = await front.openai.chat.completions.create(model="small", messages=HI, stop=[" tw", "zzz"])
        assert answer.choices[0].message.content == "one"
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage.completion_tokens == len("one tw")


async def test_max_tokens_ends_with_length(front):
    """Both names mean the same."""
    for name in ("max_tokens", "max_completion_tokens"):
        answer = await front.openai.chat.completions.create(model="small", messages=HI, **{name: 3})
        assert answer.choices[0].message.content == "hel"
        assert answer.choices[0].finish_reason == "length"


async def test_log_probabilities_spell_the_answer(front):
    """One entry for each token of the text, whole and streamed; the end id is no text."""
    ask = {"model": "small", "messages": HI, "logprobs": True, "top_logprobs": 2}
    answer = await front.openai.chat.completions.create(**ask)
    entries = answer.choices[0].logprobs.content
    assert "".join(entry.token for entry in entries) == "hello"
    assert all(len(entry.top_logprobs) == 2 and entry.logprob == -0.5 for entry in entries)
    assert entries[0].bytes == [ord("h")]
    streamed = []
    async for chunk in await front.openai.chat.completions.create(**ask, stream=True):
        if chunk.choices[0].logprobs:
            streamed += chunk.choices[0].logprobs.content
    assert [entry.token for entry in streamed] == list("hello")


async def test_log_probabilities_stop_where_the_text_stops(fronts):
    """Tokens of a matched stop string are not reported."""
    async with fronts(saying("ab--cd")) as front:
        answer = await front.openai.chat.completions.create(model="small", messages=HI, stop="--", logprobs=True)
        assert answer.choices[0].message.content == "ab"
        assert [entry.token for entry in answer.choices[0].logprobs.content] == ["a", "b"]


async def test_characters_are_never_split(fronts):
    """A character of four tokens arrives whole."""
    async with fronts(saying("a🐦b")) as front:
        stream = await front.openai.chat.completions.create(model="small", messages=HI, stream=True)
        texts = [chunk.choices[0].delta.content or "" async for chunk in stream]
        assert "".join(texts) == "a🐦b"


async def test_token_ids_are_returned_when_asked_for(front):
    """Ids of prompt and answer."""
    answer = await front.openai.chat.completions.create(
        model="small", messages=HI, extra_body={"return_token_ids": True}
    )
    assert answer.choices[0].model_extra["token_ids"] == [*b"hello", 256]
    assert answer.model_extra["prompt_token_ids"] == list(b"user: hi\n")
    stream = await front.openai.chat.completions.create(
        model="small", messages=HI, stream=True, extra_body={"return_token_ids": True}
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[0].model_extra["prompt_token_ids"] == list(b"user: hi\n")
    ids = [i for chunk in chunks for i in (chunk.choices[0].model_extra or {}).get("token_ids", [])]
    assert ids == [*b"hello", 256]


async def test_what_is_asked_reaches_the_worker(front):
    """Every sampling parameter arrives as it was sent."""
    await front.openai.chat.completions.create(
        model="demo", messages=HI, temperature=0.5, top_p=0.9, frequency_penalty=0.1, presence_penalty=-0.2,
        logit_bias={"5": 3}, seed=-1, max_tokens=9, logprobs=True, top_logprobs=4, n=2,
        extra_body={"top_k": 7, "min_p": 0.1, "repetition_penalty": 1.1, "min_tokens": 2, "stop_token_ids": [3],
                    "ignore_eos": True, "priority": 5, "cache_salt": "salt"},
    )  # fmt: skip
    _, order = front.house.workers.orders[0]
    s = order.sampling
    assert (s.temperature, s.top_p, s.top_k, s.min_p) == (0.5, 0.9, 7, 0.1)
    assert (s.frequency_penalty, s.presence_penalty, s.repetition_penalty) == (0.1, -0.2, 1.1)
    assert (s.logit_bias, s.seed, s.max_tokens, s.min_tokens) == ({5: 3.0}, 2**64 - 1, 9, 2)
    assert (list(s.stop_token_ids), s.ignore_eos, s.top_logprobs, s.choice_count) == ([3], True, 4, 2)
    assert (order.priority, order.cache_salt, order.cache_group) == (5, "salt", "default")


async def test_a_name_that_the_template_does_not_show_is_named(front):
    """Whatever the key, for chats whole and streamed and to `/tokenize`; a name that says nothing is none."""
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hi", "name": "ann"},
        {"role": "user", "content": "ho", "name": ""},
        {"role": "user", "content": "hi", "name": "bob"},
    ]
    told = "messages[1].name, messages[3].name"
    for more in ({}, {"stream": True}):
        assert (await front.chat(messages=turns, **more)).headers["x-serin-ignored"] == told
    response = await front.http.post("/tokenize", json={"model": "small", "messages": turns})
    assert (response.status_code, response.headers["x-serin-ignored"]) == (200, told)
    for turn in turns:
        turn.pop("name", None)
    assert "x-serin-ignored" not in (await front.chat(messages=turns)).headers
