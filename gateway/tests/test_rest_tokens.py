"""`/tokenize` and `/detokenize`: what vLLM's clients send and expect, and what is refused, by its name."""

import asyncio
import dataclasses

import httpx
import pytest
from serin_gateway.catalog import Policy
from serin_gateway.guards.detector import DetectorName
from serin_gateway.guards.policy import Action, GuardPolicies, GuardPolicy
from serin_gateway.keys.records import Ability
from serin_gateway.limits.limiter import Limits
from serin_gateway.reading.form import AnswerForm, CallForm
from serin_gateway.testing import END_ID, ByteTokenizer, MemoryHouse, small_catalog, small_lane
from serin_mesh.errors import MeshError, Reason

HI = [{"role": "user", "content": "hi"}]
BEGUN = [*HI, {"role": "assistant", "content": "Well,"}]
PING = {"type": "function", "function": {"name": "ping", "parameters": {"type": "object"}}}
CONTEXT = 1024


async def tokenize(front, headers: dict[str, str] | None = None, **body) -> httpx.Response:
    """POST /tokenize for the model `small`."""
    return await front.http.post("/tokenize", json={"model": "small", **body}, headers=headers)


async def detokenize(front, tokens: object, headers: dict[str, str] | None = None, **body) -> httpx.Response:
    """POST /detokenize for the model `small`."""
    return await front.http.post("/detokenize", json={"model": "small", "tokens": tokens, **body}, headers=headers)


def told(response: httpx.Response) -> tuple[int, str, str]:
    """Status, reason and parameter of an error."""
    error = response.json()["error"]
    assert {"message", "type", "param", "code"} <= set(error)
    return response.status_code, error["reason"], error["param"]


async def test_a_text_is_tokenized_and_comes_back(front):
    """With the members that vLLM's clients read; characters of several tokens and none at all, there and back."""
    for text in ("hi", "Grüße 🐦", ""):
        response = await tokenize(front, prompt=text)
        ids = list(text.encode())
        assert response.status_code == 200
        assert response.json() == {"count": len(ids), "max_model_len": CONTEXT, "tokens": ids, "token_strs": None}
        assert (response.headers["serin-model"], response.headers["serin-lane"]) == ("small", "lane-a")
        back = await detokenize(front, ids)
        assert (back.status_code, back.json()) == (200, {"prompt": text})
    assert front.house.workers.orders == []
    assert {(one.operation, one.reason, one.usage.total_tokens) for one in front.house.journal.receipts} == {
        ("tokenize", "ok", 0),
        ("detokenize", "ok", 0),
    }


async def test_tokens_have_strings_where_they_are_wanted(front):
    """Each by itself: half a character is none."""
    answer = (await tokenize(front, prompt="aé", return_token_strs=True)).json()
    assert (answer["tokens"], answer["token_strs"]) == ([97, 195, 169], ["a", "\ufffd", "\ufffd"])


async def test_special_tokens_are_written_out(front):
    """As vLLM does: what goes in comes back."""
    assert (await detokenize(front, [104, END_ID])).json() == {"prompt": "h<end>"}


@pytest.mark.parametrize(
    ("body", "prompt", "begins_answer", "continues"),
    [
        ({"messages": HI}, "user: hi\n", True, False),
        ({"messages": HI, "add_generation_prompt": False, "add_special_tokens": False}, "user: hi\n", False, False),
        ({"messages": BEGUN, "continue_final_message": True}, "user: hi\nassistant: Well,", True, True),
        (
            {"messages": BEGUN, "continue_final_message": True, "add_generation_prompt": False},
            "user: hi\nassistant: Well,",
            False,
            True,
        ),
        ({"messages": HI, "tools": [PING]}, "tools: ping\nuser: hi\n", True, False),
        ({"messages": HI, "tools": [PING], "tool_choice": "none"}, "user: hi\n", True, False),
        (
            {"messages": HI, "tools": [PING], "tool_choice": "required"},
            'tools: ping\nuser: hi\n<tool_call>\n{"name": "',
            True,
            False,
        ),
    ],
    ids=["plain", "no header", "goes on", "goes on, said twice", "tools", "tools not shown", "a call that is begun"],
)
async def test_a_conversation_is_written_by_the_template(fronts, body, prompt, begins_answer, continues):
    """With tools as for chat; whether an answer begins behind it, or inside its last turn."""
    tokenizer = ByteTokenizer(AnswerForm(calls=CallForm.HERMES))
    async with fronts(tokenizer=tokenizer) as front:
        response = await tokenize(front, **body)
        assert response.status_code == 200, response.text
        assert bytes(response.json()["tokens"]).decode() == prompt
        assert response.json()["count"] == len(prompt)
    (rendered,) = tokenizer.conversations
    assert (rendered.begins_answer, rendered.continues) == (begins_answer, continues)


async def test_it_is_what_a_chat_is_asked_with(front):
    """The worker's prompt, id by id."""
    await front.chat(messages=HI)
    (_, order), *_ = front.house.workers.orders
    assert (await tokenize(front, messages=HI)).json()["tokens"] == list(order.prompt)


class Noting(ByteTokenizer):
    """Notes whether special tokens were wanted."""

    def __init__(self):
        super().__init__()
        self.wanted = []

    async def encode(self, scope, text, *, add_special_tokens=True):
        """Note it."""
        self.wanted.append(add_special_tokens)
        return await super().encode(scope, text)


async def test_special_tokens_are_added_unless_they_are_not_wanted(fronts):
    """True, as in vLLM, where nothing is said."""
    tokenizer = Noting()
    async with fronts(tokenizer=tokenizer) as front:
        for body in ({}, {"add_special_tokens": None}, {"add_special_tokens": True}, {"add_special_tokens": False}):
            assert (await tokenize(front, prompt="hi", **body)).status_code == 200
    assert tokenizer.wanted == [True, True, True, False]


@pytest.mark.parametrize(
    ("body", "reason", "named"),
    [
        ({}, "PARAMETER_INVALID", "prompt"),
        ({"prompt": "x", "messages": HI}, "PARAMETER_INVALID", "messages"),
        ({"prompt": ["x"]}, "PARAMETER_INVALID", "prompt"),
        ({"prompt": "x", "tools": [PING]}, "PARAMETER_INVALID", "tools"),
        ({"prompt": "x", "add_generation_prompt": True}, "PARAMETER_INVALID", "add_generation_prompt"),
        ({"prompt": "x", "continue_final_message": False}, "PARAMETER_INVALID", "continue_final_message"),
        ({"prompt": "x", "reasoning_effort": "low"}, "PARAMETER_INVALID", "reasoning_effort"),
        ({"prompt": "x", "colour": 1}, "PARAMETER_UNKNOWN", "colour"),
        ({"prompt": "x", "chat_template": "{{ 1 }}"}, "PARAMETER_UNSUPPORTED", "chat_template"),
        ({"messages": HI, "chat_template_kwargs": {"a": 1}}, "PARAMETER_UNSUPPORTED", "chat_template_kwargs"),
        ({"messages": HI, "add_special_tokens": True}, "PARAMETER_UNSUPPORTED", "add_special_tokens"),
        ({"messages": []}, "PARAMETER_INVALID", "messages"),
        ({"messages": [*HI, {"role": "cook", "content": "x"}]}, "PARAMETER_INVALID", "messages[1].role"),
        ({"messages": HI, "tools": [PING]}, "PARAMETER_UNSUPPORTED", "tools"),
        ({"messages": HI, "tools": [PING, PING]}, "PARAMETER_INVALID", "tools[1].function.name"),
        ({"messages": HI, "continue_final_message": True}, "PARAMETER_INVALID", "messages[0].content"),
        (
            {"messages": BEGUN, "continue_final_message": True, "add_generation_prompt": True},
            "PARAMETER_INVALID",
            "add_generation_prompt",
        ),
        (
            {"messages": HI, "tools": [PING], "tool_choice": "required", "add_generation_prompt": False},
            "PARAMETER_INVALID",
            "tool_choice",
        ),
        ({"prompt": "x", "model": ""}, "PARAMETER_INVALID", "model"),
    ],
)
async def test_what_cannot_be_tokenized_is_refused_by_name(front, body, reason, named):
    """As at every other endpoint."""
    assert told(await tokenize(front, **body)) == (400, reason, named)


@pytest.mark.parametrize(
    ("tokens", "named"),
    [
        ([104, END_ID + 1], "tokens[1]"),
        ([-1], "tokens[0]"),
        ([1, 2**32], "tokens[1]"),
        ([2**63], "tokens[0]"),
        ([1, True], "tokens[1]"),
        (["a"] * 1000, "tokens[0]"),
        ("hi", "tokens"),
        (None, "tokens"),
        ([[1]], "tokens[0]"),
    ],
)
async def test_ids_that_are_none_are_refused_by_their_place(front, tokens, named):
    """The first of them; the vocabulary's end is said."""
    response = await detokenize(front, tokens)
    assert told(response) == (400, "PARAMETER_INVALID", named)
    if tokens == [104, END_ID + 1]:
        assert response.json()["error"]["message"].endswith("accepted: 0 to 256, the ids of the model's vocabulary")


async def test_detokenizing_takes_nothing_else(front):
    """Unknown parameters, unknown models, other methods."""
    assert told(await detokenize(front, [1], skip=True)) == (400, "PARAMETER_UNKNOWN", "skip")
    assert (await detokenize(front, [1], model="huge")).status_code == 404
    assert (await tokenize(front, prompt="x", model="huge")).status_code == 404
    assert (await front.http.get("/tokenize")).status_code == 405
    assert (await front.http.post("/v1/tokenize", json={"model": "small", "prompt": "x"})).status_code == 404


async def test_no_more_ids_than_the_context(front):
    """Prompt and answer together fit into it, so whoever has more has no ids of one request."""
    assert (await detokenize(front, [97] * CONTEXT)).json() == {"prompt": "a" * CONTEXT}
    response = await detokenize(front, [97] * (CONTEXT + 1))
    assert told(response) == (400, "PROMPT_TOO_LONG", "tokens")
    assert f"{CONTEXT + 1} of them; the model's context is {CONTEXT} tokens" in response.json()["error"]["message"]


@pytest.mark.parametrize(("body", "named"), [({"prompt": "x"}, "prompt"), ({"messages": HI}, "messages")])
async def test_a_text_that_is_too_long_says_both_numbers(fronts, body, named):
    """By the name of what was sent, with what the tokenizer counted."""

    class Long(ByteTokenizer):
        async def encode(self, scope, text, *, add_special_tokens=True):
            raise MeshError(Reason.PROMPT_TOO_LONG, "no", token_count="2000", at_least="true", parameter="texts[0]")

        async def render(self, scope, conversation, **wanted):
            return await self.encode(scope, "")

    async with fronts(tokenizer=Long()) as front:
        response = await tokenize(front, **body)
    assert told(response) == (400, "PROMPT_TOO_LONG", named)
    message = response.json()["error"]["message"]
    assert "the prompt has at least 2000 tokens; the model's context is 1024 tokens" in message


async def test_a_request_is_counted_and_no_token(front):
    """Where requests are limited they count; nothing of a limit of tokens is reserved."""
    key = await front.house.key(limits=Limits(requests_per_minute=2, tokens_per_minute=5000))
    bearer = {"authorization": f"Bearer {key}"}
    first = await tokenize(front, bearer, prompt="long enough")
    assert first.status_code == 200
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    second = await detokenize(front, [97] * 100, bearer)
    assert (second.status_code, second.headers["x-ratelimit-remaining-tokens"]) == (200, "5000")
    assert (await tokenize(front, bearer, prompt="x")).status_code == 429
    assert (await detokenize(front, [97], bearer)).status_code == 429


async def test_a_key_must_be_made_for_inference(front):
    """As for counting tokens; whoever has no key hears nothing else."""
    other = {"authorization": f"Bearer {await front.house.key(abilities=frozenset({Ability.MODELS}))}"}
    for path, body in (("/tokenize", {"prompt": "x"}), ("/detokenize", {"tokens": [1]})):
        refused = await front.http.post(path, json={"model": "small", **body}, headers=other)
        assert told(refused)[:2] == (403, "ROLE_INSUFFICIENT")
        counted = await front.http.post(
            "/v1/messages/count_tokens", json={"model": "small", "messages": HI}, headers=other
        )
        assert counted.status_code == 403
        stranger = await front.http.post(path, json={"model": "small", **body}, headers={"authorization": ""})
        assert told(stranger)[:2] == (401, "KEY_MISSING")


async def test_unknown_parameters_are_named_to_whom_that_is_enough(front):
    """A key made with `--unknown warn`."""
    bearer = {"authorization": f"Bearer {await front.house.key(unknown='warn')}"}
    for answer in (await tokenize(front, bearer, prompt="x", a=1), await detokenize(front, [97], bearer, a=1)):
        assert (answer.status_code, answer.headers["x-serin-ignored"]) == (200, "a")


async def test_guards_look_first(fronts_on):
    """What a model would be shown is tokenized; ids, which nobody can look at, are refused under their own name."""
    house = MemoryHouse()
    masking = GuardPolicy("masking", ((DetectorName.PII, Action.MASK),), ())
    house.catalog.publish(dataclasses.replace(small_catalog(), policy=Policy(guards=GuardPolicies(masking))))
    async with fronts_on(house) as front:
        mail = "jane.doe@example.com"
        assert bytes((await tokenize(front, prompt=mail)).json()["tokens"]) == b"[EMAIL_ADDRESS]"
        asked = await tokenize(front, messages=[{"role": "user", "content": mail}], add_generation_prompt=False)
        assert bytes(asked.json()["tokens"]) == b"user: [EMAIL_ADDRESS]\n"
        refused = await detokenize(front, list(mail.encode()))
        assert told(refused) == (400, "PARAMETER_UNSUPPORTED", "tokens")
        assert refused.json()["error"]["message"].startswith("tokens: ")


async def test_a_model_of_embeddings_has_tokens_too(fronts_on):
    """Text need not leave room for an answer there."""
    house = MemoryHouse()
    house.catalog.publish(small_catalog(small_lane(num_dimensions=8)))
    async with fronts_on(house) as front:
        assert (await tokenize(front, prompt="x" * CONTEXT)).json()["count"] == CONTEXT


class Hanging(ByteTokenizer):
    """Never answers; says when it was asked and when it was let go."""

    def __init__(self):
        super().__init__()
        self.asked, self.let_go = asyncio.Event(), asyncio.Event()

    async def encode(self, scope, text, *, add_special_tokens=True):
        """Wait."""
        self.asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.let_go.set()


async def test_it_takes_no_longer_than_the_request_has(fronts):
    """504, and the tokenizer is let go."""
    tokenizer = Hanging()
    async with fronts(tokenizer=tokenizer, timeout_s=2) as front:
        assert told(await tokenize(front, prompt="x"))[:2] == (504, "DEADLINE_EXCEEDED")
        assert tokenizer.let_go.is_set()


async def test_a_client_that_leaves_takes_its_call_along(fronts):
    """Nothing waits for a tokenizer any more, and nothing stays reserved."""
    tokenizer = Hanging()
    async with fronts(tokenizer=tokenizer) as front:
        key = await front.house.key(limits=Limits(concurrent_requests=1))
        bearer = {"authorization": f"Bearer {key}"}
        leaving = asyncio.create_task(tokenize(front, bearer, prompt="x"))
        await asyncio.wait_for(tokenizer.asked.wait(), 60)
        assert (await detokenize(front, [97], bearer)).status_code == 429
        leaving.cancel()
        await asyncio.wait_for(tokenizer.let_go.wait(), 60)
        await asyncio.wait_for(front.house.journal.until_closed(2), 60)
        assert front.house.journal.receipts[-1].reason == "CANCELLED"
        assert (await detokenize(front, [97], bearer)).status_code == 200
