"""Tools and reasoning through the OpenAI SDK: calls whole and streamed, histories, choices, and what is refused."""

import json

import openai
import pytest
from openai.types.chat import ChatCompletionMessage
from serin_gateway.events import FinishReason
from serin_gateway.reading.form import AnswerForm, CallForm
from serin_gateway.recall import Recalled
from serin_gateway.testing import ByteTokenizer, MemoryHouse, saying, small_catalog, small_lane
from serin_gateway.worker import ChoiceMade, TokensMade
from serin_mesh.errors import MeshError, Reason

HI = [{"role": "user", "content": "hi"}]
HERMES = AnswerForm(CallForm.HERMES)
THINKS = AnswerForm(CallForm.HERMES, "<think>", "</think>", reasoning_close_ids=tuple(b"</think>"))
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Today's weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
PING = {"type": "function", "function": {"name": "ping"}}
TOOLS = [WEATHER, PING]
ASK = {"model": "small", "messages": HI, "tools": TOOLS, "max_tokens": 500}
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Köln", "n": 1.0}}\n</tool_call>'
TWO = f'Let me see.\n{CALL}\n<tool_call>\n{{"name": "ping", "arguments": {{}}}}\n</tool_call>'


@pytest.fixture
def tool_front(fronts_on):
    """Opens doors on models that write as a form says."""

    def opened(*texts, form=HERMES, piece=1, script=None, **parts):
        tokenizer = ByteTokenizer(form)
        house = MemoryHouse(script or saying(*texts, piece=piece), tokenizer=tokenizer, **parts)
        house.tokenizer = tokenizer
        return fronts_on(house)

    return opened


async def streamed(front, **ask) -> tuple[list, ChatCompletionMessage, str]:
    """All chunks, and the message and reason that the SDK puts together."""
    async with front.openai.chat.completions.stream(**ask) as stream:
        chunks = [event.chunk async for event in stream if event.type == "chunk"]
        choice = (await stream.get_final_completion()).choices[0]
    return chunks, choice.message, choice.finish_reason


@pytest.mark.parametrize("piece", [1, 7, 1000])
async def test_several_calls_in_one_answer(tool_front, piece):
    """Name, arguments as the model wrote them, text before them; the SDK's stream gives the same message."""
    async with tool_front(TWO, piece=piece) as front:
        answer = await front.openai.chat.completions.create(**ASK)
        choice = answer.choices[0]
        assert (choice.finish_reason, choice.message.content) == ("tool_calls", "Let me see.")
        calls = [(call.type, call.function.name, call.function.arguments) for call in choice.message.tool_calls]
        wanted = [("function", "get_weather", '{"city": "Köln", "n": 1.0}'), ("function", "ping", "{}")]
        assert calls == wanted
        assert answer.usage.completion_tokens == len(TWO.encode()) + 1
        _, message, reason = await streamed(front, **ASK)
        assert (reason, message.content) == ("tool_calls", "Let me see.")
        assert [(call.type, call.function.name, call.function.arguments) for call in message.tool_calls] == wanted


async def test_deltas_come_as_the_api_says(tool_front):
    """Index, identifier, type and name first and once; then arguments under the same index."""
    async with tool_front(TWO) as front:
        chunks, _, _ = await streamed(front, **ASK)
        deltas = [delta for chunk in chunks for delta in chunk.choices[0].delta.tool_calls or []]
        heads = [delta for delta in deltas if delta.id]
        assert [(d.index, d.type, d.function.name, d.function.arguments) for d in heads] == [
            (0, "function", "get_weather", ""),
            (1, "function", "ping", ""),
        ]
        tails = [delta for delta in deltas if not delta.id]
        assert {(d.type, d.function.name) for d in tails} == {(None, None)}
        assert [d.index for d in deltas] == sorted(d.index for d in deltas)
        for index, arguments in enumerate(['{"city": "Köln", "n": 1.0}', "{}"]):
            assert "".join(d.function.arguments for d in tails if d.index == index) == arguments
        assert chunks[-1].choices[0].finish_reason == "tool_calls"
        assert chunks[0].choices[0].delta.role == "assistant"


async def test_identifiers_are_nobodys_to_guess(tool_front):
    """Different in every answer, 96 random bits each."""
    async with tool_front(TWO) as front:
        answers = [await front.openai.chat.completions.create(**ASK) for _ in range(3)]
        ids = [call.id for answer in answers for call in answer.choices[0].message.tool_calls]
    assert len(set(ids)) == 6
    assert all(one.startswith("call_") and len(one) == 5 + 24 for one in ids)


async def test_an_answer_of_calls_alone_has_no_content(tool_front):
    """As null."""
    async with tool_front(CALL) as front:
        message = (await front.openai.chat.completions.create(**ASK)).choices[0].message
    assert message.content is None
    assert len(message.tool_calls) == 1


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>\n{"name": "rm", "arguments": {}}\n</tool_call>',
        '<tool_call>{"name": "ping", "arguments": [1]}</tool_call>',
        '<tool_call>{"name": "ping", "argum',
        "plain",
    ],
)
async def test_what_is_no_call_is_content(tool_front, text):
    """Nothing is lost, whole and streamed."""
    async with tool_front(text) as front:
        choice = (await front.openai.chat.completions.create(**ASK)).choices[0]
        assert (choice.finish_reason, choice.message.content, choice.message.tool_calls) == ("stop", text, None)
        _, message, reason = await streamed(front, **ASK)
        assert (reason, message.content) == ("stop", text)


async def test_a_call_that_is_cut_ends_with_length(tool_front):
    """Half a call is content; a whole one before it stays a call."""
    async with tool_front(TWO) as front:
        whole = len(f"Let me see.\n{CALL}".encode())
        choice = (await front.openai.chat.completions.create(**ASK | {"max_tokens": whole + 12})).choices[0]
        assert (choice.finish_reason, len(choice.message.tool_calls)) == ("length", 1)
        assert choice.message.content == "Let me see.\n<tool_call>"
        choice = (await front.openai.chat.completions.create(**ASK | {"max_tokens": 30})).choices[0]
        assert (choice.finish_reason, choice.message.tool_calls) == ("length", None)
        assert choice.message.content == TWO.encode()[:30].decode()


@pytest.mark.parametrize(
    ("arguments", "told", "content"),
    [('{"x": "a', '{"x": "a', None), ('{"x": 1, ]}}</tool_call> so', '{"x": 1, ', "]}}</tool_call> so")],
    ids=["cut", "no JSON"],
)
@pytest.mark.parametrize("piece", [1, 1000])
async def test_a_call_that_breaks_off_in_a_stream(tool_front, arguments, told, content, piece):
    """What there is of it was told, the rest is content, and nothing says that there is a call to make."""
    text = f'{CALL[:11]}{{"name": "ping", "arguments": {arguments}'
    async with tool_front(text, piece=piece) as front:
        whole = (await front.openai.chat.completions.create(**ASK)).choices[0]
        assert (whole.finish_reason, whole.message.content, whole.message.tool_calls) == ("stop", text, None)
        _, message, reason = await streamed(front, **ASK)
        assert (reason, message.content or None) == ("stop", content)
        (call,) = message.tool_calls
        assert (call.function.name, call.function.arguments) == ("ping", told)
        stream = await front.openai.chat.completions.create(**ASK | {"max_tokens": len(text) - 1}, stream=True)
        choices = [chunk.choices[0] async for chunk in stream]
        assert choices[-1].finish_reason == "length"
        pieces = [d.function.arguments for choice in choices for d in choice.delta.tool_calls or []]
        assert "".join(pieces) == (told if content else told[:-1])


FIRST = 'ping", "arguments": {}}\n</tool_call>'
CUT = {
    "in the name": ("get_we", [], ""),
    "in the arguments": ('get_weather", "arguments": {"city": "Ol', [], '{"city": "Ol'),
    "at a mark": (f"{FIRST}\n<tool_call>\n", ["ping"], ""),
    "in the next": (
        f'{FIRST}\n<tool_call>\n{{"name": "get_weather", "arguments": {{"city": "Ol',
        ["ping"],
        '{"city": "Ol',
    ),
}
"""What a model writes behind a call that is required: whole calls, and what a stream tells of one that was cut."""


@pytest.mark.parametrize(("text", "calls", "told"), CUT.values(), ids=CUT)
@pytest.mark.parametrize("ends", ["length", "stop", "by itself"])
async def test_nothing_of_a_required_call_that_is_cut_is_text(tool_front, text, calls, told, ends):
    """At every door, whole and streamed; the reason is why it was cut, never that there are calls to make."""
    script = saying(f"{text}XX" if ends == "stop" else text)
    limit = len(text) if ends == "length" else 500
    asked = ASK | {"max_tokens": limit, "tool_choice": "required"} | ({"stop": "XX"} if ends == "stop" else {})
    reason = "length" if ends == "length" else "stop"
    async with tool_front(script=script) as front:
        whole = (await front.openai.chat.completions.create(**asked)).choices[0]
        assert (whole.finish_reason, whole.message.content or "") == (reason, "")
        assert [call.function.name for call in whole.message.tool_calls or []] == calls
        stream = await front.openai.chat.completions.create(**asked, stream=True)
        choices = [chunk.choices[0] async for chunk in stream]
        assert (choices[-1].finish_reason, "".join(one.delta.content or "" for one in choices)) == (reason, "")
        grown = [delta for one in choices for delta in one.delta.tool_calls or [] if delta.index == len(calls)]
        assert "".join(delta.function.arguments for delta in grown) == told

        flat = [{"type": "function", **one["function"]} for one in TOOLS]
        ask = {"model": "small", "input": "hi", "tools": flat, "tool_choice": "required", "max_output_tokens": limit}
        if ends != "stop":  # which this API does not know
            made = (await front.http.post("/v1/responses", json=ask)).json()
            assert made["status"] == ("incomplete" if ends == "length" else "completed")
            assert [item["name"] for item in made["output"] if item["type"] == "function_call"] == calls
            said = [part["text"] for item in made["output"] if item["type"] == "message" for part in item["content"]]
            assert "".join(said) == ""
            assert "output_text.delta" not in (await front.http.post("/v1/responses", json=ask | {"stream": True})).text

        used = [{"name": one["name"], "input_schema": one.get("parameters", {})} for one in flat]
        ask = {"model": "small", "messages": HI, "tools": used, "tool_choice": {"type": "any"}, "max_tokens": limit}
        ask |= {"stop_sequences": ["XX"]} if ends == "stop" else {}
        made = (await front.http.post("/v1/messages", json=ask)).json()
        wanted = {"length": "max_tokens", "stop": "stop_sequence", "by itself": "end_turn"}[ends]
        assert (made["stop_reason"], [block["name"] for block in made["content"]]) == (wanted, calls)
        assert "text_delta" not in (await front.http.post("/v1/messages", json=ask | {"stream": True})).text


async def test_a_repeat_gets_the_same_deltas(tool_front):
    """Byte for byte, identifiers included; two choices at once are told apart."""
    async with tool_front(TWO) as front:
        send = ASK | {"stream": True, "n": 2}
        first, again = [
            await front.http.post("/v1/chat/completions", json=send, headers={"idempotency-key": "k"}) for _ in range(2)
        ]
        assert again.headers["idempotent-replayed"] == "true"
        assert first.content == again.content
        chunks = [json.loads(line[6:]) for line in first.text.split("\n\n") if line.startswith("data: {")]
        told: dict[tuple[int, int], str] = {}
        for choice in [choice for chunk in chunks for choice in chunk["choices"]]:
            for delta in choice["delta"].get("tool_calls", []):
                at = choice["index"], delta["index"]
                told[at] = told.get(at, "") + delta["function"]["arguments"]
        wanted = {0: '{"city": "Köln", "n": 1.0}', 1: "{}"}
        assert told == {(choice, call): text for choice in range(2) for call, text in wanted.items()}
        assert len(front.house.workers.orders) == 1


async def test_one_call_at_most(tool_front):
    """parallel_tool_calls=false ends the answer behind its first call, and what was made behind it is not charged."""
    async with tool_front(TWO) as front:
        answer = await front.openai.chat.completions.create(**ASK, parallel_tool_calls=False)
        choice = answer.choices[0]
        assert (choice.finish_reason, len(choice.message.tool_calls)) == ("tool_calls", 1)
        assert answer.usage.completion_tokens == len(f"Let me see.\n{CALL}".removesuffix("\n</tool_call>").encode())
        single = ASK | {"parallel_tool_calls": False, "stream_options": {"include_usage": True}}
        chunks, message, reason = await streamed(front, **single)
        assert (reason, len(message.tool_calls)) == ("tool_calls", 1)
        assert chunks[-1].usage == answer.usage
        answer = await front.openai.chat.completions.create(**ASK, parallel_tool_calls=False, n=2)
        assert [len(choice.message.tool_calls) for choice in answer.choices] == [1, 1]


@pytest.mark.parametrize(
    ("choice", "said", "prompt"),
    [
        ("auto", CALL, "tools: get_weather, ping\nuser: hi\n"),
        ("required", 'ping", "arguments": {}}\n</tool_call>', 'ping\nuser: hi\n<tool_call>\n{"name": "'),
        (
            {"type": "function", "function": {"name": "ping"}},
            " {}}\n</tool_call>",
            'user: hi\n<tool_call>\n{"name": "ping", "arguments":',
        ),
    ],
    ids=["auto", "required", "named"],
)
async def test_a_choice_is_in_the_prompt(tool_front, choice, said, prompt):
    """A call that is required is begun, and the model goes on with it; the prompt pays for what was begun."""
    async with tool_front(said) as front:
        answer = await front.openai.chat.completions.create(**ASK, tool_choice=choice)
        assert answer.choices[0].finish_reason == "tool_calls"
        assert len(answer.choices[0].message.tool_calls) == 1
        assert bytes(front.house.workers.orders[0][1].prompt).decode().endswith(prompt)


async def test_none_shows_no_tools_and_reads_no_calls(tool_front):
    """What looks like a call is text then."""
    async with tool_front(CALL) as front:
        choice = (await front.openai.chat.completions.create(**ASK, tool_choice="none")).choices[0]
        assert (choice.finish_reason, choice.message.content) == ("stop", CALL)
        assert bytes(front.house.workers.orders[0][1].prompt) == b"user: hi\n"


async def test_a_history_of_calls_reaches_the_template(tool_front):
    """The message that came back, as the SDK holds it, and a tool's result."""
    async with tool_front(f"<think>hm</think>{TWO}", form=THINKS) as front:
        message = (await front.openai.chat.completions.create(**ASK)).choices[0].message
        results = [{"role": "tool", "tool_call_id": call.id, "content": "ok"} for call in message.tool_calls]
        history = [*HI, message.model_dump(exclude_none=True), *results]
        await front.openai.chat.completions.create(**ASK | {"messages": history})
        asked = front.house.tokenizer.conversations[-1]
    assert [turn.role for turn in asked.messages] == ["user", "assistant", "tool", "tool"]
    said = asked.messages[1]
    assert (said.reasoning, list(said.texts)) == ("hm", ["Let me see."])
    assert [call.name for call in said.tool_calls] == ["get_weather", "ping"]
    assert [turn.tool_call_id for turn in asked.messages[2:]] == [call.call_id for call in said.tool_calls]
    assert json.loads(asked.tools[0].parameters_json) == WEATHER["function"]["parameters"]


async def test_a_stream_goes_on_on_another_worker(tool_front):
    """A worker dies inside a call: one call, one identifier, every chunk once."""
    ids = [*TWO.encode(), 256]

    def dies(worker, order):
        if order.prior_outputs:
            return saying(TWO, piece=5)(worker, order)
        begun = saying(TWO)(worker, order)[: TWO.index("Köln") + 2]
        return [*begun, MeshError(Reason.UPSTREAM_UNAVAILABLE, "gone")]

    async with tool_front(script=dies) as front:
        front.house.catalog.publish(small_catalog(small_lane(num_workers=2)))
        chunks, message, reason = await streamed(front, **ASK, stream_options={"include_usage": True})
        assert (reason, len(message.tool_calls)) == ("tool_calls", 2)
        heads = [d for c in chunks if c.choices for d in c.choices[0].delta.tool_calls or [] if d.id]
        assert [head.function.name for head in heads] == ["get_weather", "ping"]
        assert [call.function.arguments for call in message.tool_calls] == ['{"city": "Köln", "n": 1.0}', "{}"]
        assert chunks[-1].usage.completion_tokens == len(ids)
        assert front.house.journal.receipts[-1].num_resumes == 1


@pytest.mark.parametrize("piece", [1, 9, 1000])
async def test_reasoning_is_told_apart_and_counted(tool_front, piece):
    """In the message, in deltas, in the usage; the text is without it."""
    text = "<think>\nA bird?\n</think>\n\nYes."
    async with tool_front(text, form=THINKS, piece=piece) as front:
        ask = {"model": "small", "messages": HI}
        answer = await front.openai.chat.completions.create(**ask)
        message = answer.choices[0].message
        assert (message.content, message.reasoning_content) == ("Yes.", "A bird?")
        num_reasoning = len("<think>\nA bird?\n</think>")
        assert answer.usage.completion_tokens_details.reasoning_tokens == num_reasoning
        assert answer.usage.completion_tokens == len(text) + 1
        chunks = [chunk async for chunk in await front.openai.chat.completions.create(**ask, stream=True)]
        deltas = [chunk.choices[0].delta for chunk in chunks]
        assert "".join((d.model_extra or {}).get("reasoning_content") or "" for d in deltas) == "A bird?"
        assert "".join(d.content or "" for d in deltas) == "Yes."


async def test_reasoning_that_the_prompt_begins(tool_front):
    """Cut at its end, all of it is reasoning."""
    form = AnswerForm(CallForm.NONE, "<think>", "</think>", reasoning_begun=True)
    async with tool_front("thinking on and on", form=form) as front:
        answer = await front.openai.chat.completions.create(model="small", messages=HI, max_tokens=8)
        choice = answer.choices[0]
        assert (choice.message.content, choice.message.reasoning_content) == ("", "thinking")
        assert (choice.finish_reason, answer.usage.completion_tokens_details.reasoning_tokens) == ("length", 8)


async def test_an_effort_reaches_the_tokenizer(tool_front):
    """Whether the template has a switch is the tokenizer's to say."""
    async with tool_front("x", form=THINKS) as front:
        await front.openai.chat.completions.create(model="small", messages=HI, reasoning_effort="low")
        assert front.house.tokenizer.conversations[-1].effort == "low"


async def test_ids_and_log_probabilities_are_all_there(tool_front):
    """Also of tokens that are no content."""
    text = f"<think>a</think>b{CALL}"
    async with tool_front(text, form=THINKS, piece=3) as front:
        ask = ASK | {"logprobs": True, "extra_body": {"return_token_ids": True}}
        choice = (await front.openai.chat.completions.create(**ask)).choices[0]
        assert choice.model_extra["token_ids"] == list(text.encode())
        assert bytes(byte for one in choice.logprobs.content for byte in one.bytes) == text.encode()
        stream = await front.openai.chat.completions.create(**ask, stream=True)
        ids = [i async for c in stream for i in (c.choices[0].model_extra or {}).get("token_ids", [])]
        assert ids == list(text.encode())


async def test_a_kept_answer_is_read_anew(tool_front):
    """What is kept are ids: whether they call is for the next request to say."""

    class Memory:
        def __init__(self):
            self.kept = None

        async def recall(self, scope, key, *, allow_answer):
            return Recalled(answer=self.kept)

        async def keep(self, scope, key, answer):
            self.kept = answer

    memory = Memory()
    async with tool_front(CALL, memory=memory) as front:
        ask = ASK | {"temperature": 0, "extra_body": {"allow_cached_answer": True}}
        first = (await front.openai.chat.completions.create(**ask)).choices[0]
        assert memory.kept[0].finish_reason is FinishReason.STOP
        again = (await front.openai.chat.completions.create(**ask)).choices[0]
        assert again.finish_reason == first.finish_reason == "tool_calls"
        assert again.message.tool_calls[0].function == first.message.tool_calls[0].function
        assert again.message.tool_calls[0].id != first.message.tool_calls[0].id
        _, message, reason = await streamed(front, **ask)
        assert (reason, message.tool_calls[0].function.arguments) == (
            "tool_calls",
            first.message.tool_calls[0].function.arguments,
        )
        assert len(front.house.workers.orders) == 1


def tool(name="f", **function):
    """A tool with a name."""
    return {"type": "function", "function": {"name": name} | function}


@pytest.mark.parametrize(
    ("body", "param", "reason"),
    [
        ({"tools": [tool("a b")]}, "tools[0].function.name", "PARAMETER_INVALID"),
        ({"tools": [tool("<|im_end|>")]}, "tools[0].function.name", "PARAMETER_INVALID"),
        ({"tools": [tool("f" * 129)]}, "tools[0].function.name", "PARAMETER_INVALID"),
        ({"tools": [tool(), tool()]}, "tools[1].function.name", "PARAMETER_INVALID"),
        ({"tools": [tool(str(n)) for n in range(129)]}, "tools", "PARAMETER_INVALID"),
        ({"tools": [tool(description="x" * 140_000)]}, "tools[0]", "PARAMETER_INVALID"),
        ({"tools": [tool(strict="yes")]}, "tools[0].function.strict", "PARAMETER_INVALID"),
        ({"tools": [tool(parameters=[])]}, "tools[0].function.parameters", "PARAMETER_INVALID"),
        ({"tools": [tool(colour=1)]}, "tools[0].function.colour", "PARAMETER_UNKNOWN"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type", "PARAMETER_UNSUPPORTED"),
        ({"tools": [{"type": "function"}]}, "tools[0].function", "PARAMETER_INVALID"),
        ({"tools": [], "tool_choice": "required"}, "tool_choice", "PARAMETER_INVALID"),
        ({"tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice", "PARAMETER_INVALID"),
        ({"tool_choice": "perhaps"}, "tool_choice", "PARAMETER_INVALID"),
        ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice.type", "PARAMETER_INVALID"),
        ({"parallel_tool_calls": "no"}, "parallel_tool_calls", "PARAMETER_INVALID"),
        ({"reasoning_effort": "very"}, "reasoning_effort", "PARAMETER_INVALID"),
        ({"reasoning_effort": "high"}, "reasoning_effort", "PARAMETER_UNSUPPORTED"),
        (
            {"messages": [{"role": "user", "content": "x", "reasoning_content": "y"}]},
            "messages[0].reasoning_content",
            "PARAMETER_INVALID",
        ),
        (
            {
                "messages": [
                    {
                        "role": "assistant",
                        "tool_calls": [
                            {"id": "1", "function": {"name": "f", "arguments": '{"a":' * 70 + "1" + "}" * 70}}
                        ],
                    }
                ]
            },
            "messages[0].tool_calls[0].function.arguments",
            "PARAMETER_INVALID",
        ),
    ],
    ids=lambda value: repr(value)[:60],
)
async def test_what_is_out_of_bounds_is_refused_by_name(tool_front, body, param, reason):
    """Before any work is done."""
    async with tool_front("x") as front:
        response = await front.chat(**{"tools": TOOLS} | body)
        error = response.json()["error"]
        assert (response.status_code, error["param"], error["reason"]) == (400, param, reason)
        assert front.house.workers.orders == []


@pytest.mark.parametrize("arguments", ['{"x": "a', '{"x": "\\ud800"}', '{"\\uDFFF": 1}'])
async def test_arguments_that_are_no_json_to_everybody_are_shown_as_they_are(tool_front, arguments):
    """Broken off, or with half of a character: what the model wrote is what it may be shown again."""
    called = {"id": "1", "type": "function", "function": {"name": "ping", "arguments": arguments}}
    history = [*HI, {"role": "assistant", "tool_calls": [called]}]
    async with tool_front("x") as front:
        assert (await front.chat(messages=history, tools=TOOLS)).status_code == 200
        shown = front.house.tokenizer.conversations[-1]
    assert shown.messages[1].tool_calls[0].arguments_json == arguments


async def test_a_template_without_tools_says_so(front):
    """As the SDK raises it."""
    with pytest.raises(openai.BadRequestError, match="cannot show tools") as refused:
        await front.openai.chat.completions.create(**ASK)
    assert refused.value.param == "tools"
    answer = await front.openai.chat.completions.create(**ASK, tool_choice="none")
    assert answer.choices[0].message.content == "hello"


async def test_a_stream_that_breaks_inside_a_call_shows_none_of_it(tool_front):
    """What was held is nobody's; the error is."""

    def breaks(worker, order):
        events = [e for e in saying(TWO)(worker, order) if not isinstance(e, ChoiceMade)]
        made = [e for e in events if isinstance(e, TokensMade)][:40]
        return [events[0], *made, MeshError(Reason.INTERNAL, "it broke")]

    async with tool_front(script=breaks) as front:
        deltas = []

        async def read() -> None:
            async for chunk in await front.openai.chat.completions.create(**ASK, stream=True):
                deltas.append(chunk.choices[0].delta)  # noqa: PERF401 - what came before the error counts

        with pytest.raises(openai.APIError, match="it broke"):
            await read()
        assert "".join(d.content or "" for d in deltas) == "Let me see."
        assert not any(d.tool_calls for d in deltas)
