"""The Anthropic API through its official SDK: answers, streams, counts, and errors in its own words."""

import json

import anthropic
import pytest
from anthropic.types import message_count_tokens_params, message_create_params
from serin_gateway.rest.anthropic.messages import MESSAGES, PROMPT
from serin_gateway.rest.anthropic.schemas import CountTokensBody, MessagesBody
from serin_gateway.testing import saying
from serin_mesh.errors import MeshError, Reason

HI = [{"role": "user", "content": "hi"}]
USED = {"type": "tool_use", "id": "t1", "name": "w", "input": {}}
ASK = {"model": "small", "max_tokens": 100, "messages": HI}


def test_every_parameter_of_the_sdk_has_its_place():
    """A parameter that a new SDK adds fails here until somebody decides about it."""
    create = set(message_create_params.MessageCreateParamsStreaming.__annotations__)
    create |= set(message_create_params.MessageCreateParamsBase.__annotations__)
    assert create - set(MessagesBody.model_fields) - set(MESSAGES) == set()
    count = set(message_count_tokens_params.MessageCountTokensParams.__annotations__)
    assert count - set(CountTokensBody.model_fields) - set(PROMPT) == set()
    assert not set(MessagesBody.model_fields) & set(MESSAGES)


async def test_an_answer_has_text_reason_and_usage(front, sdk):
    """The whole message, as the SDK parses it; its identifier names the request."""
    async with sdk(front) as client:
        answer = await client.messages.create(**ASK, system="Be brief.")
    assert (answer.type, answer.role, answer.model) == ("message", "assistant", "small")
    assert [(block.type, block.text) for block in answer.content] == [("text", "hello")]
    assert (answer.stop_reason, answer.stop_sequence) == ("end_turn", None)
    prompt = len("system: Be brief.\nuser: hi\n")
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (prompt, 6)
    assert answer.usage.cache_read_input_tokens == 0
    assert answer.id == f"msg_{answer._request_id}"
    given = await front.http.post("/v1/feedback", json={"request_id": answer.id, "score": "up"})
    assert (given.status_code, given.json()["counted"]) == (200, True)


async def test_a_stream_says_the_same(front, sdk):
    """Its events in the order of the grammar; the SDK puts the same message together."""
    async with sdk(front) as client:
        whole = await client.messages.create(**ASK)
        kinds = [event.type async for event in await client.messages.create(**ASK, stream=True)]
        async with client.messages.stream(**ASK) as stream:
            streamed = await stream.get_final_message()
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(kinds[2:-3]) == {"content_block_delta"}
    assert (streamed.content[0].text, streamed.stop_reason) == (whole.content[0].text, whole.stop_reason)
    assert streamed.usage.output_tokens == whole.usage.output_tokens
    assert streamed.usage.input_tokens == whole.usage.input_tokens


async def test_the_wire_names_each_event(front):
    """`event:` and `data:` agree; a ping follows the start; nothing of OpenAI's grammar is there."""
    async with front.http.stream("POST", "/v1/messages", json=ASK | {"stream": True}) as response:
        text = (await response.aread()).decode()
    events = [block.split("\n") for block in text.removesuffix("\n\n").split("\n\n")]
    assert all(json.loads(data.removeprefix("data: "))["type"] == name.removeprefix("event: ") for name, data in events)
    assert [name for name, _ in events][:2] == ["event: message_start", "event: ping"]
    assert "[DONE]" not in text


async def test_an_answer_without_text_has_no_block(fronts, sdk):
    """Whole and streamed."""
    async with fronts(saying("")) as front, sdk(front) as client:
        assert (await client.messages.create(**ASK)).content == []
        async with client.messages.stream(**ASK) as stream:
            assert (await stream.get_final_message()).content == []


async def test_each_end_has_its_name(fronts, sdk):
    """A stop sequence is named; the most tokens; the model's own end."""
    async with fronts(saying("one two three", piece=4)) as front, sdk(front) as client:
        stopped = await client.messages.create(**ASK, stop_sequences=["zzz", " tw"])
        assert (stopped.content[0].text, stopped.stop_reason, stopped.stop_sequence) == ("one", "stop_sequence", " tw")
        async with client.messages.stream(**ASK, stop_sequences=[" tw"]) as stream:
            message = await stream.get_final_message()
        assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", " tw")
        cut = await client.messages.create(**ASK | {"max_tokens": 3})
        assert (cut.content[0].text, cut.stop_reason, cut.stop_sequence) == ("one", "max_tokens", None)


@pytest.mark.parametrize(
    ("body", "prompt"),
    [
        ({"system": [{"type": "text", "text": "A"}, {"type": "text", "text": "B"}]}, "system: AB\nuser: hi\n"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "cache_control": {}}]}]},
            "user: x\n",
        ),
        ({"messages": [*HI, {"role": "assistant", "content": "The answer is"}]}, "user: hi\nassistant: The answer is"),
        (
            {
                "messages": [
                    *HI,
                    {"role": "assistant", "content": [USED]},
                    {
                        "role": "user",
                        "content": [
                            {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "rain"}]},
                            {"type": "text", "text": "so?"},
                        ],
                    },
                ]
            },
            "user: hi\nassistant: \ntool: rain\nuser: so?\n",
        ),
    ],
    ids=["system blocks", "text blocks", "an answer that is begun", "tools that were used"],
)
async def test_conversations_become_prompts(front, body, prompt):
    """Blocks, what holds for all of it, an answer to go on from, results of tools; counting counts the same."""
    answer = await front.http.post("/v1/messages", json=ASK | body)
    assert answer.status_code == 200, answer.text
    (_, order), *_ = front.house.workers.orders
    assert bytes(order.prompt).decode() == prompt
    ask = {name: value for name, value in (ASK | body).items() if name != "max_tokens"}
    counted = await front.http.post("/v1/messages/count_tokens", json=ask)
    assert (counted.status_code, counted.json()) == (200, {"input_tokens": len(prompt)})


async def test_what_is_asked_reaches_the_worker(front, sdk):
    """Sampling arrives as it was sent; the SDK counts too."""
    async with sdk(front) as client:
        extra = {"temperature": 0.5, "top_p": 0.9, "top_k": 7, "metadata": {"user_id": "u"}}
        await client.messages.create(**ASK | {"max_tokens": 9}, extra_body=extra)
        assert (await client.messages.count_tokens(model="small", messages=HI)).input_tokens == len("user: hi\n")
    (_, order), *_ = front.house.workers.orders
    sampling = order.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.max_tokens) == (0.5, 0.9, 7, 9)


@pytest.mark.parametrize(
    "neutral",
    [
        {"thinking": {"type": "disabled"}},
        {"tools": []},
        {"tool_choice": {"type": "auto"}},
        {"service_tier": "auto"},
        {"cache_control": {"type": "ephemeral"}},
        {"stop_sequences": []},
        {"system": None},
        {"stream": False},
        {"temperature": None},
        {"metadata": {}},
    ],
    ids=repr,
)
async def test_what_changes_nothing_is_accepted(front, neutral):
    """At its default, null, or without effect."""
    response = await front.http.post("/v1/messages", json=ASK | neutral)
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    ("body", "named", "reason"),
    [
        ({"max_tokens": None}, "max_tokens", "PARAMETER_INVALID"),
        ({"max_tokens": 0}, "max_tokens", "PARAMETER_INVALID"),
        ({"temperature": 1.5}, "temperature", "PARAMETER_INVALID"),
        ({"stop_sequences": ["a"] * 5}, "stop_sequences", "PARAMETER_INVALID"),
        ({"stop_sequences": [""]}, "stop_sequences", "PARAMETER_INVALID"),
        ({"messages": []}, "messages", "PARAMETER_INVALID"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages[0].role", "PARAMETER_INVALID"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content", "PARAMETER_INVALID"),
        (
            {"system": "s", "messages": [*HI, {"role": "user", "content": []}]},
            "messages[1].content",
            "PARAMETER_INVALID",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]},
            "messages[0].content[0].type",
            "PARAMETER_UNSUPPORTED",
        ),
        (
            {"messages": [{"role": "user", "content": [USED]}]},
            "messages[0].content[0].type",
            "PARAMETER_INVALID",
        ),
        (
            {"messages": [{"role": "assistant", "content": [USED]}]},
            "messages[0].content",
            "PARAMETER_INVALID",
        ),
        ({"tools": [{"name": "f", "input_schema": {}}]}, "tools", "PARAMETER_UNSUPPORTED"),
        ({"thinking": {"type": "enabled"}}, "thinking", "PARAMETER_UNSUPPORTED"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "thinking.budget_tokens", "PARAMETER_INVALID"),
        ({"service_tier": "priority"}, "service_tier", "PARAMETER_UNSUPPORTED"),
        ({"temprature": 1}, "temprature", "PARAMETER_UNKNOWN"),
        ({"metadata": {"user": "x"}}, "metadata.user", "PARAMETER_UNKNOWN"),
    ],
    ids=repr,
)
async def test_what_is_not_is_refused_by_name(front, body, named, reason):
    """In the Anthropic API's shape, with the name first."""
    response = await front.http.post("/v1/messages", json=ASK | body)
    found = response.json()
    assert (response.status_code, found["type"], found["error"]["type"]) == (400, "error", "invalid_request_error")
    assert (found["error"]["reason"], found["error"]["message"].split(":")[0]) == (reason, named)
    assert found["request_id"] == response.headers["request-id"] == response.headers["x-request-id"]
    assert front.house.workers.orders == []


async def test_errors_are_the_sdks_own(front, sdk):
    """Each status is the exception that callers of the Anthropic API catch."""
    async with sdk(front, "sk-wrong") as stranger:
        with pytest.raises(anthropic.AuthenticationError):
            await stranger.messages.create(**ASK)
    async with sdk(front) as client:
        with pytest.raises(anthropic.NotFoundError):
            await client.messages.create(**ASK | {"model": "nobody"})
    wrong = await front.http.get("/v1/messages")
    assert (wrong.status_code, wrong.json()["type"], wrong.headers["allow"]) == (405, "error", "POST")


async def test_nothing_ready_is_overloaded(fronts, sdk):
    """529, as its SDK knows it, with when to try again."""
    fails = lambda worker, order: [MeshError(Reason.NOT_READY, "nothing is ready", retry_after_s="2")]  # noqa: E731
    async with fronts(fails) as front, sdk(front) as client:
        with pytest.raises(anthropic.APIStatusError) as refused:
            await client.messages.create(**ASK)
    assert (refused.value.status_code, refused.value.body["error"]["type"]) == (529, "overloaded_error")
    assert refused.value.response.headers["x-should-retry"] == "true"


async def test_an_error_inside_a_stream_is_an_event(fronts, sdk):
    """The SDK raises it; the message does not look complete."""

    def breaks(worker, order):
        return [*saying("he", piece=1)(worker, order)[:2], MeshError(Reason.INTERNAL, "it broke")]

    async with fronts(breaks) as front, sdk(front) as client:
        kinds = []

        async def read() -> None:
            async for event in await client.messages.create(**ASK, stream=True):
                kinds.append(event.type)  # noqa: PERF401 - what came before the error counts

        with pytest.raises(anthropic.APIStatusError, match="it broke"):
            await read()
    assert kinds[0] == "message_start"
    assert "message_stop" not in kinds


async def test_models_in_anthropics_shape(front, sdk):
    """Listed page by page both ways, and one by one; without the header they stay OpenAI's."""
    async with sdk(front) as client:
        page = await client.models.list()
        names = [model.id for model in page.data]
        assert len(names) > 1
        assert (page.first_id, page.last_id, page.has_more) == (names[0], names[-1], False)
        for model in page.data:
            assert (model.type, model.display_name, model.lifecycle) == ("model", model.id, "active")
            assert model.created_at.year == 1970
            assert model == await client.models.retrieve(model.id)
        assert [model.id async for model in client.models.list(limit=1)] == names
        assert [model.id async for model in client.models.list(limit=1, before_id="~")] == names[::-1]
        assert (await client.models.list(limit=1)).has_more
        assert (await client.models.list(after_id=names[-1])).data == []
        assert (await client.models.list(lifecycle=["retired"])).data == []
        assert [model.id for model in (await client.models.list(lifecycle=["retired", "active"])).data] == names
        assert [model.id async for model in client.beta.models.list()] == names
        assert (await client.beta.models.retrieve(names[0])).id == names[0]
    plain = (await front.http.get("/v1/models")).json()
    assert (plain["object"], [model["id"] for model in plain["data"]]) == ("list", names)


async def test_errors_about_models_are_anthropics_too(front, sdk):
    """Of one that is not there, of pages, of keys, and of paths that are not there."""
    async with sdk(front) as client:
        with pytest.raises(anthropic.NotFoundError) as missing:
            await client.models.retrieve("nobody")
        assert (missing.value.type, missing.value.body["error"]["reason"]) == ("not_found_error", "MODEL_NOT_FOUND")
        assert missing.value.request_id
        for query in ({"limit": 0}, {"limit": 1001}, {"after_id": "a", "before_id": "b"}, {"lifecycle": ["x"]}):
            with pytest.raises(anthropic.BadRequestError) as refused:
                await client.models.list(**query)
            assert refused.value.body["error"]["type"] == "invalid_request_error"
        with pytest.raises(anthropic.NotFoundError) as missing:
            await client.messages.batches.list()
        assert missing.value.body["error"]["type"] == "not_found_error"
    async with sdk(front, "sk-serin-wrong") as client:
        with pytest.raises(anthropic.AuthenticationError) as unknown:
            await client.models.list()
        assert unknown.value.body["type"] == "error"
    assert (await front.http.get("/v1/messages/batches")).json()["type"] == "error"
    assert (await front.http.get("/v1/nothing", headers={"anthropic-version": "1"})).json()["type"] == "error"
    assert (await front.http.get("/v1/nothing")).json()["error"]["code"] == "not_found"
    for path, name in (("/v1/models?limit=1", "limit"), ("/v1/models/small?beta=true", "beta")):
        refused = await front.http.get(path)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, name)
    assert (await front.http.get("/v1/models?client_version=1")).status_code == 200
