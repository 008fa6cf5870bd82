"""`InferenceService.Generate` as the contract draws it: grammar, ids, choices, usage, statuses."""

import grpc
import pytest
from harness.asking import TINY
from harness.running_mesh import RunningMesh
from harness.stream_grammar import check_grammar, tokens_by_choice
from harness.tiny_encoder import DIMENSIONS, VECTORS
from openai import AsyncOpenAI
from serin.generation.v1 import chat_pb2, sampling_pb2, tokens_pb2
from serin.inference.v1 import inference_pb2, inference_pb2_grpc

DEADLINE_S = 30.0


@pytest.fixture
def metadata(mesh: RunningMesh) -> tuple[tuple[str, str], ...]:
    """The mesh's own key, as callers send it."""
    return (("authorization", f"Bearer {mesh.key}"),)


def ask(text: str = "Hello", model: str = TINY, **sampling: object) -> inference_pb2.GenerateRequest:
    """A greedy question of 16 tokens."""
    return inference_pb2.GenerateRequest(
        model=model,
        chat=inference_pb2.Chat(
            messages=[chat_pb2.ChatMessage(role="user", content=[chat_pb2.ContentPart(text=text)])]
        ),
        sampling=sampling_pb2.SamplingParameters(**{"temperature": 0, "max_tokens": 16, **sampling}),
    )


async def test_events_follow_the_grammar(front_door: grpc.aio.Channel, metadata):
    """Started, deltas, the choice's end, summary; ids and usage agree."""
    stub = inference_pb2_grpc.InferenceServiceStub(front_door)
    events = [event async for event in stub.Generate(ask(), timeout=DEADLINE_S, metadata=metadata)]
    check_grammar(events)
    assert events[0].started.request_id
    assert events[0].started.model == TINY
    assert events[0].started.lane
    assert len(tokens_by_choice(events)[0]) == 16
    usage = events[-1].summary.usage
    assert usage.completion_token_count == 16
    assert usage.prompt_token_count > 0


async def test_both_doors_give_the_same_answer(front_door: grpc.aio.Channel, metadata, client: AsyncOpenAI):
    """The text over gRPC is the text over REST."""
    stub = inference_pb2_grpc.InferenceServiceStub(front_door)
    events = [event async for event in stub.Generate(ask("Same?"), timeout=DEADLINE_S, metadata=metadata)]
    text = "".join(event.delta.text for event in events if event.WhichOneof("event") == "delta")
    rest = await client.chat.completions.create(
        model=TINY, messages=[{"role": "user", "content": "Same?"}], max_tokens=16, temperature=0
    )
    assert text == rest.choices[0].message.content


async def test_choices_are_interleaved_and_each_ends(front_door: grpc.aio.Channel, metadata):
    """Three choices of one prompt: each has its own ids and its own end."""
    stub = inference_pb2_grpc.InferenceServiceStub(front_door)
    request = ask("Three.", temperature=1.5, seed=4, choice_count=3, ignore_eos=True)
    events = [event async for event in stub.Generate(request, timeout=DEADLINE_S, metadata=metadata)]
    check_grammar(events, num_choices=3)
    tokens = tokens_by_choice(events)
    assert {index: len(ids) for index, ids in tokens.items()} == {0: 16, 1: 16, 2: 16}
    assert len({tuple(ids) for ids in tokens.values()}) == 3


async def test_a_prompt_as_text_or_ids(front_door: grpc.aio.Channel, metadata):
    """The three kinds of input are answered; a text and its ids have one answer."""
    stub = inference_pb2_grpc.InferenceServiceStub(front_door)
    sampling = sampling_pb2.SamplingParameters(temperature=0, max_tokens=8)
    by_text = inference_pb2.GenerateRequest(model=TINY, prompt="ids", sampling=sampling)
    events = [event async for event in stub.Generate(by_text, timeout=DEADLINE_S, metadata=metadata)]
    assert events[-1].summary.usage.prompt_token_count == 3
    run = tokens_pb2.TokenRun(token_ids=tokens_by_choice(events)[0])
    by_ids = inference_pb2.GenerateRequest(model=TINY, token_prompt=run, sampling=sampling)
    again = [event async for event in stub.Generate(by_ids, timeout=DEADLINE_S, metadata=metadata)]
    check_grammar(again)
    assert again[-1].summary.usage.prompt_token_count == 8


async def test_a_stop_string_is_named(front_door: grpc.aio.Channel, metadata):
    """The end of a choice says which stop string ended it; its text is left out."""
    stub = inference_pb2_grpc.InferenceServiceStub(front_door)
    events = [event async for event in stub.Generate(ask(max_tokens=30), timeout=DEADLINE_S, metadata=metadata)]
    text = "".join(event.delta.text for event in events)
    stop = text[9:12]
    request = ask(max_tokens=30)
    request.stop_strings.append(stop)
    events = [event async for event in stub.Generate(request, timeout=DEADLINE_S, metadata=metadata)]
    check_grammar(events)
    end = next(event.choice_finished for event in events if event.WhichOneof("event") == "choice_finished")
    assert end.stop_string == stop
    assert end.finish_reason == sampling_pb2.FINISH_REASON_STOP
    assert "".join(event.delta.text for event in events) == text[: text.index(stop)]


async def test_log_probabilities_have_bytes(front_door: grpc.aio.Channel, metadata):
    """One entry per id; the bytes of all of them are the text's."""
    stub = inference_pb2_grpc.InferenceServiceStub(front_door)
    request = ask("Why?", top_logprobs=3)
    events = [event async for event in stub.Generate(request, timeout=DEADLINE_S, metadata=metadata)]
    deltas = [event.delta for event in events if event.WhichOneof("event") == "delta"]
    entries = [entry for delta in deltas for entry in delta.logprobs]
    assert b"".join(entry.raw for entry in entries).decode() == "".join(delta.text for delta in deltas)
    assert all(len(entry.alternatives) == 3 for entry in entries)


async def test_tokens_are_counted_without_generating(front_door: grpc.aio.Channel, metadata):
    """`CountTokens` says what `Generate` bills as prompt."""
    stub = inference_pb2_grpc.InferenceServiceStub(front_door)
    request = ask("Count me.")
    events = [event async for event in stub.Generate(request, timeout=DEADLINE_S, metadata=metadata)]
    counted = await stub.CountTokens(
        inference_pb2.CountTokensRequest(model=TINY, chat=request.chat), timeout=DEADLINE_S, metadata=metadata
    )
    assert counted.token_count == events[-1].summary.usage.prompt_token_count


async def test_texts_become_ids_and_texts_again(front_door: grpc.aio.Channel, metadata):
    """`Tokenize` and `Detokenize` are each other's contrary; an echo has the same ids, and how likely each is."""
    stub = inference_pb2_grpc.InferenceServiceStub(front_door)
    text = "Count me, Zoë."
    asked = inference_pb2.TokenizeRequest(model=TINY, prompt=text, want_token_bytes=True)
    found = await stub.Tokenize(asked, timeout=DEADLINE_S, metadata=metadata)
    assert b"".join(found.token_bytes).decode() == text
    back = inference_pb2.DetokenizeRequest(model=TINY, token_ids=found.token_ids)
    assert (await stub.Detokenize(back, timeout=DEADLINE_S, metadata=metadata)).text == text
    scored = inference_pb2.GenerateRequest(model=TINY, prompt=text, echo=True)
    scored.sampling.max_tokens, scored.sampling.top_logprobs = 0, 1
    events = [event async for event in stub.Generate(scored, timeout=DEADLINE_S, metadata=metadata)]
    assert [event.WhichOneof("event") for event in events] == ["started", "echo", "choice_finished", "summary"]
    echo = events[1].echo
    assert (echo.text, [token.token_id for token in echo.tokens]) == (text, list(found.token_ids))
    assert [token.HasField("logprob") for token in echo.tokens] == [False] + [True] * (len(echo.tokens) - 1)
    assert all(token.alternatives[0].logprob >= token.logprob for token in echo.tokens[1:])


async def test_models_are_listed_with_their_context(front_door: grpc.aio.Channel, metadata):
    """`ListModels` names models, aliases, context and readiness, ordered by name."""
    stub = inference_pb2_grpc.InferenceServiceStub(front_door)
    models = (await stub.ListModels(inference_pb2.ListModelsRequest(), timeout=DEADLINE_S, metadata=metadata)).models
    assert [model.name for model in models] == ["nobody", "small", "smart", "spare", TINY, VECTORS]
    assert [model.ready for model in models] == [False, True, True, False, True, True]
    assert list(models[1].aliases) == ["demo"]
    assert list(models[2].cascade_models) == [TINY, "small"]
    assert models[4].context_length == 4096
    assert [model.embedding_dimension_count for model in models] == [0, 0, 0, 0, 0, DIMENSIONS]


async def test_a_call_for_vectors(front_door: grpc.aio.Channel, metadata):
    """One for each input, of the length that `ListModels` says or is asked for; what was used, and the lane."""
    stub = inference_pb2_grpc.InferenceServiceStub(front_door)
    for wanted in (0, DIMENSIONS - 1):
        request = inference_pb2.EmbedRequest(model=VECTORS, inputs=["a", "bc"], dimension_count=wanted)
        call = stub.Embed(request, timeout=DEADLINE_S, metadata=metadata)
        answer = await call
        assert [len(one.values) for one in answer.embeddings] == [wanted or DIMENSIONS] * 2
        assert answer.usage.prompt_token_count == len("[a]") + len("[bc]"), "a character is a token; special ones count"
        assert answer.lane
        assert dict(await call.trailing_metadata())["serin-lane"] == answer.lane
