"""`/v1/responses` through the official SDK: whole, streamed, continued, kept, deleted, and what happens to faults."""

import asyncio
import json

import openai
import pydantic
import pytest
from response_events import check_stream, read_events
from serin_gateway.catalog import Catalog, Policy, ServedModel
from serin_gateway.conversation import Message, ToolCall
from serin_gateway.events import FinishReason
from serin_gateway.reading.form import AnswerForm, CallForm
from serin_gateway.responses.store import Bounds
from serin_gateway.testing import ByteTokenizer, MemoryHouse, saying, small_catalog, small_lane
from serin_gateway.worker import ChoiceMade, TokensMade, WorkDone, WorkStarted
from serin_mesh.errors import MeshError, Reason

THINKS = AnswerForm(CallForm.HERMES, "<think>", "</think>", reasoning_close_ids=tuple(b"</think>"))
WEATHER = {"type": "function", "name": "get_weather", "parameters": {"type": "object"}, "strict": False}
PING = {"type": "function", "name": "ping", "parameters": None, "strict": None}
TOOLS = [WEATHER, PING]
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Köln", "n": 1.0}}\n</tool_call>'
PINGED = '<tool_call>\n{"name": "ping", "arguments": {}}\n</tool_call>'
ASK = {"model": "small", "input": "hi", "tools": TOOLS, "max_output_tokens": 500}
KEY = {"idempotency-key": "order-1"}
GONE = MeshError(Reason.UPSTREAM_UNAVAILABLE, "UNAVAILABLE: Socket closed")


@pytest.fixture
def reasoners(fronts_on):
    """Opens doors on models that reason and call."""

    def opened(*texts, piece=1, script=None, **parts):
        tokenizer = ByteTokenizer(THINKS)
        house = MemoryHouse(script or saying(*texts, piece=piece), tokenizer=tokenizer, **parts)
        house.tokenizer = tokenizer
        return fronts_on(house)

    return opened


def post(front, **body):
    """POST a response; `model` and `input` have defaults."""
    return front.http.post("/v1/responses", json={"model": "small", "input": "hi"} | body)


def plain(response):
    """A response without what differs each time."""
    if isinstance(response, dict):
        odd = ("id", "call_id", "created_at", "completed_at", "store")
        return {name: plain(value) for name, value in response.items() if name not in odd}
    return [plain(one) for one in response] if isinstance(response, list) else response


ANSWERS = {
    "text": ("Grüße, Welt", {}),
    "nothing": ("", {}),
    "thought and text": ("<think>Hm, so.</think>Yes.", {}),
    "text and calls": (f"Let me see.\n{CALL}\n{PINGED}", {}),
    "a call alone": (CALL, {}),
    "thought and call": (f"<think>Hm.</think>{PINGED}", {}),
    "one call": (f"{CALL}\n{PINGED}", {"parallel_tool_calls": False}),
    "cut": ("x" * 40, {"max_output_tokens": 20}),
    "cut in thought": ("<think>Hm, so it goes on and on.</think>Yes.", {"max_output_tokens": 20}),
    "cut in a call": (CALL, {"max_output_tokens": 30}),
    "log-probabilities": ("a b", {"include": ["message.output_text.logprobs"], "top_logprobs": 2}),
}


@pytest.mark.parametrize("piece", [1, 7, 1000])
@pytest.mark.parametrize("case", ANSWERS)
async def test_streams_follow_the_grammar_and_say_what_the_whole_says(reasoners, case, piece):
    """Every event in its place, nothing left open, and the last one is the response."""
    text, fields = ANSWERS[case]
    async with reasoners(text, piece=piece) as front:
        whole = (await post(front, **ASK | fields)).json()
        stream = await post(front, **ASK | fields, stream=True)
        response = check_stream(read_events(stream.text))
        assert plain(response) == plain(whole)
        assert response["store"] is whole["store"] is True
        for made in (whole, response):
            assert (await front.http.get(f"/v1/responses/{made['id']}")).json() == made
    is_cut = case.startswith("cut")
    assert whole["status"] == ("incomplete" if is_cut else "completed")
    assert whole["incomplete_details"] == ({"reason": "max_output_tokens"} if is_cut else None)
    assert whole["usage"]["output_tokens"] > 0


@pytest.mark.parametrize("piece", [1, 1000])
async def test_a_call_that_is_cut_in_a_stream(reasoners, piece):
    """It is an item that is incomplete; the conversation goes on without it, by identifier and by its items."""
    async with reasoners(f"So\n{CALL}", piece=piece) as front:
        cut = ASK | {"max_output_tokens": len(f"So\n{CALL[: CALL.index('Köln') + 1]}"), "stream": True}
        response = check_stream(read_events((await post(front, **cut)).text))
        said, called = response["output"]
        assert (response["status"], said["status"], called["status"]) == ("incomplete", "completed", "incomplete")
        assert (called["name"], called["arguments"]) == ("get_weather", '{"city": "K')
        assert (await front.http.get(f"/v1/responses/{response['id']}")).json() == response
        more = {"role": "user", "content": "and?"}
        await front.openai.responses.create(**ASK | {"input": [more]}, previous_response_id=response["id"])
        history = [{"role": "user", "content": "hi"}, *response["output"], more]
        await front.openai.responses.create(**ASK | {"input": history})
        _, chained, sent = front.house.tokenizer.conversations
    for conversation in (chained, sent):
        assert [(turn.role, list(turn.texts), list(turn.tool_calls)) for turn in conversation.messages] == [
            ("user", ["hi"], []),
            ("assistant", ["So"], []),
            ("user", ["and?"], []),
        ]


async def test_the_sdk_reads_a_response(reasoners):
    """Items, text, usage, and what was asked with the defaults that were in force."""
    async with reasoners(f"<think>Hm.</think>Hello\n{CALL}") as front:
        response = await front.openai.responses.create(**ASK, metadata={"a": "b"}, instructions="Be brief.", user="u")
    thought, said, called = response.output
    assert (thought.type, thought.content[0].text, thought.summary) == ("reasoning", "Hm.", [])
    assert (said.role, response.output_text) == ("assistant", "Hello")
    assert (called.name, json.loads(called.arguments)) == ("get_weather", {"city": "Köln", "n": 1.0})
    assert (response.status, response.model, response.object) == ("completed", "small", "response")
    assert response.completed_at >= response.created_at
    usage = response.usage
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    assert usage.output_tokens_details.reasoning_tokens == len("<think>Hm.</think>")
    assert (response.metadata, response.instructions, response.user) == ({"a": "b"}, "Be brief.", "u")
    assert (response.temperature, response.top_p, response.truncation, response.max_output_tokens) == (
        1.0, 1.0, "disabled", 500,
    )  # fmt: skip
    assert (response.tool_choice, [tool.name for tool in response.tools]) == ("auto", ["get_weather", "ping"])
    assert (response.text.format.type, response.service_tier, response.background) == ("text", "default", False)


async def test_the_sdks_stream_helper_puts_the_same_together(reasoners):
    """It checks identities and indices itself."""
    async with reasoners(f"<think>Hm.</think>Hello\n{CALL}\n{PINGED}", piece=5) as front:
        async with front.openai.responses.stream(**ASK) as stream:
            kinds = [event.type async for event in stream]
            final = await stream.get_final_response()
        assert kinds[:2] == ["response.created", "response.in_progress"]
        assert kinds[-1] == "response.completed"
        assert [item.type for item in final.output] == ["reasoning", "message", "function_call", "function_call"]
        assert final.output_text == "Hello"


class Thing(pydantic.BaseModel):
    """What is asked for."""

    n: int


async def test_text_can_be_of_a_schema(fronts):
    """As a class of the SDK, by name and as any JSON object; the constraint reaches the worker and comes back."""
    async with fronts(saying('{"n": 5}')) as front:
        parsed = await front.openai.responses.parse(model="small", input="hi", text_format=Thing)
        assert parsed.output_parsed == Thing(n=5)
        assert json.loads(front.house.workers.orders[-1][1].grammar.removeprefix("json_schema: "))["required"] == ["n"]
        schema = {"type": "object", "properties": {"n": {"default": None}}}
        given = {"type": "json_schema", "name": "thing", "schema": schema}
        response = (await post(front, text={"format": given})).json()
        assert response["text"]["format"] == given | {"description": None, "strict": False}
        assert front.house.workers.orders[-1][1].grammar.startswith("json_schema?: ")
        response = (await post(front, text={"format": {"type": "json_object"}})).json()
        assert response["text"]["format"] == {"type": "json_object"}


async def test_a_conversation_goes_on_by_its_last_response(reasoners):
    """What was asked, reasoned, said and called is there again; instructions are not, and branches do not meet."""
    async with reasoners(f"<think>Hm.</think>So\n{CALL}") as front:
        client = front.openai.responses
        first = await client.create(**ASK, instructions="Be brief.")
        (call,) = [item for item in first.output if item.type == "function_call"]
        gave = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
        second = await client.create(**ASK | {"input": [gave]}, previous_response_id=first.id)
        (again,) = [item for item in second.output if item.type == "function_call"]
        gave_again = gave | {"call_id": again.call_id}
        third = {"input": [gave_again, {"role": "user", "content": "and?"}], "previous_response_id": second.id}
        await client.create(**ASK | third, instructions="Be kind.")
        branch = {"input": [gave | {"output": "rain"}], "previous_response_id": first.id}
        await client.create(**ASK | branch)
        rendered = [list(one.messages) for one in front.house.tokenizer.conversations]
        assert second.previous_response_id == first.id

    def answered(made) -> Message:
        calls = [ToolCall(made.call_id, made.name, made.arguments)]
        return Message("assistant", ["So"], tool_calls=calls, reasoning="Hm.")

    asked, reply = Message("user", ("hi",)), Message("tool", ("sunny",), tool_call_id=call.call_id)
    kept = Message("user", ["hi"])
    assert rendered[0] == [Message("system", ("Be brief.",)), asked]
    assert rendered[1] == [kept, answered(call), reply]
    assert rendered[2] == [
        Message("system", ("Be kind.",)), kept, answered(call), reply, answered(again),
        Message("tool", ("sunny",), tool_call_id=again.call_id), Message("user", ("and?",)),
    ]  # fmt: skip
    assert rendered[3] == [kept, answered(call), Message("tool", ("rain",), tool_call_id=call.call_id)]


async def test_an_answers_items_can_be_sent_back_instead(reasoners):
    """The model is shown the same as by `previous_response_id`."""
    async with reasoners(f"<think>Hm.</think>So\n{CALL}") as front:
        client = front.openai.responses
        first = await client.create(**ASK)
        gave = {"type": "function_call_output", "call_id": first.output[-1].call_id, "output": "sunny"}
        await client.create(**ASK | {"input": [gave]}, previous_response_id=first.id)
        history = [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}, *first.output, gave]
        await client.create(**ASK | {"input": history}, store=False)
        _, chained, sent = front.house.tokenizer.conversations
        assert chained == sent


async def test_a_conversation_stays_on_one_lane(reasoners):
    """By the key of its first response, whoever continues what."""
    async with reasoners("a") as front:
        first = await front.openai.responses.create(**ASK)
        second = await front.openai.responses.create(**ASK, previous_response_id=first.id)
        await front.openai.responses.create(**ASK, previous_response_id=second.id, user="u")
        await front.openai.responses.create(**ASK, user="u")
        third = await front.openai.responses.create(**ASK, prompt_cache_key="k")
        await front.openai.responses.create(**ASK, previous_response_id=third.id)
        keys = [receipt.session_key for receipt in front.house.journal.receipts]
    assert keys[0] == keys[1] == keys[2]
    assert keys[4] == keys[5]
    assert len(set(keys)) == 3
    assert keys[0].endswith(first.id)


async def test_responses_are_read_listed_and_deleted(front):
    """What continues a deleted one goes on."""
    client = front.openai.responses
    first = await client.create(model="small", input="one")
    second = await client.create(
        model="small",
        input=[{"role": "user", "content": f"n{n}"} for n in range(25)],
        previous_response_id=first.id,
    )
    assert (await client.retrieve(second.id, include=["message.output_text.logprobs"])).output_text == "hello"
    items = [item async for item in client.input_items.list(second.id, limit=10)]
    assert [item.content[0].text for item in items] == [f"n{n}" for n in reversed(range(25))]
    page = await client.input_items.list(second.id, order="asc", after=items[-1].id, limit=3)
    assert [item.content[0].text for item in page.data] == ["n1", "n2", "n3"]
    assert page.has_more
    deleted = await front.http.delete(f"/v1/responses/{first.id}")
    assert deleted.json() == {"id": first.id, "object": "response", "deleted": True}
    for missing in (client.retrieve(first.id), client.delete(first.id), client.input_items.list(first.id)):
        with pytest.raises(openai.NotFoundError) as refused:
            await missing
        assert (refused.value.code, refused.value.param) == ("not_found", "response_id")
    with pytest.raises(openai.NotFoundError) as refused:
        await client.create(model="small", input="x", previous_response_id=first.id)
    assert (refused.value.code, refused.value.param) == ("previous_response_not_found", "previous_response_id")
    third = await client.create(model="small", input="x", previous_response_id=second.id)
    assert third.usage.input_tokens > second.usage.input_tokens
    assert front.house.not_kept == []


async def test_another_project_finds_nothing(front):
    """The same answer as for what never was; the same project finds it by any of its keys."""
    response = await front.openai.responses.create(model="small", input="secret")
    other = front.openai.with_options(api_key=await front.house.key(tenant="other"))
    second_key = front.openai.with_options(api_key=await front.house.key())
    assert (await second_key.responses.retrieve(response.id)).output_text == "hello"
    for found in (
        other.responses.retrieve(response.id),
        other.responses.delete(response.id),
        other.responses.input_items.list(response.id),
        other.responses.cancel(response.id),
        other.responses.create(model="small", input="x", previous_response_id=response.id),
    ):
        with pytest.raises(openai.NotFoundError):
            await found
    assert (await front.openai.responses.retrieve(response.id)).output_text == "hello"


@pytest.mark.parametrize("name", ["x", "resp_", "resp_a." + "0" * 48, "resp_" + "a" * 5000, "%00", "..", "resp_é"])
async def test_odd_identifiers_are_not_found(front, name):
    """404, and nobody's store is asked for what is none."""
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/input_items"), ("POST", "/cancel")):
        if name == "..":
            break
        response = await front.http.request(method, f"/v1/responses/{name}{path}")
        assert (response.status_code, response.json()["error"]["reason"]) == (404, "NOT_FOUND")
    response = await post(front, previous_response_id=name)
    assert (response.status_code, response.json()["error"]["code"]) == (404, "previous_response_not_found")


async def test_what_is_not_to_be_kept_is_not(front):
    """`store: false`: the response says so, and nothing finds it."""
    response = (await post(front, store=False)).json()
    assert response["store"] is False
    assert (await front.http.get(f"/v1/responses/{response['id']}")).status_code == 404
    assert (await post(front, previous_response_id=response["id"])).status_code == 404
    first = (await post(front)).json()
    second = (await post(front, previous_response_id=first["id"], store=False)).json()
    assert (second["previous_response_id"], second["store"]) == (first["id"], False)


async def test_a_mesh_that_keeps_nothing(front):
    """`kept_days: 0`: by default nothing is kept, by name it is refused."""
    policy = Policy(kept_responses=Bounds(0.0, 1 << 20))
    front.house.catalog.publish(Catalog([ServedModel("small", lanes=[small_lane()])], policy=policy))
    assert (await post(front)).json()["store"] is False
    refused = await post(front, store=True)
    error = refused.json()["error"]
    assert (refused.status_code, error["param"], error["reason"]) == (400, "store", "PARAMETER_UNSUPPORTED")
    assert len(front.house.workers.orders) == 1


async def test_while_the_store_is_away(front):
    """Answers go on, unkept and saying so; whoever needs the store hears 503 with retry-after, and no work is done."""
    kept = (await post(front)).json()
    front.house.responses.down = True
    for body in ({}, {"stream": True}):
        response = await post(front, **body)
        made = check_stream(read_events(response.text)) if body else response.json()
        assert (made["status"], made["store"]) == ("completed", False)
    assert front.house.not_kept == ["away", "away"]
    num_orders = len(front.house.workers.orders)
    path = f"/v1/responses/{kept['id']}"
    for response in (
        await post(front, store=True),
        await post(front, previous_response_id=kept["id"]),
        await front.http.get(path),
        await front.http.delete(path),
        await front.http.get(f"{path}/input_items"),
        await front.http.post(f"{path}/cancel"),
    ):
        assert (response.status_code, response.json()["error"]["reason"]) == (503, "NOT_READY")
        assert response.headers["retry-after"] == "2"
    assert len(front.house.workers.orders) == num_orders
    front.house.responses.down = False
    assert (await front.http.get(path)).json() == kept


async def test_a_store_that_goes_away_meanwhile(fronts):
    """The answer was made: it is delivered, and says that it is not kept."""
    async with fronts(saying("x" * 30)) as front:
        front.house.workers.hold.clear()
        asking = asyncio.create_task(post(front, store=True))
        await front.house.workers.until_running(1)
        front.house.responses.down = True
        front.house.workers.hold.set()
        response = (await asking).json()
    assert (response["status"], response["store"]) == ("completed", False)


async def test_conversations_are_bounded(front):
    """By what one body may have, by their project's share, and by how many go on; nothing is cut off in silence."""
    catalog = front.house.catalog.current()
    small = Policy(max_body_bytes=900, kept_responses=Bounds(1000.0, 1 << 20))
    front.house.catalog.publish(Catalog(catalog.models, policy=small))
    first = (await post(front, input="a" * 300)).json()
    second = (await post(front, previous_response_id=first["id"])).json()
    refused = await post(front, previous_response_id=second["id"])
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "previous_response_id")
    assert "over 900 bytes" in refused.json()["error"]["message"]
    tight = Policy(kept_responses=Bounds(1000.0, 4000))
    front.house.catalog.publish(Catalog(catalog.models, policy=tight))
    unkept = (await post(front, previous_response_id=first["id"])).json()
    assert (unkept["status"], unkept["store"]) == ("completed", False)
    assert front.house.not_kept == ["full"]


async def test_a_client_that_leaves_ends_the_work_and_nothing_is_kept(fronts):
    """As with every stream; what was told of it is found nowhere."""
    async with fronts(saying("x" * 60)) as front:
        workers = front.house.workers
        body = {"model": "small", "input": "hi", "stream": True}
        async with front.http.stream("POST", "/v1/responses", json=body) as stream:
            lines = stream.aiter_lines()
            while (line := await anext(lines)) and not line.startswith("data:"):
                pass
            response_id = json.loads(line[6:])["response"]["id"]
            workers.hold.clear()
        await workers.until_running(0)
        await front.house.journal.until_closed(1)
        assert front.house.journal.receipts[0].reason == "CANCELLED"
        assert (await front.http.get(f"/v1/responses/{response_id}")).status_code == 404


def breaking(error, *, after="Hal"):
    """A worker that says something and then fails, whatever the order says."""

    def script(worker, order):
        return [WorkStarted(worker.instance, 0, 0), TokensMade(0, 0, list(after.encode()), ()), error]

    return script


FAILURES = {
    "lost": (GONE, "server_error", "LANE_LOST"),
    "grammar": (MeshError(Reason.GRAMMAR_LIMIT, "too slow"), "invalid_prompt", "GRAMMAR_LIMIT"),
    "numbers": (MeshError(Reason.NUMERICS_FAILED, "no numbers"), "server_error", "NUMERICS_FAILED"),
}


@pytest.mark.parametrize("case", FAILURES)
async def test_a_stream_that_fails_says_how(fronts, case, monkeypatch):
    """`response.failed`, with what there is of the answer; it is kept nowhere. The whole is an error."""
    monkeypatch.setattr("serin_gateway.pipeline.RESUME_PATIENCE_S", 0.05)
    error, code, reason = FAILURES[case]
    async with fronts(breaking(error)) as front:
        response = check_stream(read_events((await post(front, stream=True)).text))
        assert (response["status"], response["store"]) == ("failed", False)
        assert (response["error"]["code"], response["error"]["reason"]) == (code, reason)
        assert response["output"][0]["content"][0]["text"] == "Hal"
        assert (await front.http.get(f"/v1/responses/{response['id']}")).status_code == 404
        stream = await front.openai.responses.create(model="small", input="hi", stream=True)
        events = [event async for event in stream]
        assert (events[-1].type, events[-1].response.error.code) == ("response.failed", code)
        whole = await post(front)
        assert (whole.status_code >= 400, whole.json()["error"]["reason"]) == (True, reason)
        reasons = [receipt.reason for receipt in front.house.journal.receipts if receipt.operation == "responses"]
        assert reasons == [reason] * 3


async def test_a_defect_of_ours_ends_a_stream_too(fronts):
    """As an error without a word of what it was."""
    async with fronts(breaking(RuntimeError("secret"))) as front:  # type: ignore[arg-type]
        front.house.workers._script = lambda worker, order: _Bursting()
        text = (await post(front, stream=True)).text
        response = check_stream(read_events(text))
    assert (response["error"]["code"], response["error"]["reason"]) == ("server_error", "INTERNAL")
    assert "secret" not in text


class _Bursting:
    def __iter__(self):
        yield WorkStarted("w", 0, 0)
        yield TokensMade(0, 0, list(b"Hal"), ())
        raise RuntimeError("secret")


async def test_a_worker_that_dies_changes_nothing(reasoners):
    """The stream goes on elsewhere, event by event, and what is kept is the whole answer."""
    text = f"<think>Hm, so it is.</think>Hello, {'x' * 20}\n{CALL}"
    whole, died = saying(text, piece=3), []

    def script(worker, order):
        events = whole(worker, order)
        if not died:
            died.append(worker)
            return [*events[:9], GONE]
        return events

    catalog = small_catalog(small_lane(num_workers=2))
    async with reasoners(script=script) as front:
        front.house.catalog.publish(catalog)
        response = check_stream(read_events((await post(front, **ASK, stream=True)).text))
        assert front.house.journal.receipts[0].num_resumes == 1
        undisturbed = (await post(front, **ASK)).json()
        assert plain(response) == plain(undisturbed)
        assert (await front.http.get(f"/v1/responses/{response['id']}")).json() == response


async def test_a_filter_that_ends_an_answer_is_named(fronts):
    """`incomplete`, with why."""

    def script(worker, order):
        ended = ChoiceMade(0, FinishReason.CONTENT_FILTER, None)
        return [WorkStarted(worker.instance, 0, 0), TokensMade(0, 0, list(b"Hal"), ()), ended, WorkDone()]

    async with fronts(script) as front:
        response = check_stream(read_events((await post(front, stream=True)).text))
    assert response["incomplete_details"] == {"reason": "content_filter"}
    assert response["output"][0]["status"] == "incomplete"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_repeat_gets_the_same_response(front, stream):
    """Under an `Idempotency-Key`: the same bytes, one order, one response kept."""
    body = {"model": "small", "input": "hi", "stream": stream}
    first = await front.http.post("/v1/responses", json=body, headers=KEY)
    again = await front.http.post("/v1/responses", json=body, headers=KEY)
    assert (first.content, again.headers["idempotent-replayed"]) == (again.content, "true")
    assert len(front.house.workers.orders) == 1
    other = await front.http.post("/v1/responses", json=body | {"input": "ho"}, headers=KEY)
    assert other.json()["error"]["reason"] == "IDEMPOTENCY_CONFLICT"


async def test_a_response_under_a_key_is_kept_when_its_client_leaves(fronts):
    """It is made to its end; a repeat gets it, and it can be read."""
    async with fronts(saying("x" * 60)) as front:
        front.house.workers.hold.clear()
        leaving = asyncio.create_task(
            front.http.post("/v1/responses", json={"model": "small", "input": "hi"}, headers=KEY)
        )
        await front.house.workers.until_running(1)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        front.house.workers.hold.set()
        again = await front.http.post("/v1/responses", json={"model": "small", "input": "hi"}, headers=KEY)
        assert (await front.http.get(f"/v1/responses/{again.json()['id']}")).json() == again.json()
        assert len(front.house.workers.orders) == 1


async def test_a_failure_under_a_key_is_told_once(fronts):
    """`response.failed` ends the stream; the key is free again."""
    broken = [breaking(MeshError(Reason.NUMERICS_FAILED, "no numbers")), saying("hello")]
    async with fronts(lambda worker, order: broken.pop(0)(worker, order)) as front:
        body = {"model": "small", "input": "hi", "stream": True}
        failed = await front.http.post("/v1/responses", json=body, headers=KEY)
        assert check_stream(read_events(failed.text))["status"] == "failed"
        again = await front.http.post("/v1/responses", json=body, headers=KEY)
        assert check_stream(read_events(again.text))["status"] == "completed"


async def test_feedback_knows_responses_by_their_name(front):
    """Kept or not."""
    response = (await post(front, store=False)).json()
    given = await front.http.post("/v1/feedback", json={"request_id": response["id"], "score": 1})
    assert (given.status_code, given.json()["counted"]) == (200, True)
