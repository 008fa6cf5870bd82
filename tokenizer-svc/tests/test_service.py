"""The whole service over gRPC, with every layer that it has in production."""

import asyncio
import contextlib
import itertools
import json

import grpc
import pytest
import pytest_asyncio
import tokenizer_folders as folders
from hypothesis import given, settings
from hypothesis import strategies as st
from serin.generation.v1 import chat_pb2, sampling_pb2, tokens_pb2
from serin.tokenizer.v1 import tokenizer_pb2 as pb
from serin.tokenizer.v1 import tokenizer_pb2_grpc
from serin_mesh.errors import MeshError, Reason
from serin_mesh.identity import vocabulary_digest
from serin_mesh.testing import running
from serin_tokenizer_svc.assembly import assembled
from serin_tokenizer_svc.folder import read_folder
from serin_tokenizer_svc.grammar_pool import GrammarLimits
from serin_tokenizer_svc.render_pool import RenderLimits
from serin_tokenizer_svc.sequences import CREDIT
from serin_tokenizer_svc.service import TokenizerService
from serin_tokenizer_svc.text_stream import PieceStream

ONE_LOOP = pytest.mark.asyncio(loop_scope="module")

LOOP = (
    "{% if messages[0].content == 'loop' %}"
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    "{% endif %}{{ messages[0].content }}"
)


@contextlib.asynccontextmanager
async def serving(folder, limits=None):
    """A stub of a served tokenizer, and the service behind it."""
    limits, one = limits or RenderLimits(20.0, num_processes=1), GrammarLimits(num_processes=1)
    async with assembled(folder, model="small", version="v1", limits=limits, grammar_limits=one) as tokenizer:
        service = TokenizerService(tokenizer)

        def register(server):
            tokenizer_pb2_grpc.add_TokenizerServiceServicer_to_server(service, server)

        async with running(register, "tokenizer") as host, host.connect() as channel:
            yield tokenizer_pb2_grpc.TokenizerServiceStub(channel), service


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def services():
    """Services that tests share, one for each folder: its processes take seconds to start."""
    opened = {}
    async with contextlib.AsyncExitStack() as stack:

        @contextlib.asynccontextmanager
        async def shared(folder):
            if folder not in opened:
                opened[folder] = await stack.enter_async_context(serving(folder))
            yield opened[folder]

        yield shared


def message(role, *texts, **fields):
    """A turn on the wire."""
    return chat_pb2.ChatMessage(role=role, content=[chat_pb2.ContentPart(text=text) for text in texts], **fields)


def render(*messages, **fields):
    """A render request."""
    return pb.RenderRequest(messages=messages, **fields)


def framed(**frame):
    """One frame as a message."""
    return pb.DetokenizeRequest(frames=[pb.SequenceFrame(**frame)])


async def refused(call):
    """The error a call ends in."""
    with pytest.raises(MeshError) as caught:
        await call
    return caught.value


@ONE_LOOP
async def test_render_equals_transformers(model_folders, oracles, services):
    """Messages, tools and arguments over the wire become the ids that transformers makes."""
    request = render(
        message("system", "Be brief."),
        message("user", "weather in Köln?"),
        message("assistant", tool_calls=[chat_pb2.ToolCall(id="c", name="w", arguments_json='{"b": 1, "a": [1.5]}')]),
        message("tool", "rain", tool_call_id="c"),
        tools=[
            chat_pb2.ToolDefinition(
                name="w",
                description="d",
                parameters_json='{"type": "object", "properties": {"b": {"type": "integer"}}}',
            )
        ],
        template_arguments_json='{"enable_thinking": false}',
    )
    expected = oracles["byte_level"].apply_chat_template(
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "weather in Köln?"},
            {
                "role": "assistant",
                "tool_calls": [
                    {"id": "c", "type": "function", "function": {"name": "w", "arguments": {"b": 1, "a": [1.5]}}}
                ],
            },
            {"role": "tool", "content": "rain", "tool_call_id": "c"},
        ],
        tools=[
            {
                "type": "function",
                "function": {
                    "name": "w",
                    "description": "d",
                    "parameters": {"type": "object", "properties": {"b": {"type": "integer"}}},
                },
            }
        ],
        enable_thinking=False,
        add_generation_prompt=True,
        return_dict=False,
    )
    async with services(model_folders["byte_level"]) as (stub, _):
        response = await stub.Render(request)
    assert [list(segment.tokens.token_ids) for segment in response.segments] == [expected]
    assert response.token_count == len(expected)
    assert response.vocabulary_digest == vocabulary_digest(model_folders["byte_level"])


@pytest.mark.parametrize(
    ("request_", "reason", "parameter"),
    [
        (render(), Reason.PARAMETER_INVALID, "messages"),
        (render(message("robot", "x")), Reason.PARAMETER_INVALID, "messages[0].role"),
        (render(message("user")), Reason.PARAMETER_INVALID, "messages[0].content"),
        (render(message("user", "hello there"), max_token_count=3), Reason.PROMPT_TOO_LONG, "messages"),
        (render(message("user", "x"), template_arguments_json='{"y": 1}'), Reason.TEMPLATE_ARGUMENT_UNKNOWN, "y"),
        (render(message("user", "x"), tools=[chat_pb2.ToolDefinition()]), Reason.PARAMETER_INVALID, "tools[0].name"),
    ],
)
@ONE_LOOP
async def test_render_refuses_by_name(request_, reason, parameter, model_folders, services):
    """A bad field is named; a prompt that is too long comes with both numbers."""
    async with services(model_folders["byte_level"]) as (stub, _):
        error = await refused(stub.Render(request_))
    assert (error.reason, error.metadata["parameter"]) == (reason, parameter)
    if reason is Reason.PROMPT_TOO_LONG:
        assert error.metadata["max_token_count"] == "3"
        assert int(error.metadata["token_count"]) > 3


@ONE_LOOP
async def test_an_endless_template_costs_its_own_request_only(tmp_path):
    """The looping conversation is refused with its limit's reason while others are answered."""
    folder = folders.make("byte_level", tmp_path, chat_template=LOOP)
    async with serving(folder, RenderLimits(timeout_s=60, num_processes=2)) as (stub, service):
        children = service._tokenizer.chat._pool.children
        children._timeout_s = 0.5  # for the looping one alone
        looping = asyncio.ensure_future(refused(stub.Render(render(message("user", "loop")))))
        while children._idle.qsize() == 2:  # noqa: ASYNC110 - processes tell nobody when they are taken
            await asyncio.sleep(0.001)
        children._timeout_s = 60
        for _ in range(3):
            assert (await stub.Render(render(message("user", "hi")))).token_count > 0
        error = await looping
        assert error.reason is Reason.TEMPLATE_LIMIT
        assert (await stub.Render(render(message("user", "hi")))).token_count > 0


@ONE_LOOP
async def test_the_templates_refusal_reaches_the_caller(model_folders, services):
    """What the template raises is the message; a folder without a template says so."""
    async with services(model_folders["byte_fallback"]) as (stub, _):
        error = await refused(stub.Render(render(message("user", "a"), message("user", "b"))))
        assert (error.reason, error.metadata["parameter"]) == (Reason.TEMPLATE_REJECTED, "messages")
        assert "user came twice" in error.message
    async with services(model_folders["characters"]) as (stub, _):
        assert (await refused(stub.Render(render(message("user", "a"))))).reason is Reason.TEMPLATE_REJECTED
        assert not (await stub.DescribeTokenizer(pb.DescribeTokenizerRequest())).has_chat_template


@ONE_LOOP
async def test_many_encodes_at_once_equal_one_by_one(model_folders, oracles, services):
    """Calls that share a batch get their own ids, special ones added or not as each asked."""
    texts = [f"{text} {number}" for number in range(20) for text in folders.CORPUS[:5]]
    async with services(model_folders["byte_fallback"]) as (stub, _):
        requests = [
            pb.EncodeRequest(texts=[text, "x"], omit_special_tokens=at % 3 == 0) for at, text in enumerate(texts)
        ]
        responses = await asyncio.gather(*(stub.Encode(request) for request in requests))
    for at, response in enumerate(responses):
        expected = oracles["byte_fallback"].encode(texts[at], add_special_tokens=at % 3 != 0)
        assert list(response.runs[0].token_ids) == expected


@ONE_LOOP
async def test_encode_and_decode_refuse_what_they_cannot_take(model_folders, services):
    """Counts, lengths and vocabularies are checked, each with its reason."""
    async with services(model_folders["byte_level"]) as (stub, _):
        assert (await refused(stub.Encode(pb.EncodeRequest()))).metadata["parameter"] == "texts"
        error = await refused(stub.Encode(pb.EncodeRequest(texts=["", "hello there"], max_token_count=1)))
        assert (error.reason, error.metadata["parameter"]) == (Reason.PROMPT_TOO_LONG, "texts[1]")
        error = await refused(stub.Decode(pb.DecodeRequest(vocabulary_digest="other")))
        assert error.reason is Reason.VOCABULARY_MISMATCH
        digest = (await stub.DescribeTokenizer(pb.DescribeTokenizerRequest())).vocabulary_digest
        error = await refused(stub.Decode(pb.DecodeRequest(vocabulary_digest=digest)))
        assert error.metadata["parameter"] == "runs"


LONG = {"type": "object", "properties": {"a": {"type": "string", "minLength": 10**9}}, "required": ["a"]}


@ONE_LOOP
async def test_grammars_are_prepared_or_refused_with_their_reason(model_folders):
    """What comes back is of its own kind; equal grammars give equal texts, and each refusal has its reason."""
    async with serving(model_folders["byte_level"]) as (stub, service):

        async def prepare(kind, text, **fields):
            grammar = sampling_pb2.Grammar(kind=kind, text=text, **fields)
            return (await stub.PrepareGrammar(pb.PrepareGrammarRequest(grammar=grammar))).grammar

        first = await prepare(sampling_pb2.GRAMMAR_KIND_JSON_SCHEMA, '{"type": "integer"}')
        assert first.kind == sampling_pb2.GRAMMAR_KIND_PREPARED
        assert first == await prepare(sampling_pb2.GRAMMAR_KIND_JSON_SCHEMA, '{"type": "integer"}')
        for kind, text, reason in (
            (sampling_pb2.GRAMMAR_KIND_UNSPECIFIED, "a", Reason.PARAMETER_INVALID),
            (sampling_pb2.GRAMMAR_KIND_PREPARED, first.text, Reason.PARAMETER_INVALID),
            (sampling_pb2.GRAMMAR_KIND_REGEX, "(a", Reason.GRAMMAR_INVALID),
            (sampling_pb2.GRAMMAR_KIND_REGEX, "a" * 300_000, Reason.GRAMMAR_LIMIT),
        ):
            error = await refused(prepare(kind, text))
            assert (error.reason, error.metadata["parameter"]) == (reason, "grammar")
        assert service._tokenizer.grammars.cache.num_hits == 1
        long = sampling_pb2.Grammar(kind=sampling_pb2.GRAMMAR_KIND_JSON_SCHEMA, text=json.dumps(LONG))
        error = await refused(stub.PrepareGrammar(pb.PrepareGrammarRequest(grammar=long, max_token_count=2047)))
        assert (error.reason, error.metadata["parameter"]) == (Reason.GRAMMAR_LIMIT, "grammar")
        assert "#/properties/a/minLength: " in error.message
        assert (await stub.PrepareGrammar(pb.PrepareGrammarRequest(grammar=long))).grammar.text


@ONE_LOOP
async def test_what_can_never_fit_is_refused_before_it_is_encoded(model_folders):
    """By its bytes: the least number of ids is told, and nothing is counted as encoded."""
    async with serving(model_folders["byte_level"]) as (stub, service):
        long = "hello there " * 10_000
        for call in (
            stub.Encode(pb.EncodeRequest(texts=["a", long], max_token_count=100)),
            stub.Render(render(message("user", long), max_token_count=100)),
        ):
            error = await refused(call)
            assert (error.reason, error.metadata["at_least"]) == (Reason.PROMPT_TOO_LONG, "true")
            assert 100 < int(error.metadata["token_count"]) <= len(long)
            assert "at least" in error.message
        assert service.tally.num_encoded == 0


@ONE_LOOP
async def test_decode_gives_text_and_exact_bytes(model_folders, services):
    """Half a character is U+FFFD in the text and itself in the bytes."""
    async with services(model_folders["byte_level"]) as (stub, _):
        ids = list((await stub.Encode(pb.EncodeRequest(texts=["🙂"]))).runs[0].token_ids)
        about = await stub.DescribeTokenizer(pb.DescribeTokenizerRequest())
        end = tokens_pb2.TokenRun(token_ids=[*ids, *about.end_token_ids])
        runs = [end, tokens_pb2.TokenRun(token_ids=ids[:-1])]
        digest = about.vocabulary_digest
        response = await stub.Decode(pb.DecodeRequest(runs=runs, vocabulary_digest=digest))
        assert response.texts[0] == "🙂"
        assert response.raw[1] + b"\x82" == "🙂".encode()
        assert response.texts[1] == "\ufffd"
        kept = await stub.Decode(pb.DecodeRequest(runs=runs[:1], vocabulary_digest=digest, keep_special_tokens=True))
        assert kept.texts[0] == "🙂<|im_end|>"


@ONE_LOOP
async def test_describe_says_what_the_tokenizer_is(model_folders, services):
    """Digests, size and end ids are those of the folder."""
    folder = model_folders["byte_level"]
    async with services(folder) as (stub, _):
        about = await stub.DescribeTokenizer(pb.DescribeTokenizerRequest())
    assert about.vocabulary_digest == vocabulary_digest(folder)
    assert about.tokenizer_digest == read_folder(folder).digest
    assert (about.model, about.version, about.has_chat_template) == ("small", "v1", True)
    assert len(about.end_token_ids) == 1
    assert about.end_token_ids[0] < about.vocabulary_size


class Caller:
    """A caller of Detokenize that keeps what it hears, by sequence."""

    def __init__(self, stub, digest):
        self.stub = stub
        self.stream = stub.Detokenize()
        self.digest = digest
        self.heard = {}
        self.unread = []

    async def open(self, name, **fields):
        """Open a sequence."""
        fields.setdefault("vocabulary_digest", self.digest)
        await self.stream.write(framed(sequence_id=name, open=pb.OpenSequence(**fields)))

    async def append(self, name, ids):
        """Append ids."""
        await self.stream.write(framed(sequence_id=name, append=pb.AppendTokens(token_ids=ids)))

    async def close(self, name):
        """Close a sequence."""
        await self.stream.write(framed(sequence_id=name, close=pb.CloseSequence()))

    async def hear(self):
        """The next news; a message may carry more."""
        if not self.unread:
            self.unread = list((await self.stream.read()).news)
        news = self.unread.pop(0)
        self.heard.setdefault(news.sequence_id, []).append(news)
        return news

    async def hear_out(self, *names):
        """Listen until these sequences are closed."""
        while not all(self.heard.get(name) and self.heard[name][-1].closed for name in names):
            await self.hear()

    def text(self, name):
        """Text heard of a sequence."""
        return "".join(reply.text for reply in self.heard[name])


@contextlib.asynccontextmanager
async def calling(folder, services=serving):
    """A caller of a served tokenizer."""
    async with services(folder) as (stub, service):
        caller = Caller(stub, vocabulary_digest(folder))
        yield caller, service
        caller.stream.cancel()


@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback", "word_piece"])
@ONE_LOOP
async def test_many_sequences_share_a_stream(kind, model_folders, vocabularies, services):
    """Interleaved sequences each get their own text, watermark and byte count."""
    vocabulary = vocabularies[kind]
    wanted = {f"s{number}": text for number, text in enumerate(folders.CORPUS[:5])}
    ids = {name: vocabulary.encode([text], False)[0] for name, text in wanted.items()}
    async with calling(model_folders[kind], services) as (caller, _):
        for name in wanted:
            await caller.open(name)
        for at in range(max(map(len, ids.values()))):
            for name, its in ids.items():
                if at < len(its):
                    await caller.append(name, its[at : at + 1])
        for name in wanted:
            await caller.close(name)
        await caller.hear_out(*wanted)
        for name, its in ids.items():
            last = caller.heard[name][-1]
            assert caller.text(name) == vocabulary.decode(its, False)[0]
            assert last.watermark == len(its)
            assert last.delivered_byte_count == len(caller.text(name).encode())
            assert caller.heard[name][0].credit == CREDIT
            assert [reply.watermark for reply in caller.heard[name]] == sorted(r.watermark for r in caller.heard[name])


@ONE_LOOP
async def test_a_stop_string_ends_its_sequence_only(model_folders, vocabularies, services):
    """The match across tokens is found, named and withheld; late frames are passed over; others go on."""
    (ids,) = vocabularies["characters"].encode(["The quick brown"], False)
    async with calling(model_folders["characters"], services) as (caller, _):
        await caller.open("a", stop_strings=["ick b", "zzz"])
        await caller.open("b")
        await caller.append("a", ids)
        await caller.append("a", ids)
        await caller.close("a")
        await caller.append("b", ids)
        await caller.close("b")
        await caller.hear_out("a", "b")
        last = caller.heard["a"][-1]
        assert (caller.text("a"), last.stop.stop_string, last.stop.token_count, last.watermark) == (
            "The qu",
            "ick b",
            11,
            11,
        )
        assert not any(reply.HasField("failure") for replies in caller.heard.values() for reply in replies)
        assert caller.text("b") == "The quick brown"


@ONE_LOOP
async def test_another_stream_takes_over_exactly(model_folders, vocabularies, services):
    """Prior ids and delivered bytes hand a sequence over in the middle of a character and of a stop string."""
    vocabulary = vocabularies["byte_level"]
    (ids,) = vocabulary.encode(["naïve 🙂 café STOP"], False)
    async with calling(model_folders["byte_level"], services) as (old, _):
        new = Caller(old.stub, old.digest)
        for at in range(len(ids) + 1):
            name, fence = f"at {at}", f"fence {at}"
            await old.open(name, stop_strings=["STOP"])
            await old.append(name, ids[:at])
            await old.open(fence)
            await old.close(fence)
            await old.hear_out(fence)
            before, last = old.text(name), old.heard[name][-1]
            assert (last.watermark, last.delivered_byte_count) == (at, len(before.encode()))
            assert last.closed == (at == len(ids))
            await new.open(
                name, stop_strings=["STOP"], prior_token_ids=ids[:at], delivered_byte_count=last.delivered_byte_count
            )
            await new.append(name, ids[at:])
            await new.hear_out(name)
            assert before + new.text(name) == "naïve 🙂 café "
            assert new.heard[name][-1].stop.token_count == len(ids)
        new.stream.cancel()


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (pb.OpenSequence(vocabulary_digest="other"), "VOCABULARY_MISMATCH"),
        (pb.OpenSequence(stop_strings=["x"] * 17), "PARAMETER_INVALID"),
        (pb.OpenSequence(stop_strings=[""]), "PARAMETER_INVALID"),
        (pb.OpenSequence(stop_strings=["x" * 1025]), "PARAMETER_INVALID"),
        (pb.AppendTokens(token_ids=[1]), "NOT_FOUND"),
        (pb.CloseSequence(), "NOT_FOUND"),
    ],
)
@ONE_LOOP
async def test_a_failure_is_an_event_of_its_sequence(frame, reason, model_folders, vocabularies, services):
    """A bad frame fails its sequence with a reason; the stream and the other sequences go on."""
    (ids,) = vocabularies["byte_level"].encode(["hello"], False)
    async with calling(model_folders["byte_level"], services) as (caller, _):
        await caller.open("good")
        if isinstance(frame, pb.OpenSequence) and not frame.vocabulary_digest:
            frame.vocabulary_digest = caller.digest
        field = {pb.OpenSequence: "open", pb.AppendTokens: "append", pb.CloseSequence: "close"}[type(frame)]
        await caller.stream.write(framed(sequence_id="bad", **{field: frame}))
        await caller.append("good", ids)
        await caller.close("good")
        await caller.hear_out("good", "bad")
        assert [reply.failure.reason for reply in caller.heard["bad"]] == [reason]
        assert caller.text("good") == "hello"


@ONE_LOOP
async def test_a_decoders_fault_costs_one_sequence(model_folders, vocabularies, monkeypatch, services):
    """Where decoding itself breaks, that sequence fails as our fault and the others go on."""
    (ids,) = vocabularies["byte_level"].encode(["hello"], False)
    append = PieceStream.append

    def break_on_77(stream, token_ids):
        if 77 in token_ids:
            raise RuntimeError("broken")
        return append(stream, token_ids)

    monkeypatch.setattr(PieceStream, "append", break_on_77)
    async with calling(model_folders["byte_level"], services) as (caller, _):
        await caller.open("bad")
        await caller.open("good")
        await caller.append("bad", [77])
        await caller.append("good", ids)
        await caller.close("good")
        await caller.hear_out("bad", "good")
        assert caller.heard["bad"][-1].failure.reason == "INTERNAL"
        assert caller.text("good") == "hello"


@ONE_LOOP
async def test_credit_is_kept(model_folders, services):
    """A caller that sends more than its credit loses that sequence, and only that."""
    async with calling(model_folders["byte_level"], services) as (caller, _):
        await caller.open("greedy")
        await caller.open("good")
        await caller.append("greedy", [1] * (CREDIT + 1))
        await caller.append("good", [1] * CREDIT)
        await caller.close("good")
        await caller.hear_out("greedy", "good")
        assert caller.heard["greedy"][-1].failure.reason == "PARAMETER_INVALID"
        assert caller.heard["good"][-1].watermark == CREDIT


@ONE_LOOP
async def test_a_long_prior_is_taken_in_pieces(model_folders, vocabularies, services):
    """Text of many prior ids comes in messages of bounded size and adds up."""
    vocabulary = vocabularies["byte_level"]
    (ids,) = vocabulary.encode([folders.CORPUS[0] * 40], False)
    prior = ids * 40
    async with calling(model_folders["byte_level"], services) as (caller, _):
        await caller.open("s", prior_token_ids=prior)
        await caller.close("s")
        await caller.hear_out("s")
        assert caller.text("s") == vocabulary.decode(prior, False)[0]
        assert max(len(reply.text) for reply in caller.heard["s"]) <= 1 << 16


@ONE_LOOP
async def test_a_draining_service_hands_its_streams_over(model_folders, vocabularies):
    """New sequences are refused, open ones end in peace, then the stream ends by itself."""
    (ids,) = vocabularies["byte_level"].encode(["hello"], False)
    async with calling(model_folders["byte_level"]) as (caller, service):
        await caller.open("old")
        await caller.hear()
        service.drain()
        await caller.open("new")
        await caller.append("old", ids)
        await caller.close("old")
        await caller.hear_out("old", "new")
        assert caller.heard["new"][-1].failure.reason == "NOT_READY"
        assert caller.text("old") == "hello"
        assert await caller.stream.read() is grpc.aio.EOF


@ONE_LOOP
async def test_a_caller_that_leaves_leaves_nothing(model_folders):
    """Cancelling a stream frees its sequences."""
    async with serving(model_folders["byte_level"]) as (stub, service):
        caller = Caller(stub, vocabulary_digest(model_folders["byte_level"]))
        await caller.open("s")
        await caller.hear()
        assert len(service._streams) == 1
        caller.stream.cancel()
        async with asyncio.timeout(60):
            while service._streams:  # noqa: ASYNC110 - the service has no event for a caller that left
                await asyncio.sleep(0.001)


def test_any_frames_over_the_wire_equal_decode(model_folders, vocabularies):
    """Random ids in random frames of several sequences on one stream: the text is that of one decode."""
    vocabulary = vocabularies["byte_level"]
    numbers = itertools.count()

    async def frames(caller, ids, turns):
        names = [str(next(numbers)) for _ in ids]
        for name in names:
            await caller.open(name)
        sent = [0] * len(ids)
        for at, _ in turns:
            await caller.append(names[at], ids[at][sent[at] : sent[at] + 1])
            sent[at] += 1
        for name in names:
            await caller.close(name)
        await caller.hear_out(*names)
        for name, its in zip(names, ids, strict=True):
            assert caller.text(name) == vocabulary.decode(its, False)[0]

    with asyncio.Runner() as runner:
        calls = calling(model_folders["byte_level"])
        caller, _ = runner.run(calls.__aenter__())

        @settings(max_examples=30)
        @given(data=st.data())
        def hold(data):
            ids = data.draw(
                st.lists(st.lists(st.integers(0, vocabulary.size - 1), max_size=12), min_size=1, max_size=4)
            )
            order = data.draw(
                st.permutations([(at, token_at) for at, its in enumerate(ids) for token_at in range(len(its))])
            )
            runner.run(frames(caller, ids, sorted(order, key=lambda pair: (order.index(pair) % 3, pair[1]))))

        try:
            hold()
        finally:
            runner.run(calls.__aexit__(None, None, None))


@ONE_LOOP
async def test_an_answers_form_travels_with_its_prompt(tmp_path):
    """Family, marks, the call that was begun and what it must be; DescribeTokenizer knows the family too.

    So do the places of names that the template does not show.
    """
    tool = chat_pb2.ToolDefinition(name="f", parameters_json='{"type": "object"}')
    other = chat_pb2.ToolDefinition(name="g")
    named = chat_pb2.ToolChoice(mode=chat_pb2.TOOL_CHOICE_MODE_NAMED, name="f")
    hidden = chat_pb2.ToolChoice(mode=chat_pb2.TOOL_CHOICE_MODE_NONE)
    template = folders.CHATML.replace("<think></think>", "<think>\\n</think>")
    async with serving(folders.make("byte_level", tmp_path, chat_template=template)) as (stub, _):
        about = await stub.DescribeTokenizer(pb.DescribeTokenizerRequest())
        assert about.answer_format.tool_calls == pb.TOOL_CALL_FORMAT_HERMES
        assert (about.answer_format.reasoning_open, about.answer_format.reasoning_close) == ("<think>", "</think>")
        begun = await stub.Render(render(message("user", "x"), tools=[tool], tool_choice=named))
        assert begun.answer_format.beginning == '<tool_call>\n{"name": "f", "arguments":'
        assert not begun.HasField("grammar")
        constrained = render(message("user", "x"), tools=[tool], tool_choice=named, constrain_calls=True)
        grammar = (await stub.Render(constrained)).grammar
        assert (grammar.kind, "%json" in grammar.text) == (sampling_pb2.GRAMMAR_KIND_PREPARED, True)
        failing = [chat_pb2.ToolDefinition(name="f", parameters_json='{"title": "\\ud800"}')]
        error = await refused(stub.Render(render(message("user", "x"), tools=failing)))
        assert (error.reason, error.metadata["parameter"]) == (Reason.TEMPLATE_REJECTED, "tools")
        assert error.message.startswith("tools: the chat template wrote characters")
        called = chat_pb2.ToolCall(id="c", name="f", arguments_json='{"x": "\\ud800"}')
        named_turn = render(message("user", "x"), message("user", "x", name="ann"))
        assert list((await stub.Render(named_turn)).unshown_names) == [1]
        halved = message("assistant", tool_calls=[called])
        assert (await stub.Render(render(message("user", "x"), halved))).token_count
        tool.parameters_json = (
            '{"uniqueItems": true, "type": ["object", "array"], "properties": {"a": false}, "required": ["a"]}'
        )
        constrained = render(message("user", "x"), tools=[other, tool], tool_choice=named, constrain_calls=True)
        for _ in range(2):  # found, then remembered
            found = await refused(stub.Render(constrained))
            assert (found.reason.value, found.metadata["parameter"]) == ("GRAMMAR_INVALID", "tools[1].parameters")
        tool.parameters_json = json.dumps(LONG)
        constrained = render(
            message("user", "x"), tools=[other, tool], tool_choice=named, constrain_calls=True, max_token_count=2047
        )
        found = await refused(stub.Render(constrained))
        assert (found.reason.value, found.metadata["parameter"]) == ("GRAMMAR_LIMIT", "tools[1].parameters")
        without = await stub.Render(render(message("user", "x"), tools=[tool], tool_choice=hidden))
        assert without.token_count == (await stub.Render(render(message("user", "x")))).token_count


@pytest.mark.parametrize(
    ("fields", "reason", "parameter"),
    [
        ({"tools": [chat_pb2.ToolDefinition(name="f")]}, "PARAMETER_UNSUPPORTED", "tools"),
        ({"tools": [chat_pb2.ToolDefinition(name="f")] * 129}, "PARAMETER_INVALID", "tools"),
        ({"reasoning_effort": "high"}, "PARAMETER_UNSUPPORTED", "reasoning_effort"),
        ({"reasoning_effort": "very"}, "PARAMETER_INVALID", "reasoning_effort"),
        (
            {"tool_choice": chat_pb2.ToolChoice(mode=chat_pb2.TOOL_CHOICE_MODE_REQUIRED)},
            "PARAMETER_INVALID",
            "tool_choice",
        ),
        (
            {"tools": [chat_pb2.ToolDefinition(name="f", parameters_json='{"a":' * 70 + "1" + "}" * 70)]},
            "PARAMETER_INVALID",
            "tools[0].parameters",
        ),
    ],
)
@ONE_LOOP
async def test_what_a_template_has_no_place_for_is_refused_by_name(fields, reason, parameter, model_folders, services):
    """Tools and efforts among it, and what is too much of it."""
    async with services(model_folders["byte_fallback"]) as (stub, _):
        found = await refused(stub.Render(render(message("user", "x"), **fields)))
        assert (found.reason.value, found.metadata["parameter"]) == (reason, parameter)


@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback", "word_piece"])
@ONE_LOOP
async def test_special_ids_are_written_out_where_they_are_asked_for(kind, model_folders, vocabularies, services):
    """Those that are shown, and no others; a sequence that is taken over goes on behind them."""
    vocabulary = vocabularies[kind]
    special = [(token, token_id) for token, (token_id, is_special) in vocabulary.added_tokens.items() if is_special]
    (shown, shown_id), (hidden, hidden_id), *_ = special
    word = vocabulary.encode(["fox"], False)[0]
    async with calling(model_folders[kind], services) as (caller, _):
        await caller.open("a", shown_token_ids=[shown_id])
        await caller.append("a", [*word, hidden_id, shown_id])
        await caller.close("a")
        await caller.hear_out("a")
        text = caller.text("a")
        assert shown in text
        assert hidden not in text
        with_prior = {"prior_token_ids": [*word, hidden_id, shown_id], "delivered_byte_count": len(text.encode()) - 1}
        await caller.open("b", shown_token_ids=[shown_id], **with_prior)
        await caller.close("b")
        await caller.hear_out("b")
        assert caller.text("b") == text[-1]
        await caller.open("c", shown_token_ids=list(range(65)))
        await caller.hear_out("c")
        assert caller.heard["c"][-1].failure.reason == "PARAMETER_INVALID"
