"""The gRPC door: the same verbs and the same reasons as over REST."""

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from routed import house_of, sure
from serin.generation.v1 import chat_pb2, sampling_pb2, tokens_pb2
from serin.inference.v1 import inference_pb2, inference_pb2_grpc
from serin_gateway import outbox
from serin_gateway.cascades.cascade import EscalationRules
from serin_gateway.catalog import TenantNames
from serin_gateway.keys import Role
from serin_gateway.limits.limiter import Limits
from serin_gateway.reading.form import AnswerForm, CallForm
from serin_gateway.rpc.asks import MAX_ECHOED
from serin_gateway.rpc.service import InferenceService
from serin_gateway.testing import END_ID, ByteTokenizer, MemoryHouse, saying, small_catalog, small_lane
from serin_gateway.worker import TokensMade, WorkStarted
from serin_mesh.errors import STATUS, MeshError, Reason
from serin_mesh.testing import running


class RpcFront:
    """A gRPC door on a house in memory, asked by a plain client."""

    def __init__(self, house, channel, key):
        self.house = house
        self.stub = inference_pb2_grpc.InferenceServiceStub(channel)
        self.key = key

    def generate(self, request=None, key="", **metadata):
        """Call Generate."""
        pairs = [("authorization", f"Bearer {key or self.key}")] if key is not None else []
        pairs += [(name.replace("_", "-"), value) for name, value in metadata.items()]
        return self.stub.Generate(request or ask(), timeout=20, metadata=pairs)

    async def failure(self, call):
        """Status, reason and metadata that a call ends with."""
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            _ = [event async for event in call]
        details = dict(failed.value.trailing_metadata())["grpc-status-details-bin"]
        rich = status_pb2.Status.FromString(details)
        info = error_details_pb2.ErrorInfo()
        assert len(rich.details) == 1
        assert rich.details[0].Unpack(info)
        assert info.domain == "serin"
        return failed.value.code(), Reason(info.reason), dict(info.metadata)


def chat(*texts: str, role: str = "user") -> inference_pb2.Chat:
    """A conversation."""
    parts = [chat_pb2.ContentPart(text=text) for text in texts]
    return inference_pb2.Chat(messages=[chat_pb2.ChatMessage(role=role, content=parts)])


def ask(**fields) -> inference_pb2.GenerateRequest:
    """A question to ``small``."""
    sampling = sampling_pb2.SamplingParameters(**fields.pop("sampling", {}))
    if not {"chat", "prompt", "token_prompt"} & set(fields):
        fields["chat"] = chat("hi")
    return inference_pb2.GenerateRequest(**{"model": "small", "sampling": sampling, **fields})


@pytest.fixture
async def rpc():
    """Opens doors on scripts."""
    opened = []

    async def open_door(script=None, house=None, **parts):
        house = house or MemoryHouse(script, **parts)
        service = InferenceService(house.collaborators)
        context = running(
            lambda server: inference_pb2_grpc.add_InferenceServiceServicer_to_server(service, server),
            "gateway",
            default_deadline_s=30.0,
        )
        host = await context.__aenter__()
        channel = grpc.aio.insecure_channel(host.address)
        opened.append((context, channel))
        return RpcFront(house, channel, await house.key())

    yield open_door
    for context, channel in opened:
        await channel.close()
        await context.__aexit__(None, None, None)


async def test_events_follow_the_contract(rpc):
    """Started with request, model and lane; text and ids; ends; usage last."""
    front = await rpc(saying("one", "two"))
    events = [event async for event in front.generate(ask(sampling={"choice_count": 2}), serin_request_id="mine")]
    assert events[0].started.request_id == "mine"
    assert (events[0].started.model, events[0].started.lane) == ("small", "lane-a")
    for choice, text in enumerate(("one", "two")):
        deltas = [e.delta for e in events if e.WhichOneof("event") == "delta" and e.delta.choice_index == choice]
        assert "".join(delta.text for delta in deltas) == text
        assert [i for delta in deltas for i in delta.token_ids] == [*text.encode(), END_ID]
    ends = {e.choice_finished.choice_index: e.choice_finished for e in events if e.HasField("choice_finished")}
    assert {end.finish_reason for end in ends.values()} == {sampling_pb2.FINISH_REASON_STOP}
    assert events[-1].summary.usage.completion_token_count == 8
    assert front.house.journal.receipts[0].door == "grpc"


async def test_every_kind_of_input(rpc):
    """A conversation with several parts, a text, ids."""
    front = await rpc()
    for request, prompt in (
        (ask(chat=chat("a", "b")), b"user: ab\n"),
        (ask(prompt="xyz"), b"xyz"),
        (ask(token_prompt=tokens_pb2.TokenRun(token_ids=[1, 2])), b"\x01\x02"),
    ):
        assert [event async for event in front.generate(request)]
        assert bytes(front.house.workers.orders[-1][1].prompt) == prompt


async def test_grammars(rpc):
    """Every kind goes the way it goes over REST; what refuses one blames the field."""
    front = await rpc()
    for kind, prepared in (
        (sampling_pb2.GRAMMAR_KIND_JSON_SCHEMA, "json_schema?: {}"),
        (sampling_pb2.GRAMMAR_KIND_REGEX, "regex?: {}"),
        (sampling_pb2.GRAMMAR_KIND_EBNF, "ebnf?: {}"),
        (sampling_pb2.GRAMMAR_KIND_CHOICE, "choice?: {}"),
    ):
        request = ask(grammar=sampling_pb2.Grammar(kind=kind, text="{}", lenient=True))
        assert [event async for event in front.generate(request)]
        assert front.house.workers.orders[-1][1].grammar == prepared
    for grammar, reason, parameter in (
        (sampling_pb2.Grammar(text="a"), Reason.PARAMETER_INVALID, "grammar.kind"),
        (sampling_pb2.Grammar(kind=sampling_pb2.GRAMMAR_KIND_PREPARED), Reason.PARAMETER_INVALID, "grammar.kind"),
        (sampling_pb2.Grammar(kind=sampling_pb2.GRAMMAR_KIND_REGEX, text="bad"), Reason.GRAMMAR_INVALID, "grammar"),
    ):
        code, found, metadata = await front.failure(front.generate(ask(grammar=grammar)))
        assert (code, found, metadata["parameter"]) == (grpc.StatusCode.INVALID_ARGUMENT, reason, parameter)


async def test_log_probabilities_and_stop_strings(rpc):
    """Alternatives by text and bytes, as many as were asked for; the end names the stop string."""
    front = await rpc(saying("ab--cd"))
    for count in (0, 2):
        request = ask(sampling={"top_logprobs": count}, stop_strings=["--"])
        events = [event async for event in front.generate(request)]
        entries = [entry for e in events for entry in e.delta.logprobs]
        assert [(entry.token, entry.raw, entry.logprob) for entry in entries] == [("a", b"a", -0.5), ("b", b"b", -0.5)]
        assert [len(entry.alternatives) for entry in entries] == [count] * 2
    end = next(e.choice_finished for e in events if e.HasField("choice_finished"))
    assert end.stop_string == "--"


@pytest.mark.parametrize(
    ("fields", "parameter"),
    [
        ({"model": ""}, "model"),
        ({"chat": inference_pb2.Chat()}, "messages"),
        ({"chat": chat("a", role="robot")}, "messages[0].role"),
        ({"chat": chat()}, "messages[0].content"),
        ({"stop_strings": list("abcde")}, "stop_strings"),
        ({"stop_strings": [""]}, "stop_strings"),
        ({"session_id": "x" * 257}, "session_id"),
        ({"cache_salt": "x" * 129}, "cache_salt"),
        ({"priority": 101}, "priority"),
        ({"prompt": ""}, "prompt"),
        *(
            ({"sampling": {name: value}}, name)
            for name, value in (
                ("temperature", float("nan")), ("temperature", 2.5), ("top_p", 0.0), ("min_p", -0.1),
                ("frequency_penalty", 3.0), ("presence_penalty", float("inf")), ("repetition_penalty", 0.0),
                ("max_tokens", 0), ("top_logprobs", 21), ("choice_count", 0), ("choice_count", 129),
                ("logit_bias", {1: 101.0}), ("stop_token_ids", list(range(65))),
            )
        ),
    ],
    ids=repr,
)  # fmt: skip
async def test_values_out_of_range_are_refused_by_name(rpc, fields, parameter):
    """The field's own name in the metadata; no worker hears of it."""
    front = await rpc()
    code, reason, metadata = await front.failure(front.generate(ask(**fields)))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, Reason.PARAMETER_INVALID)
    assert metadata["parameter"] == parameter
    assert front.house.workers.orders == []


async def test_refusals_have_the_reasons_of_the_table(rpc):
    """Key, role, model, tools, limits: each with its status."""
    front = await rpc()
    limited = await front.house.key(limits=Limits(requests_per_minute=1))
    assert [event async for event in front.generate(key=limited)]
    tools = inference_pb2.Chat(messages=chat("a").messages, tools=[chat_pb2.ToolDefinition(name="f")])
    for call, reason in (
        (front.generate(key=None), Reason.KEY_MISSING),
        (front.generate(key="sk-serin-wrong"), Reason.KEY_INVALID),
        (front.generate(serin_lane="lane-a"), Reason.ROLE_INSUFFICIENT),
        (front.generate(ask(model="nope")), Reason.MODEL_NOT_FOUND),
        (front.generate(ask(chat=tools)), Reason.PARAMETER_UNSUPPORTED),
        (front.generate(key=limited), Reason.RATE_LIMITED),
        (front.generate(ask(prompt="x" * 2000)), Reason.PROMPT_TOO_LONG),
        (front.generate(ask(), key=await front.house.key(Role.OPERATOR), serin_lane="x"), Reason.LANE_GONE),
    ):
        code, found, _ = await front.failure(call)
        assert (found, code) == (reason, STATUS[reason].grpc)


async def test_a_cascade_over_grpc(rpc):
    """Who answers and how it came to that, the caller's own decision, and models as this caller may ask for them."""
    house = house_of(
        {"mini": sure(-0.9, "small words"), "large": saying("large words")},
        rules=EscalationRules(mean_logprob_below=-0.5, hint=True),
        tenants={("default", ""): TenantNames({"chat": "smart"})},
    )
    front = await rpc(house=house)
    for hint, model, route in (
        ("auto", "large", "smart:escalated:mean_logprob"),
        ("first", "mini", "smart:kept:hint"),
    ):
        events = [event async for event in front.generate(ask(model="chat"), serin_cascade=hint)]
        assert (events[0].started.model, events[0].started.route) == (model, route)
        assert (events[0].started.lane, "".join(event.delta.text for event in events)) == (
            model,
            {"large": "large words", "mini": "small words"}[model],
        )
    code, reason, facts = await front.failure(front.generate(ask(model="chat"), serin_cascade="no"))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, Reason.PARAMETER_INVALID)
    assert facts["parameter"] == "serin-cascade"
    events = [event async for event in front.generate(ask(model="mini"), serin_cascade="first")]
    assert events[0].started.ignored_fields == ["serin-cascade"]  # it is no cascade
    _, reason, facts = await front.failure(front.generate(ask(model="mini"), x_api_key="another"))
    assert (reason, facts["parameter"]) == (Reason.PARAMETER_INVALID, "authorization")
    metadata = [("authorization", f"Bearer {front.key}")]
    listed = (await front.stub.ListModels(inference_pb2.ListModelsRequest(), metadata=metadata, timeout=20)).models
    assert {one.name: (list(one.aliases), list(one.cascade_models)) for one in listed} == {
        "mini": ([], []),
        "large": ([], []),
        "smart": (["chat"], ["mini", "large"]),
    }


async def test_a_failure_inside_a_stream_is_its_status(rpc):
    """After what was said before."""

    def failing(worker, order):
        return [WorkStarted("w", 0, 0), TokensMade(0, 0, list(b"ab"), []), MeshError(Reason.NUMERICS_FAILED, "NaN")]

    front = await rpc(failing)
    call = front.generate()
    heard = []
    code, reason, _ = await front.failure(_noting(call, heard))
    assert "".join(event.delta.text for event in heard) == "ab"
    assert (code, reason) == (grpc.StatusCode.INTERNAL, Reason.NUMERICS_FAILED)


async def test_the_other_methods(rpc):
    """Lists and counts; a model that generates computes no embeddings."""
    front = await rpc()
    metadata = (("x-api-key", front.key),)
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await front.stub.Embed(inference_pb2.EmbedRequest(model="small", inputs=["a"]), timeout=9, metadata=metadata)
    assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    listed = await front.stub.ListModels(inference_pb2.ListModelsRequest(), timeout=9, metadata=metadata)
    assert [model.name for model in listed.models] == ["small"]
    counted = await front.stub.CountTokens(
        inference_pb2.CountTokensRequest(model="small", chat=chat("hi")), timeout=9, metadata=metadata
    )
    assert counted.token_count == len("user: hi\n")
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await front.stub.CountTokens(inference_pb2.CountTokensRequest(model="small"), timeout=9, metadata=metadata)
    code, _, _ = await front.failure(front.generate(inference_pb2.GenerateRequest(model="small")))
    assert failed.value.details() == "input: is missing; accepted: chat or prompt"
    assert code is failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    for method, request in (
        (front.stub.ListModels, inference_pb2.ListModelsRequest()),
        (front.stub.CountTokens, inference_pb2.CountTokensRequest(model="small", prompt="a")),
        (front.stub.Embed, inference_pb2.EmbedRequest()),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await method(request, timeout=9)
        assert failed.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_cancelled_call_is_settled(rpc):
    """Reset by the client: work is aborted, the receipt says so."""
    front = await rpc(saying("x" * 60))
    front.house.workers.hold.clear()
    call = front.generate()
    await front.house.workers.until_running(1)
    call.cancel()
    await front.house.workers.until_running(0)
    await front.house.journal.until_closed(1)
    assert front.house.journal.receipts[0].reason == "CANCELLED"


async def test_a_reader_that_has_stopped_reading_is_cut_off(rpc, monkeypatch):
    """Without a deadline of its own, too: the work ends long before the mesh's, and its place is free."""
    monkeypatch.setattr(outbox, "SLOW_READER_TIMEOUT_S", 0.2)
    front = await rpc(saying("x" * 4_000_000, piece=10_000))
    front.house.catalog.publish(small_catalog(small_lane(context_length=5_000_000)))
    pairs = [("authorization", f"Bearer {front.key}")]
    call = front.stub.Generate(ask(sampling={"max_tokens": 4_000_000}), metadata=pairs)
    assert (await call.read()).HasField("started")
    await front.house.journal.until_closed(1)
    assert front.house.journal.receipts[0].reason == "CANCELLED"
    assert front.house.workers.num_running == 0
    assert front.house.collaborators.turnstiles.by_model["small"].is_empty
    call.cancel()


async def test_feedback_is_taken_over_grpc_too(rpc):
    """Of one's own request, once; a score that is absent, out of range or about nothing known is refused."""
    front = await rpc()
    events = [event async for event in front.generate()]
    request_id = events[0].started.request_id
    metadata = [("authorization", f"Bearer {front.key}")]

    async def give(**fields):
        request = inference_pb2.SendFeedbackRequest(**fields)
        return await front.stub.SendFeedback(request, timeout=9, metadata=metadata)

    assert (await give(request_id=request_id, score=0.0)).counted
    assert not (await give(request_id=request_id, score=1.0)).counted
    (given,) = front.house.observed.take().feedback
    assert (given.request_id, given.score, given.lane) == (request_id, 0.0, "lane-a")
    for fields, code in (
        ({"request_id": request_id}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"request_id": request_id, "score": 2.0}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"request_id": request_id, "score": float("nan")}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"request_id": "never", "score": 1.0}, grpc.StatusCode.NOT_FOUND),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await give(**fields)
        assert failed.value.code() is code


async def _noting(call, heard):
    async for event in call:
        heard.append(event)
        yield event


async def test_a_call_under_an_idempotency_key_is_answered_once(rpc):
    """The same messages again, with the lane and the sign of it in the trailer; another question is refused."""
    front = await rpc(saying("hello", "there"))
    first = front.generate(idempotency_key="k")
    again = front.generate(idempotency_key="k")
    assert [event async for event in first] == [event async for event in again]
    trailers = [dict(await call.trailing_metadata()) for call in (first, again)]
    assert trailers[0]["serin-lane"] == trailers[1]["serin-lane"]
    assert sorted(trailer.get("idempotent-replayed", "") for trailer in trailers) == ["", "true"]
    code, reason, _ = await front.failure(front.generate(ask(chat=chat("ho")), idempotency_key="k"))
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, Reason.IDEMPOTENCY_CONFLICT)
    assert len(front.house.workers.orders) == 1
    await front.house.journal.until_closed(3)
    assert sorted(receipt.operation for receipt in front.house.journal.receipts) == ["generate", "generate", "repeat"]
    for beside in ({"serin_cascade": "first"}, {"serin_lane": "lane-a"}, {"x_session_id": "s"}):
        code, reason, _ = await front.failure(front.generate(idempotency_key="k", **beside))
        assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, Reason.IDEMPOTENCY_CONFLICT), beside


HERMES = AnswerForm(CallForm.HERMES, "<think>", "</think>", reasoning_close_ids=tuple(b"</think>"))
PING = chat_pb2.ToolDefinition(name="ping", description="Says pong.", parameters_json='{"type": "object"}')
NAMED = chat_pb2.ToolChoice(mode=chat_pb2.TOOL_CHOICE_MODE_NAMED, name="ping")


def with_tools(text: str = "hi", **fields) -> inference_pb2.GenerateRequest:
    """A question with a tool on offer."""
    return ask(
        chat=inference_pb2.Chat(messages=chat(text).messages, tools=[PING], **fields), sampling={"max_tokens": 900}
    )


async def test_calls_and_reasoning_are_deltas_of_their_own(rpc):
    """Reasoning, text, a call with identifier, name and arguments; counted, and the reason for the end."""
    text = '<think>\nHm.\n</think>\nSo.\n<tool_call>\n{"name": "ping", "arguments": {"n": 1.0}}\n</tool_call>'
    front = await rpc(saying(text, piece=3), tokenizer=ByteTokenizer(HERMES))
    events = [event async for event in front.generate(with_tools())]
    deltas = [event.delta for event in events if event.HasField("delta")]
    assert "".join(delta.reasoning for delta in deltas) == "Hm."
    assert "".join(delta.text for delta in deltas) == "So."
    assert [i for delta in deltas for i in delta.token_ids] == [*text.encode(), END_ID]
    call, *more = [delta.tool_call for delta in deltas if delta.HasField("tool_call")]
    assert (call.call_index, call.name, call.arguments_json) == (0, "ping", "")
    assert call.id.startswith("call_")
    assert {(one.call_index, one.name, one.id) for one in more} == {(0, "", "")}
    assert "".join(one.arguments_json for one in more) == '{"n": 1.0}'
    (end,) = [event.choice_finished for event in events if event.HasField("choice_finished")]
    assert end.finish_reason == sampling_pb2.FINISH_REASON_TOOL_CALLS
    assert events[-1].summary.usage.reasoning_token_count == len("<think>\nHm.\n</think>")


async def test_choices_efforts_and_histories_reach_the_tokenizer(rpc):
    """As over REST: a named tool begins the answer, one call is enough, and what was said before is there."""
    tokenizer = ByteTokenizer(HERMES)
    front = await rpc(saying(" {}}\n</tool_call> and on"), tokenizer=tokenizer)
    single = chat_pb2.ToolChoice(mode=chat_pb2.TOOL_CHOICE_MODE_NAMED, name="ping", single_call=True)
    request = with_tools(tool_choice=single, reasoning_effort="low")
    said = chat_pb2.ChatMessage(role="assistant", reasoning="hm", content=[chat_pb2.ContentPart(text="x")])
    request.chat.messages.append(said)
    events = [event async for event in front.generate(request)]
    assert [event.delta.tool_call.name for event in events if event.delta.tool_call.id] == ["ping"]
    assert "".join(event.delta.text for event in events) == ""
    asked = tokenizer.conversations[-1]
    assert (asked.effort, asked.messages[-1].reasoning) == ("low", "hm")
    assert (asked.tools[0].name, asked.tools[0].parameters_json) == ("ping", '{"type": "object"}')


async def test_an_answer_goes_on_inside_the_last_message(rpc):
    """PREFILL over gRPC; counting counts the same."""
    front = await rpc(saying("is."))
    begun = chat_pb2.ChatMessage(role="assistant", content=[chat_pb2.ContentPart(text="Par")])
    conversation = inference_pb2.Chat(messages=[*chat("hi").messages, begun], continue_final_message=True)
    assert [event async for event in front.generate(ask(chat=conversation))]
    assert bytes(front.house.workers.orders[-1][1].prompt) == b"user: hi\nassistant: Par"
    count = inference_pb2.CountTokensRequest(model="small", chat=conversation)
    metadata = [("authorization", f"Bearer {front.key}")]
    assert (await front.stub.CountTokens(count, metadata=metadata)).token_count == len("user: hi\nassistant: Par")


@pytest.mark.parametrize(
    ("fields", "parameter", "reason"),
    [
        ({"tools": [chat_pb2.ToolDefinition(name="a b")]}, "tools[0].name", Reason.PARAMETER_INVALID),
        ({"tools": [PING, PING]}, "tools[1].name", Reason.PARAMETER_INVALID),
        (
            {"tools": [chat_pb2.ToolDefinition(name="f", parameters_json='{"title": "\\ud800"}')]},
            "tools[0].parameters_json",
            Reason.PARAMETER_INVALID,
        ),
        (
            {"tools": [chat_pb2.ToolDefinition(name="f", parameters_json="[]")]},
            "tools[0].parameters_json",
            Reason.PARAMETER_INVALID,
        ),
        (
            {"tools": [chat_pb2.ToolDefinition(name="f", parameters_json='{"a":' * 9999)]},
            "tools[0].parameters_json",
            Reason.PARAMETER_INVALID,
        ),
        (
            {"tools": [chat_pb2.ToolDefinition(name="f", parameters_json='{"type": "object", "type": "object"}')]},
            "tools[0].parameters_json",
            Reason.PARAMETER_INVALID,
        ),
        ({"tools": [PING] * 129}, "tools", Reason.PARAMETER_INVALID),
        ({"tool_choice": NAMED}, "tool_choice", Reason.PARAMETER_INVALID),
        ({"tools": [PING]}, "tools", Reason.PARAMETER_UNSUPPORTED),
        ({"reasoning_effort": "very"}, "reasoning_effort", Reason.PARAMETER_INVALID),
        ({"reasoning_effort": "high"}, "reasoning_effort", Reason.PARAMETER_UNSUPPORTED),
        ({"continue_final_message": True}, "messages[0].content", Reason.PARAMETER_INVALID),
    ],
    ids=lambda value: repr(value)[:50],
)
async def test_tools_are_refused_for_the_same_reasons_as_over_rest(rpc, fields, parameter, reason):
    """By the names of this contract."""
    front = await rpc()
    conversation = inference_pb2.Chat(messages=chat("hi").messages, **fields)
    code, found, metadata = await front.failure(front.generate(ask(chat=conversation)))
    assert (code, found, metadata["parameter"]) == (grpc.StatusCode.INVALID_ARGUMENT, reason, parameter)


async def test_fields_of_newer_versions_are_refused_by_number(rpc):
    """Each method's, in every depth, as unknown parameters over REST; no worker hears of them."""
    front = await rpc()
    metadata = (("authorization", f"Bearer {front.key}"),)
    deep = ask(prompt="a")
    deep.sampling.MergeFromString(b"\x98\x06\x01")
    calls = [front.stub.Generate(deep, timeout=20, metadata=metadata)]
    for method, request in (
        (front.stub.Embed, inference_pb2.EmbedRequest(model="small", inputs=["a"])),
        (front.stub.CountTokens, inference_pb2.CountTokensRequest(model="small", prompt="a")),
        (front.stub.ListModels, inference_pb2.ListModelsRequest()),
        (front.stub.SendFeedback, inference_pb2.SendFeedbackRequest(request_id="x", score=1)),
    ):
        request.MergeFromString(b"\x98\x06\x01")
        calls.append(one_answer(method(request, timeout=20, metadata=metadata)))
    for call, place in zip(calls, ["sampling.99", *["99"] * 4], strict=True):
        code, reason, found = await front.failure(call)
        assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, Reason.PARAMETER_UNKNOWN)
        assert found["parameter"] == place
    assert front.house.workers.orders == []


async def one_answer(call):
    """A call with one answer as a stream of one."""
    yield await call


async def test_a_key_may_ask_to_be_warned_of_fields_only(rpc):
    """Made with `--unknown warn`: the trailer names them, beside the lane and for repeats too."""
    front = await rpc()
    key = await front.house.key(unknown="warn")
    request = ask(prompt="a")
    request.MergeFromString(b"\x98\x06\x01")
    for replayed in (None, "true"):
        call = front.generate(request, key=key, idempotency_key="once")
        assert [event async for event in call][-1].HasField("summary")
        trailer = dict(await call.trailing_metadata())
        assert (trailer["x-serin-ignored"], trailer["serin-lane"]) == ("99", "lane-a")
        assert trailer.get("idempotent-replayed") == replayed
    call = front.generate(ask(prompt="a"), key=key)
    assert [event async for event in call]
    assert "x-serin-ignored" not in dict(await call.trailing_metadata())


async def test_a_prompt_is_told_and_scored(rpc):
    """`echo`, as completions over REST have it: its text and how likely each of its tokens is, then the answers."""
    front = await rpc(saying("x"))
    for fields, text, num_tokens in (
        ({"prompt": "aé", "sampling": {"top_logprobs": 1, "choice_count": 2}}, "aé", 3),
        ({"token_prompt": tokens_pb2.TokenRun(token_ids=[*"aé".encode()]), "sampling": {"top_logprobs": 0}}, "aé", 3),
        ({"prompt": "aé"}, "aé", 0),
        ({"prompt": "aé", "sampling": {"max_tokens": 0, "top_logprobs": 1}}, "aé", 3),
    ):
        events = [event async for event in front.generate(ask(echo=True, **fields))]
        assert [event.WhichOneof("event") for event in events[:2]] == ["started", "echo"]
        assert sum(event.HasField("echo") for event in events) == 1
        echo = events[1].echo
        assert (echo.text, len(echo.tokens)) == (text, num_tokens)
        for at, token in enumerate(echo.tokens):
            assert (token.token_id, token.raw) == ("aé".encode()[at], "aé".encode()[at : at + 1])
            assert token.HasField("logprob") == (at > 0)
            assert [one.raw for one in token.alternatives] == ([token.raw] if at else [])
        assert [token.text_offset for token in echo.tokens] == [0, 1, 1][:num_tokens]
        made = "".join(event.delta.text for event in events)
        assert made == ("" if "max_tokens" in fields.get("sampling", {}) else "x" * len(ends_of(events)))
        assert events[-1].summary.usage.prompt_token_count == 3
    plain = [event async for event in front.generate(ask(prompt="a"))]
    assert not any(event.HasField("echo") for event in plain)


def ends_of(events):
    """The events that end choices."""
    return [event for event in events if event.HasField("choice_finished")]


async def test_a_long_prompt_is_told_in_pieces(rpc):
    """In order and with offsets that go on; the text comes once."""
    front = await rpc()
    front.house.catalog.publish(small_catalog(small_lane(context_length=4 * MAX_ECHOED)))
    prompt = "é" * MAX_ECHOED + "x"
    request = ask(prompt=prompt, echo=True, sampling={"max_tokens": 0, "top_logprobs": 0})
    echoes = [event.echo async for event in front.generate(request) if event.HasField("echo")]
    assert [(echo.text, len(echo.tokens)) for echo in echoes] == [(prompt, MAX_ECHOED), ("", MAX_ECHOED), ("", 1)]
    tokens = [token for echo in echoes for token in echo.tokens]
    assert b"".join(token.raw for token in tokens).decode() == prompt
    assert [token.text_offset for token in tokens] == [*(n // 2 for n in range(2 * MAX_ECHOED)), MAX_ECHOED]
    assert [at for at, token in enumerate(tokens) if not token.HasField("logprob")] == [0]


async def test_echo_is_refused_as_over_rest(rpc):
    """Nothing to make without it; a conversation has no text of its own."""
    front = await rpc()
    for request, reason, parameter in (
        (ask(prompt="a", sampling={"max_tokens": 0}), Reason.PARAMETER_INVALID, "max_tokens"),
        (ask(echo=True), Reason.PARAMETER_UNSUPPORTED, "echo"),
    ):
        _, found, metadata = await front.failure(front.generate(request))
        assert (found, metadata["parameter"]) == (reason, parameter)


async def test_an_echo_is_told_again(rpc):
    """To a repeat under the same key, names that had no effect too."""
    front = await rpc()
    named = chat("hi")
    named.messages[0].name = "ann"
    for request in (ask(prompt="ab", echo=True, sampling={"top_logprobs": 0}), ask(chat=named)):
        key = f"k{len(request.prompt)}"
        first = [event async for event in front.generate(request, idempotency_key=key)]
        call = front.generate(request, idempotency_key=key)
        assert [event async for event in call] == first
        trailer = dict(await call.trailing_metadata())
        assert trailer["idempotent-replayed"] == "true"
        assert trailer.get("x-serin-ignored") == (None if request.prompt else "messages[0].name")


async def test_texts_and_ids_there_and_back(rpc):
    """`Tokenize` and `Detokenize`, as over REST: no worker is asked, no token billed."""
    front = await rpc()
    call = front.stub.Tokenize(
        inference_pb2.TokenizeRequest(model="small", prompt="é", want_token_bytes=True),
        timeout=20,
        metadata=key_of(front),
    )
    answer = await call
    assert (list(answer.token_ids), list(answer.token_bytes)) == ([195, 169], [b"\xc3", b"\xa9"])
    assert (answer.context_length, answer.lane) == (1024, "lane-a")
    for ids, text in (([195, 169, END_ID], "é<end>"), ([], "")):
        request = inference_pb2.DetokenizeRequest(model="small", token_ids=ids)
        back = await front.stub.Detokenize(request, timeout=20, metadata=key_of(front))
        assert (back.text, back.lane) == (text, "lane-a")
    named = chat("hi")
    named.messages[0].name = "ann"
    call = front.stub.Tokenize(
        inference_pb2.TokenizeRequest(model="small", chat=named), timeout=20, metadata=key_of(front)
    )
    answer = await call
    assert (bytes(answer.token_ids), list(answer.token_bytes)) == (b"user: hi\n", [])
    assert dict(await call.trailing_metadata())["x-serin-ignored"] == "messages[0].name"
    assert front.house.workers.orders == []
    assert {(one.operation, one.reason, one.usage.total_tokens) for one in front.house.journal.receipts} == {
        ("tokenize", "ok", 0),
        ("detokenize", "ok", 0),
    }


def key_of(front):
    """The key as metadata."""
    return [("authorization", f"Bearer {front.key}")]


async def test_conversations_are_written_out_as_they_are_wanted(rpc):
    """Without what comes before an answer, or open at their end."""
    front = await rpc()
    front.house.tokenizer = front.house.collaborators.tokenizer
    begun = chat("Well,", role="assistant")
    begun.continue_final_message = True
    for fields, begins_answer, continues in (
        ({"chat": chat("hi")}, True, False),
        ({"chat": chat("hi"), "omit_generation_prompt": True, "omit_special_tokens": True}, False, False),
        ({"chat": begun}, True, True),
    ):
        request = inference_pb2.TokenizeRequest(model="small", **fields)
        await front.stub.Tokenize(request, timeout=20, metadata=key_of(front))
        rendered = front.house.tokenizer.conversations[-1]
        assert (rendered.begins_answer, rendered.continues) == (begins_answer, continues)


async def test_tokenizing_is_refused_with_the_reasons_of_rest(rpc):
    """Each by the field that is wrong."""
    front = await rpc()
    long = [97] * 1025
    for method, request, reason, parameter in (
        ("Tokenize", inference_pb2.TokenizeRequest(model="small"), Reason.PARAMETER_INVALID, "input"),
        (
            "Tokenize",
            inference_pb2.TokenizeRequest(model="small", prompt="a", omit_generation_prompt=True),
            Reason.PARAMETER_INVALID,
            "omit_generation_prompt",
        ),
        ("Tokenize", inference_pb2.TokenizeRequest(model="none", prompt="a"), Reason.MODEL_NOT_FOUND, "model"),
        (
            "Detokenize",
            inference_pb2.DetokenizeRequest(model="small", token_ids=[97, 300]),
            Reason.PARAMETER_INVALID,
            "token_ids[1]",
        ),
        (
            "Detokenize",
            inference_pb2.DetokenizeRequest(model="small", token_ids=long),
            Reason.PROMPT_TOO_LONG,
            "token_ids",
        ),
    ):
        call = getattr(front.stub, method)(request, timeout=20, metadata=key_of(front))
        _, found, metadata = await front.failure(one(call))
        assert (found, metadata["parameter"]) == (reason, parameter)


async def one(call):
    """A call with one answer as a stream."""
    yield await call
