"""Tools and thinking through the Anthropic SDK: blocks whole and streamed, results, choices, and what is refused."""

import ssl

import anthropic
import httpx2
import pytest
from serin_gateway.reading.form import AnswerForm, CallForm
from serin_gateway.testing import ByteTokenizer, MemoryHouse, saying

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Trusts nobody, so it reads no list of authorities."""

HI = [{"role": "user", "content": "hi"}]
WEATHER = {
    "name": "get_weather",
    "description": "Today's weather.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
PING = {"name": "ping", "input_schema": {"type": "object"}}
ASK = {"model": "small", "max_tokens": 2000, "messages": HI, "tools": [WEATHER, PING]}
THINKS = AnswerForm(CallForm.HERMES, "<think>", "</think>")
WRITTEN = '{"city": "Köln", "bird": "\\ud83d\\udc26", "big": 99999999999999999999}'
CALL = f'<tool_call>\n{{"name": "get_weather", "arguments": {WRITTEN}}}\n</tool_call>'
TEXT = (
    f'<think>\nHm.\n</think>\n\nLet me see.\n{CALL}\n<tool_call>\n{{"name": "ping", "arguments": {{}}}}\n</tool_call>'
)
INPUT = {"city": "Köln", "bird": "🐦", "big": 99999999999999999999}


def deep(levels):
    """A schema of so many levels."""
    return {"a": deep(levels - 1)} if levels else {}


@pytest.fixture
def opened(fronts_on):
    """Opens doors on models that think and call, with the SDK in front."""

    def open_front(text=TEXT, form=THINKS, piece=5):
        tokenizer = ByteTokenizer(form)
        house = MemoryHouse(saying(text, piece=piece), tokenizer=tokenizer)
        house.tokenizer = tokenizer
        return fronts_on(house)

    return open_front


def client_of(front) -> anthropic.AsyncAnthropic:
    """The SDK."""
    plain = httpx2.AsyncClient(verify=NO_TLS)
    return anthropic.AsyncAnthropic(base_url=front.url, api_key=front.key, max_retries=0, http_client=plain)


@pytest.mark.parametrize("piece", [1, 11, 1000])
async def test_blocks_come_whole_and_streamed(opened, piece):
    """Thinking, text, two tools used; the SDK puts the same message together from the stream."""
    async with opened(piece=piece) as front, client_of(front) as client:
        whole = await client.messages.create(**ASK)
        async with client.messages.stream(**ASK) as stream:
            streamed = await stream.get_final_message()
    for message in (whole, streamed):
        assert [block.type for block in message.content] == ["thinking", "text", "tool_use", "tool_use"]
        thinking, text, weather, ping = message.content
        assert (thinking.thinking, thinking.signature, text.text) == ("Hm.", "", "Let me see.")
        assert (weather.name, weather.input) == ("get_weather", INPUT)
        assert (ping.name, ping.input) == ("ping", {})
        assert weather.id.startswith("toolu_")
        assert weather.id != ping.id
        assert (message.stop_reason, message.stop_sequence) == ("tool_use", None)
    assert whole.usage.output_tokens == streamed.usage.output_tokens == len(TEXT.encode()) + 1


async def test_events_follow_the_grammar(opened):
    """Each block starts, grows and stops before the next; input grows as JSON text."""
    async with opened() as front, client_of(front) as client:
        events = [event async for event in await client.messages.create(**ASK, stream=True)]
    open_block, starts = None, []
    for event in events:
        if event.type == "content_block_start":
            assert open_block is None
            open_block = event.index
            starts.append((event.index, event.content_block.type))
            if event.content_block.type == "tool_use":
                assert event.content_block.input == {}
        elif event.type == "content_block_delta":
            assert event.index == open_block
        elif event.type == "content_block_stop":
            assert event.index == open_block
            open_block = None
    assert open_block is None
    assert starts == [(0, "thinking"), (1, "text"), (2, "tool_use"), (3, "tool_use")]
    kinds = [(e.index, e.delta.type) for e in events if e.type == "content_block_delta"]
    assert set(kinds) == {(0, "thinking_delta"), (1, "text_delta"), (2, "input_json_delta"), (3, "input_json_delta")}
    deltas = [e for e in events if e.type == "content_block_delta" and e.delta.type == "input_json_delta"]
    for index, written in ((2, WRITTEN), (3, "{}")):
        assert "".join(e.delta.partial_json for e in deltas if e.index == index) == written


@pytest.mark.parametrize("piece", [1, 1000])
async def test_a_use_that_is_cut_says_so(opened, piece):
    """What there is of its input was told, its block stops, and `max_tokens` is why; whole, it is text."""
    async with opened(piece=piece) as front, client_of(front) as client:
        ask = ASK | {"max_tokens": len(TEXT[: TEXT.index("bird")].encode())}
        async with client.messages.stream(**ask) as stream:
            told = [event.partial_json async for event in stream if event.type == "input_json"]
            message = await stream.get_final_message()
        assert (message.stop_reason, [block.type for block in message.content]) == (
            "max_tokens",
            ["thinking", "text", "tool_use"],
        )
        assert "".join(told) == WRITTEN[: WRITTEN.index("bird")]
        whole = await client.messages.create(**ask)
        assert [block.type for block in whole.content] == ["thinking", "text"]


async def test_results_go_back_with_what_was_thought(opened):
    """The SDK's own blocks, sent again: a turn with thinking, text and uses, then a turn for each result."""
    async with opened() as front, client_of(front) as client:
        message = await client.messages.create(**ASK)
        uses = [block for block in message.content if block.type == "tool_use"]
        results = [{"type": "tool_result", "tool_use_id": use.id, "content": "ok", "is_error": False} for use in uses]
        said = [block.model_dump(exclude_none=True) for block in message.content if block.type != "tool_use"]
        used = [{"type": "tool_use", "id": use.id, "name": use.name, "input": {"city": "Köln"}} for use in uses]
        history = [*HI, {"role": "assistant", "content": said + used}, {"role": "user", "content": results}]
        await client.messages.create(**ASK | {"messages": history})
        asked = front.house.tokenizer.conversations[-1]
        assert (await client.messages.count_tokens(model="small", messages=HI, tools=[PING])).input_tokens == len(
            "tools: ping\nuser: hi\n"
        )
    assert [turn.role for turn in asked.messages] == ["user", "assistant", "tool", "tool"]
    assert (asked.messages[1].reasoning, list(asked.messages[1].texts)) == ("Hm.", ["Let me see."])
    assert [turn.tool_call_id for turn in asked.messages[2:]] == [use.id for use in uses]


async def test_what_the_sdk_dumps_goes_back(opened):
    """`model_dump()` of an answer's blocks, whole and streamed: members that are null are as if they were not there."""
    async with opened() as front, client_of(front) as client:
        whole = await client.messages.create(**ASK)
        async with client.messages.stream(**ASK) as stream:
            streamed = await stream.get_final_message()
        for message in (whole, streamed):
            said = [block.model_dump() for block in message.content]
            results = [
                {"type": "tool_result", "tool_use_id": block.id, "content": "ok", "toolset_name": None}
                for block in message.content
                if block.type == "tool_use"
            ]
            history = [*HI, {"role": "assistant", "content": said}, {"role": "user", "content": results}]
            await client.messages.create(**ASK | {"messages": history})
            asked = front.house.tokenizer.conversations[-1]
            assert [turn.role for turn in asked.messages] == ["user", "assistant", "tool", "tool"]


async def test_what_no_template_is_told_is_named(opened):
    """That a tool failed and how many tokens thinking may take: accepted, and named whatever the key."""
    used = {"type": "tool_use", "id": "t1", "name": "ping", "input": {}, "caller": {"type": "direct"}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": "no"}
    async with opened() as front:
        for is_error, named in ((True, "messages[2].content[0].is_error"), (False, None), (None, None)):
            turns = [
                *HI,
                {"role": "assistant", "content": [used]},
                {"role": "user", "content": [{**result, "is_error": is_error}]},
            ]
            for path, more in (("/v1/messages", {"max_tokens": 2000}), ("/v1/messages/count_tokens", {})):
                body = {"model": "small", "messages": turns, **more}
                response = await front.http.post(path, json=body)
                assert (response.status_code, response.headers.get("x-serin-ignored")) == (200, named)
                body["thinking"] = {"type": "enabled", "budget_tokens": 1024}
                response = await front.http.post(path, json=body)
                both = ", ".join(filter(None, ("thinking.budget_tokens", named)))
                assert (response.status_code, response.headers.get("x-serin-ignored")) == (200, both)
        used["caller"] = {"type": "code_execution_20250825", "tool_id": "x"}
        response = await front.http.post("/v1/messages", json={"model": "small", "max_tokens": 5, "messages": turns})
        assert response.status_code == 400
        assert "messages[1].content[0].caller" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("choice", "said", "ends", "num_calls"),
    [
        ({"type": "auto"}, TEXT, "hi\n", 2),
        ({"type": "auto", "disable_parallel_tool_use": True}, TEXT, "hi\n", 1),
        ({"type": "any"}, 'ping", "arguments": {}}', '<tool_call>\n{"name": "', 1),
        ({"type": "tool", "name": "ping"}, " {}}", '<tool_call>\n{"name": "ping", "arguments":', 1),
        ({"type": "none"}, TEXT, "user: hi\n", 0),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_a_choice_is_kept(opened, choice, said, ends, num_calls):
    """Any and a named one begin the answer as a call."""
    async with opened(said) as front, client_of(front) as client:
        message = await client.messages.create(**ASK, tool_choice=choice)
        assert sum(block.type == "tool_use" for block in message.content) == num_calls
        assert message.stop_reason == ("tool_use" if num_calls else "end_turn")
        assert bytes(front.house.workers.orders[0][1].prompt).decode().endswith(ends)


@pytest.mark.parametrize(
    ("thinking", "effort"),
    [
        ({"type": "enabled", "budget_tokens": 1024}, "medium"),
        ({"type": "adaptive"}, ""),
        ({"type": "disabled"}, "none"),
    ],
    ids=repr,
)
async def test_thinking_is_switched(opened, thinking, effort):
    """A budget is looked at, and said to have no effect."""
    async with opened() as front:
        response = await front.http.post("/v1/messages", json=ASK | {"thinking": thinking})
        assert response.status_code == 200, response.text
        assert front.house.tokenizer.conversations[-1].effort == effort
        ignored = "thinking.budget_tokens" if "budget_tokens" in thinking else None
        assert response.headers.get("x-serin-ignored") == ignored


@pytest.mark.parametrize(
    ("body", "named", "reason"),
    [
        ({"tools": [WEATHER | {"name": "a b"}]}, "tools[0].name", "PARAMETER_INVALID"),
        ({"tools": [PING, PING]}, "tools[1].name", "PARAMETER_INVALID"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema", "PARAMETER_INVALID"),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t"}]}]},
            "messages[0].content[0].tool_use_id",
            "PARAMETER_INVALID",
        ),
        ({"tools": [PING | {"type": "web_search_20250305"}]}, "tools[0].type", "PARAMETER_UNSUPPORTED"),
        (
            {"tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": 3}]},
            "tools[0].type",
            "PARAMETER_UNSUPPORTED",
        ),
        ({"tools": [PING, {"name": "f", "type": "bash_20250124"}]}, "tools[1].type", "PARAMETER_UNSUPPORTED"),
        ({"tools": [PING | {"input_schema": deep(40)}]}, "tools[0].input_schema", "PARAMETER_INVALID"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice", "PARAMETER_INVALID"),
        ({"tool_choice": {"type": "tool", "name": "rm"}}, "tool_choice", "PARAMETER_INVALID"),
        ({"tool_choice": {"type": "any", "name": "ping"}}, "tool_choice.name", "PARAMETER_INVALID"),
        ({"tools": [], "tool_choice": {"type": "any"}}, "tool_choice", "PARAMETER_INVALID"),
        (
            {"tool_choice": {"type": "any"}, "messages": [*HI, {"role": "assistant", "content": "So"}]},
            "tool_choice",
            "PARAMETER_INVALID",
        ),
        ({"thinking": {"type": "enabled", "budget_tokens": 10}}, "thinking.budget_tokens", "PARAMETER_INVALID"),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, "thinking.budget_tokens", "PARAMETER_INVALID"),
        (
            {"messages": [{"role": "user", "content": [{"type": "thinking", "thinking": "x"}]}]},
            "messages[0].content[0].type",
            "PARAMETER_INVALID",
        ),
    ],
    ids=lambda value: repr(value)[:50],
)
async def test_what_is_not_accepted_is_refused_by_name(opened, body, named, reason):
    """Under the names of this API."""
    async with opened() as front:
        response = await front.http.post("/v1/messages", json=ASK | body)
        error = response.json()["error"]
        assert (response.status_code, error["reason"], error["message"].split(":")[0]) == (400, reason, named)
        assert front.house.workers.orders == []


async def test_a_model_that_does_not_think_says_so_under_this_apis_name(opened):
    """Also to whoever only counts."""
    async with opened(form=AnswerForm(CallForm.HERMES)) as front, client_of(front) as client:
        ask = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
        with pytest.raises(anthropic.BadRequestError, match="thinking: ") as refused:
            await client.messages.create(**ASK | ask)
        assert refused.value.body["error"]["reason"] == "PARAMETER_UNSUPPORTED"
        with pytest.raises(anthropic.BadRequestError, match="thinking: "):
            await client.messages.count_tokens(model="small", messages=HI, **ask)
        assert (await client.messages.create(**ASK, thinking={"type": "disabled"})).content
