"""Completions through the official SDK."""

from serin_gateway.events import TextLogprob
from serin_gateway.rest.completions import Offsets
from serin_gateway.testing import saying, small_catalog, small_lane
from serin_gateway.worker import TokenLogprob
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
    found = [offsets.of(TextLogprob(part.decode("utf-8", "replace"), part, -1.0)) for part in parts]
    assert found == [7, 7, 8, 8, 8, 9, 9, 9, 9, 10]
