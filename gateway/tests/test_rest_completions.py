"""Completions through the official SDK."""

import dataclasses
import json

from serin_gateway.events import FinishReason
from serin_gateway.limits.limiter import Limits
from serin_gateway.rest.completions import Offsets
from serin_gateway.testing import END_ID, ByteTokenizer, saying, small_catalog, small_lane
from serin_gateway.worker import ChoiceMade, TokenLogprob, TokensMade, WorkDone, WorkStarted
from serin_mesh.errors import MeshError, Reason

END = "<end>"
"""How the tokenizer of these tests spells its end id."""


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


def unlikely(texts, num_alternatives):
    """A script that says something of which no token is among the likeliest ones."""

    def script(worker, order):
        others = [(65 + n, -0.1 - n) for n in range(order.sampling.top_logprobs)]
        assert len(others) == num_alternatives[-1]
        return [
            dataclasses.replace(event, logprobs=[TokenLogprob(-9.0, others) for _ in event.token_ids])
            if isinstance(event, TokensMade)
            else event
            for event in saying(*texts)(worker, order)
        ]

    return script


async def streamed(stream):
    """The log-probabilities of a stream's only choice, chunk after chunk."""
    return [chunk.choices[0].logprobs async for chunk in stream if chunk.choices and chunk.choices[0].logprobs]


async def test_the_token_that_was_taken_is_always_listed(fronts):
    """Among a completion's up to k + 1, whole and streamed, with k = 0 too; a chat's list is the k likeliest alone."""
    asked = [0]
    async with fronts(unlikely(["xy"], asked)) as front:
        chats = front.openai.chat.completions
        for asked[0] in (0, 1, 3):
            others = {chr(65 + n): -0.1 - n for n in range(asked[0])}
            ask = {"model": "small", "prompt": "ab", "logprobs": asked[0]}
            whole = (await front.openai.completions.create(**ask)).choices[0].logprobs
            assert whole.top_logprobs == [others | {"x": -9.0}, others | {"y": -9.0}]
            parts = await streamed(await front.openai.completions.create(**ask, stream=True))
            assert [top for part in parts for top in part.top_logprobs] == whole.top_logprobs
            talk = {"model": "small", "messages": [{"role": "user", "content": "hi"}], "logprobs": True}
            talk |= {"top_logprobs": asked[0]} if asked[0] else {}
            entries = (await chats.create(**talk)).choices[0].logprobs.content
            assert [(one.token, one.logprob) for one in entries] == [("x", -9.0), ("y", -9.0)]
            assert [{other.token: other.logprob for other in one.top_logprobs} for one in entries] == [others] * 2
            parts = await streamed(await chats.create(**talk, stream=True))
            assert [one for part in parts for one in part.content] == entries


async def test_tokens_that_are_spelled_alike(fronts):
    """Pieces of characters: the likeliest is listed, and the one that was taken before all others."""

    def script(worker, order):
        found = [TokenLogprob(-2.0, [(0xA0, -0.5), (0xA1, -1.5)]), TokenLogprob(-0.1, [(97, -0.1), (0xA1, -3.0)])]
        return [WorkStarted(worker.instance, 0, 0), TokensMade(0, 0, [0x80, 97], found),
                ChoiceMade(0, FinishReason.LENGTH, None), WorkDone()]  # fmt: skip

    async with fronts(script) as front:
        answer = await front.openai.completions.create(model="small", prompt="a", logprobs=2)
        assert answer.choices[0].logprobs.top_logprobs == [{"\ufffd": -2.0}, {"a": -0.1, "\ufffd": -3.0}]


async def test_a_prompt_alone_is_scored(front):
    """`echo` with `max_tokens: 0`, as evaluation harnesses ask: nothing is made, and the prompt is what it costs."""
    ask = {"model": "small", "prompt": ["abc", "ab"], "echo": True, "max_tokens": 0, "logprobs": 1, "n": 2}
    answer = await front.openai.completions.create(**ask)
    assert [(choice.text, choice.finish_reason) for choice in answer.choices] == [
        *[("abc", "length")] * 2,
        *[("ab", "length")] * 2,
    ]
    for choice in answer.choices[:2]:
        assert choice.logprobs.tokens == ["a", "b", "c"]
        assert choice.logprobs.token_logprobs == [None, -0.98, -0.99]
        assert choice.logprobs.top_logprobs == [None, {"b": -0.98}, {"c": -0.99}]
        assert choice.logprobs.text_offset == [0, 1, 2]
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (5, 0)
    stream = await front.openai.completions.create(**ask, stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]
    for index, said in enumerate(answer.choices):
        mine = [one for chunk in chunks for one in chunk.choices if one.index == index]
        assert [(one.text, one.finish_reason) for one in mine] == [(said.text, None), ("", "length")]
        assert mine[0].logprobs == said.logprobs
    assert chunks[-1].usage == answer.usage
    assert front.house.workers.orders == []
    lines = [json.loads(line.text) for line in front.house.limiter.lines]
    assert [(line["prompt_tokens"], line["completion_tokens"]) for line in lines] == [(3, 0), (2, 0)] * 2
    assert {receipt.worker for receipt in front.house.journal.receipts} == {"lane-a-w0"}


async def test_a_prompt_alone_may_fill_the_context(front):
    """Without log-probabilities it just comes back; it needs no room for an answer, and no more than the context."""
    ask = {"model": "small", "echo": True, "max_tokens": 0}
    answer = await front.openai.completions.create(**ask, prompt="x" * 1024)
    assert (answer.choices[0].text, answer.choices[0].logprobs) == ("x" * 1024, None)
    assert answer.usage.prompt_tokens == 1024
    body = ask | {"prompt": "x" * 1025}
    assert (await front.http.post("/v1/completions", json=body)).json()["error"]["reason"] == "PROMPT_TOO_LONG"
    for path, body in (
        ("completions", {"prompt": "x", "max_tokens": 0}),
        ("completions", {"prompt": "x", "max_tokens": 0, "echo": False}),
        ("completions", {"prompt": "x", "max_tokens": 0, "echo": True, "min_tokens": 1}),
        ("chat/completions", {"messages": [{"role": "user", "content": "x"}], "max_tokens": 0}),
    ):
        error = (await front.http.post(f"/v1/{path}", json={"model": "small", **body})).json()["error"]
        assert (error["reason"], "accepted" in error["message"]) == ("PARAMETER_INVALID", True)
        assert error["param"] == ("min_tokens" if "min_tokens" in body else "max_tokens")


async def test_a_prompt_alone_is_reserved_as_such(fronts):
    """Of a limit on tokens only the prompt is taken, not the model's default answer."""
    async with fronts() as front:
        key = await front.house.key(limits=Limits(tokens_per_minute=10))
        headers = {"authorization": f"Bearer {key}"}
        body = {"model": "small", "prompt": "abcdefgh", "echo": True, "max_tokens": 0, "logprobs": 0}
        first, again = [await front.http.post("/v1/completions", json=body, headers=headers) for _ in range(2)]
        assert (first.status_code, first.headers["x-ratelimit-remaining-tokens"]) == (200, "2")
        assert again.status_code == 429


async def test_echo_with_log_probabilities(front):
    """The prompt's come first, for each choice; its first token has none, since nothing comes before it.

    The token that ended the answer is listed too: harnesses count one for each that was made.
    """
    ask = {"model": "small", "prompt": "abc", "echo": True, "logprobs": 1, "n": 2}
    answer = await front.openai.completions.create(**ask)
    for choice in answer.choices:
        assert choice.text == "abchello"
        assert choice.logprobs.tokens == [*"abchello", END]
        assert choice.logprobs.token_logprobs == [None, -0.98, -0.99, *[-0.5] * 6]
        assert choice.logprobs.top_logprobs[:2] == [None, {"b": -0.98}]
        assert choice.logprobs.text_offset == list(range(9))
    (_, _, prompt, scored), *others = front.house.scorers.calls
    assert (bytes(prompt), bytes(scored), others) == (b"a", b"bc", [])
    tokens = [[], []]
    async for chunk in await front.openai.completions.create(**ask, stream=True):
        for choice in chunk.choices:
            if choice.logprobs:
                assert choice.logprobs.text_offset[0] == len(tokens[choice.index])
                tokens[choice.index] += choice.logprobs.tokens
    assert tokens == [[*"abchello", END]] * 2


async def test_offsets_are_into_the_text_that_is_shown(fronts):
    """As of Llama's tokenizers: an id that begins every prompt is none of it, nor is the space written before it."""

    class Llama(ByteTokenizer):
        async def encode(self, scope, text, *, add_special_tokens=True):
            return [END_ID, *f" {text}".encode()]

    async with fronts(tokenizer=Llama()) as front:
        ask = {"model": "small", "prompt": "ab", "echo": True, "logprobs": 0}
        answer = (await front.openai.completions.create(**ask)).choices[0]
        assert answer.text == "abhello"
        assert answer.logprobs.tokens == [END, " ", *"abhello", END]
        assert answer.logprobs.text_offset == [0, 0, *range(8)]
        offsets = []
        async for chunk in await front.openai.completions.create(**ask, stream=True):
            offsets += chunk.choices[0].logprobs.text_offset if chunk.choices[0].logprobs else []
        assert offsets == answer.logprobs.text_offset


async def test_one_token_has_nothing_to_score(front):
    """No worker is asked for it."""
    answer = await front.openai.completions.create(model="small", prompt="a", echo=True, logprobs=0)
    assert answer.choices[0].logprobs.token_logprobs == [None, *[-0.5] * 6]
    assert front.house.scorers.calls == []


async def test_another_worker_scores_the_prompt_when_one_is_gone(fronts):
    """As with what is generated: the second that it takes down is the last."""
    gone = set()

    def rule(worker, token_id):
        if worker.instance not in gone and len(gone) < num_gone:
            gone.add(worker.instance)
            return MeshError(Reason.UPSTREAM_UNAVAILABLE, "gone")
        return TokenLogprob(-1.0, [(token_id, -1.0)])

    async with fronts(saying("x")) as front:
        front.house.catalog.publish(small_catalog(small_lane(num_workers=2)))
        front.house.scorers.rule = rule
        for num_gone, status in ((1, 200), (2, 500)):
            gone.clear()
            body = {"model": "small", "prompt": "abc", "echo": True, "logprobs": 1}
            response = await front.http.post("/v1/completions", json=body)
            assert response.status_code == status, response.text
            assert len(gone) == num_gone


async def test_token_ids(front):
    """Of prompt and answer, for every choice."""
    answer = await front.openai.completions.create(
        model="small", prompt="ab", n=2, extra_body={"return_token_ids": True}
    )
    for choice in answer.choices:
        assert choice.model_extra["prompt_token_ids"] == [97, 98]
        assert choice.model_extra["token_ids"] == [*b"hello", 256]


def test_offsets_are_characters_of_the_text_also_inside_of_one():
    """Tokens that are parts of a character begin where it does; none lies behind the text."""
    text = "é€😀x"
    parts = [bytes([byte]) for byte in text.encode()]
    offsets = Offsets(7)
    found = [offsets.of(part) for part in parts]
    assert found == [7, 7, 8, 8, 8, 9, 9, 9, 9, 10]
