"""Routing through the official SDKs: who answered is said, names are the caller's own, answers are as any."""

import httpx
import pytest
from routed import failing, house_of, model, sure
from serin_gateway.cascades.cascade import EscalationRules
from serin_gateway.catalog import TenantNames
from serin_gateway.testing import saying
from serin_mesh.errors import MeshError, Reason

HI = [{"role": "user", "content": "hi"}]
RULES = EscalationRules(mean_logprob_below=-0.5, hint=True)
UNSURE = {"mini": sure(-0.9, "small words"), "large": saying("large words")}
SURE = {"mini": sure(-0.1, "small words"), "large": saying("large words")}


@pytest.mark.parametrize(
    ("scripts", "name", "says", "route"),
    [
        (SURE, "mini", "small words", "smart:kept"),
        (UNSURE, "large", "large words", "smart:escalated:mean_logprob"),
    ],
)
async def test_openai_clients_see_one_answer_of_one_model(fronts_on, scripts, name, says, route):
    """Whole and streamed: text, usage, finish, the model that answered; headers say how it came to that."""
    async with fronts_on(house_of(scripts, rules=RULES)) as front:
        raw = await front.openai.chat.completions.with_raw_response.create(model="smart", messages=HI)
        whole = raw.parse()
        assert (whole.model, whole.choices[0].message.content, whole.choices[0].finish_reason) == (name, says, "stop")
        assert whole.usage.completion_tokens == len(says) + 1
        assert (raw.headers["serin-model"], raw.headers["serin-lane"], raw.headers["serin-route"]) == (
            name,
            name,
            route,
        )
        chunks = [
            chunk
            async for chunk in await front.openai.chat.completions.create(
                model="smart", messages=HI, stream=True, stream_options={"include_usage": True}
            )
        ]
        assert "".join(c.delta.content or "" for chunk in chunks for c in chunk.choices) == says
        assert {chunk.model for chunk in chunks} == {name}
        assert chunks[-1].usage.completion_tokens == len(says) + 1
        completion = await front.openai.completions.create(model="smart", prompt=["one", "two"], n=2, max_tokens=20)
        assert [choice.text for choice in completion.choices] == [says] * 4
        told = await front.chat(model="smart", logprobs=True)
        assert "".join(one["token"] for one in told.json()["choices"][0]["logprobs"]["content"]) == says


async def test_anthropic_clients_too(fronts_on, sdk):
    """Messages, whole and streamed."""
    async with fronts_on(house_of(UNSURE, rules=RULES)) as front, sdk(front) as client:
        message = await client.messages.create(model="smart", max_tokens=50, messages=HI)
        assert (message.model, message.content[0].text) == ("large", "large words")
        async with client.messages.stream(model="smart", max_tokens=50, messages=HI) as stream:
            assert "".join([text async for text in stream.text_stream]) == "large words"


async def test_a_hint_and_an_idempotent_repeat(fronts_on):
    """The caller decides by a header; a repeat under a key is told the same about who answered."""
    async with fronts_on(house_of(UNSURE, rules=RULES)) as front:
        front.http.headers["serin-cascade"] = "first"
        front.http.headers["idempotency-key"] = "k"
        first, repeat = [await front.chat(model="smart") for _ in range(2)]
        assert first.json() == repeat.json()
        assert repeat.headers["idempotent-replayed"] == "true"
        assert first.headers["serin-route"] == repeat.headers["serin-route"] == "smart:kept:hint"
        assert repeat.headers["serin-model"] == "mini"
        front.http.headers["idempotency-key"] = "k2"
        front.http.headers["serin-cascade"] = "never"
        refused = await front.chat(model="smart")
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "serin-cascade")
        assert "x-serin-ignored" not in first.headers
        for hint, named in (("first", "serin-cascade"), ("auto", None)):  # of a model that is no cascade
            front.http.headers.update({"idempotency-key": hint, "serin-cascade": hint})
            plain = await front.chat(model="mini")
            assert (plain.status_code, plain.headers.get("x-serin-ignored")) == (200, named)


async def test_a_prompt_alone_is_the_first_models_to_score(fronts_on):
    """Nothing is made, so no rule about answers holds; rules about prompts do."""
    for rules, route in (
        (RULES, "smart:kept"),
        (EscalationRules(prompt_longer_than=1), "smart:escalated:prompt_longer"),
    ):
        async with fronts_on(house_of(UNSURE, rules=rules)) as front:
            body = {"model": "smart", "prompt": "ab", "max_tokens": 0, "echo": True, "logprobs": 0}
            answer: httpx.Response = await front.http.post("/v1/completions", json=body)
            assert (answer.status_code, answer.headers["serin-route"]) == (200, route), answer.text
            assert answer.json()["choices"][0]["logprobs"]["token_logprobs"] == [None, -0.98]
            assert front.house.workers.orders == []


async def test_models_are_listed_by_the_callers_own_names(fronts_on):
    """What a name means to this caller, what may be asked; one name like all."""
    house = house_of(
        SURE,
        [model("mini", aliases=["gpt"]), model("large", 0)],
        rules=RULES,
        tenants={("default", ""): TenantNames({"chat": "smart", "gpt": "large"})},
    )
    async with fronts_on(house) as front:
        listed = {one["id"]: one for one in (await front.http.get("/v1/models")).json()["data"]}
        assert sorted(listed) == ["chat", "gpt", "large", "mini", "smart"]
        assert (listed["gpt"]["alias_of"], listed["gpt"]["ready"]) == ("large", False)
        assert listed["smart"]["cascade"] == {"first": "mini", "then": "large"}
        assert (listed["chat"]["alias_of"], listed["chat"]["ready"]) == ("smart", True)
        for name, one in listed.items():
            assert (await front.http.get(f"/v1/models/{name}")).json() == one
        only = await house.key(models=("mini",))
        mine = (await front.http.get("/v1/models", headers={"authorization": f"Bearer {only}"})).json()["data"]
        assert [one["id"] for one in mine] == ["mini"]
        gone = await front.http.get("/v1/models/gpt", headers={"authorization": f"Bearer {only}"})
        assert gone.status_code == 404


async def test_a_fallback_is_named_and_an_error_is_the_first_models(fronts_on):
    """The model in the body is the one that answered; where none does, the response is what it would have been."""
    full = MeshError(Reason.QUEUE_FULL, "full", retry_after_s="7")
    models = [model("large", fallbacks=["mini"]), model("mini")]
    async with fronts_on(house_of({"large": failing(full), "mini": saying("mini")}, models)) as front:
        answer: httpx.Response = await front.chat(model="large")
        assert (answer.json()["model"], answer.headers["serin-model"]) == ("mini", "mini")
        assert answer.headers["serin-route"].startswith("large:fallback:")
    async with fronts_on(house_of({"large": failing(full), "mini": failing(full)}, models)) as front:
        refused = await front.chat(model="large")
        assert refused.status_code == 503
        assert "serin-route" not in refused.headers
