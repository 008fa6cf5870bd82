"""REST and gRPC doors over real gRPC neighbours."""

import asyncio
from dataclasses import replace

import httpx
import pytest
from openai import AsyncOpenAI
from serin.generation.v1 import chat_pb2, sampling_pb2
from serin.inference.v1 import inference_pb2, inference_pb2_grpc
from serin_gateway.catalog import Catalog, ServedModel
from serin_gateway.settings import GatewaySettings
from serin_mesh.call import LANE_KEY, REQUEST_KEY
from whole_path import WholePath, whole_path

HI = [{"role": "user", "content": "hi"}]


@pytest.fixture
async def path(tmp_path):
    """One worker that says hello."""
    async with whole_path(tmp_path) as opened:
        yield opened


@pytest.fixture
async def openai(path: WholePath):
    """The SDK in front of it."""
    async with AsyncOpenAI(base_url=f"{path.url}/v1", api_key=path.key, max_retries=0) as client:
        yield client


async def test_a_question_over_rest(path: WholePath, openai: AsyncOpenAI):
    """Rendered by the template, generated, decoded; lane, request and pick travel to the worker."""
    answer = await openai.chat.completions.create(
        model="demo", messages=HI, temperature=0, extra_body={"allow_cached_answer": True}
    )
    assert answer.choices[0].message.content == "hello"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens == 6
    assert answer.usage.prompt_tokens_details.cached_tokens == 3
    request, metadata = path.workers[0].requests[0], path.workers[0].metadata[0]
    prompt = request.prompt[0].tokens.token_ids
    assert len(prompt) == answer.usage.prompt_tokens
    assert request.kv_digest == "kv-lane-a"
    assert metadata[LANE_KEY] == "lane-a"
    assert request.request_id.startswith(metadata[REQUEST_KEY])
    assert metadata["cookie"].startswith("serin-pick=")
    assert path.cache.recalls[0].key.cache_group == "default"


async def test_the_meshs_own_organization_has_the_name_that_settings_give_it(tmp_path):
    """To administrators and to callers of projects that nobody declared."""
    async with whole_path(tmp_path, settings=GatewaySettings(organization="acme")) as path:
        collaborators = path.house.collaborators
        assert (collaborators.desk.home, collaborators.authenticator.anonymous.organization) == ("acme", "acme")


async def test_the_callers_trace_goes_on_everywhere(path: WholePath):
    """`traceparent` in, the same trace at the worker and in nobody else's streams; without one a fresh trace."""
    trace, body = "4bf92f3577b34da6a3ce929d0e0e4736", {"model": "small", "messages": HI}
    headers = {"authorization": f"Bearer {path.key}"}
    async with httpx.AsyncClient(base_url=path.url, headers=headers) as client:
        for parent in ({"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}, {}):
            assert (await client.post("/v1/chat/completions", json=body, headers=parent)).status_code == 200
    mine, fresh = (metadata["traceparent"].split("-")[1] for metadata in path.workers[0].metadata)
    assert mine == trace
    assert len(fresh) == 32
    assert fresh != trace


async def test_the_same_over_grpc(path: WholePath):
    """The events follow the contract's grammar, with ids and usage."""
    stub = inference_pb2_grpc.InferenceServiceStub(path.rpc)
    request = inference_pb2.GenerateRequest(
        model="small",
        chat=inference_pb2.Chat(
            messages=[chat_pb2.ChatMessage(role="user", content=[chat_pb2.ContentPart(text="hi")])]
        ),
        sampling=sampling_pb2.SamplingParameters(choice_count=2),
    )
    call = stub.Generate(request, timeout=20, metadata=(("authorization", f"Bearer {path.key}"),))
    events = [event async for event in call]
    kinds = [event.WhichOneof("event") for event in events]
    assert (kinds[0], kinds[-1]) == ("started", "summary")
    assert kinds.count("choice_finished") == 2
    assert events[0].started.lane == "lane-a"
    for choice in (0, 1):
        deltas = [e.delta for e in events if e.WhichOneof("event") == "delta" and e.delta.choice_index == choice]
        assert "".join(delta.text for delta in deltas) == "hello"
        assert [i for delta in deltas for i in delta.token_ids] == [*path.ids("hello"), path.workers[0].end_id]
    assert events[-1].summary.usage.completion_token_count == 12
    assert dict(await call.trailing_metadata())[LANE_KEY] == "lane-a"


async def test_an_answer_goes_on_under_the_lane_of_its_next_worker(path: WholePath, openai: AsyncOpenAI):
    """Its worker dies in the middle and its lane has no other: the next call names the lane that has one."""
    worker = path.workers[0]
    old = path.catalog.current().models[0].lanes[0]
    (at,) = old.workers
    # One process here, by two names: no control plane is there to route lanes.
    other = replace(at, instance="other", endpoint=at.endpoint.replace("127.0.0.1", "localhost"))
    new = replace(old, lane="lane-b", weight=0, workers=[other])
    path.catalog.publish(Catalog([ServedModel("small", ["demo"], [old, new], 64)], has_caches=True))
    worker.die_after = 2
    answer = await openai.chat.completions.create(model="demo", messages=HI)
    assert answer.choices[0].message.content == "hello"
    assert [metadata[LANE_KEY] for metadata in worker.metadata] == ["lane-a", "lane-b"]
    first, second = worker.requests
    assert (second.kv_digest, second.vocabulary_digest) == (first.kv_digest, first.vocabulary_digest)
    assert list(second.prior_outputs[0].token_ids) == path.ids("he")
    assert answer.system_fingerprint == "lane-a"


async def test_a_client_that_leaves_cancels_the_worker(path: WholePath):
    """HTTP/1.1 close, and gRPC cancel: the worker's call is cancelled while it waits."""
    worker = path.workers[0]
    worker.pause_at = 2
    body = {"model": "small", "messages": HI, "stream": True}
    headers = {"authorization": f"Bearer {path.key}"}
    async with (
        httpx.AsyncClient(base_url=path.url, headers=headers) as client,
        client.stream("POST", "/v1/chat/completions", json=body) as response,
    ):
        await anext(response.aiter_lines())
        await worker.reached.wait()
    async with asyncio.timeout(60):
        await worker.went_idle.wait()
    worker.reached.clear()
    worker.gate.set()
    stub = inference_pb2_grpc.InferenceServiceStub(path.rpc)
    request = inference_pb2.GenerateRequest(model="small", prompt="hi")
    call = stub.Generate(request, timeout=20, metadata=(("authorization", f"Bearer {path.key}"),))
    await call.read()
    await worker.reached.wait()
    call.cancel()
    async with asyncio.timeout(60):
        await worker.went_idle.wait()


async def test_a_stream_goes_on_on_another_worker(tmp_path):
    """A worker dies mid-stream: the other one is given what was made, and the client sees one answer."""
    async with whole_path(tmp_path, "hello there", num_workers=2) as path:
        for worker in path.workers:
            worker.die_after = 4
        async with AsyncOpenAI(base_url=f"{path.url}/v1", api_key=path.key, max_retries=0) as client:
            path.workers[1].die_after = None
            path.workers[0].die_after = 4
            texts = []
            for _ in range(4):
                answer = await client.chat.completions.create(model="small", messages=HI)
                texts.append(answer.choices[0].message.content)
                path.workers[0].die_after = 4
        assert set(texts) == {"hello there"}


async def test_a_stop_string_ends_worker_and_text(path: WholePath, openai: AsyncOpenAI):
    """The text before it; the worker's call is over as soon as it is found."""
    answer = await openai.chat.completions.create(model="small", messages=HI, stop="ll")
    assert answer.choices[0].message.content == "he"
    assert answer.usage.completion_tokens == 4
    async with asyncio.timeout(60):
        await path.workers[0].went_idle.wait()


async def test_log_probabilities_are_spelled_by_the_tokenizer(path: WholePath, openai: AsyncOpenAI):
    """Tokens and alternatives as text and bytes, special ones by their names."""
    answer = await openai.chat.completions.create(model="small", messages=HI, logprobs=True, top_logprobs=2)
    entries = answer.choices[0].logprobs.content
    assert [entry.token for entry in entries] == list("hello")
    assert [other.token for other in entries[0].top_logprobs] == ["h", "<|im_end|>"]


async def test_echo_puts_the_prompt_first(path: WholePath, openai: AsyncOpenAI):
    """Texts as they came, ids as the tokenizer decodes them."""
    answer = await openai.completions.create(model="small", prompt=["ab", "cd"], max_tokens=3, echo=True)
    assert [choice.text for choice in answer.choices] == ["abhel", "cdhel"]
    ids = path.ids("ab")
    answer = await openai.completions.create(model="small", prompt=ids, max_tokens=3, echo=True)
    assert answer.choices[0].text == "abhel"
    answer = await openai.completions.create(model="small", prompt=ids, max_tokens=0, echo=True)
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("ab", "length")


async def test_a_stored_answer_is_given_again(path: WholePath, openai: AsyncOpenAI):
    """Allowed and deterministic: the second answer needs no worker, and says that all was cached."""
    ask = {"model": "small", "messages": HI, "temperature": 0, "seed": 1, "extra_body": {"allow_cached_answer": True}}
    first = await openai.chat.completions.create(**ask)
    second = await openai.chat.completions.create(**ask)
    assert first.choices[0].message.content == second.choices[0].message.content == "hello"
    assert len(path.workers[0].requests) == 1
    assert second.usage.prompt_tokens_details.cached_tokens == second.usage.prompt_tokens
    assert second.usage.completion_tokens == first.usage.completion_tokens


async def test_a_broken_cache_is_a_miss(path: WholePath, openai: AsyncOpenAI):
    """Whatever cache-svc says, the answer is made."""
    path.cache.fail = True
    answer = await openai.chat.completions.create(model="small", messages=HI)
    assert answer.choices[0].message.content == "hello"


async def test_a_prompt_that_is_too_long_names_both_numbers(path: WholePath, openai: AsyncOpenAI):
    """400 with the length of the prompt and of the context."""
    async with httpx.AsyncClient(base_url=path.url, headers={"authorization": f"Bearer {path.key}"}) as client:
        response = await client.post("/v1/completions", json={"model": "small", "prompt": "x" * 1030})
    error = response.json()["error"]
    assert (response.status_code, error["reason"], error["param"]) == (400, "PROMPT_TOO_LONG", "prompt")
    assert "1030" in error["message"] or "at least" in error["message"]
    assert "1024" in error["message"]


async def test_tokens_are_counted_and_models_listed(path: WholePath):
    """The other methods of the service."""
    stub = inference_pb2_grpc.InferenceServiceStub(path.rpc)
    metadata = (("authorization", f"Bearer {path.key}"),)
    counted = await stub.CountTokens(
        inference_pb2.CountTokensRequest(model="small", prompt="abc"), timeout=20, metadata=metadata
    )
    assert counted.token_count == 3
    listed = await stub.ListModels(inference_pb2.ListModelsRequest(), timeout=20, metadata=metadata)
    assert [(model.name, list(model.aliases), model.context_length, model.ready) for model in listed.models] == [
        ("small", ["demo"], 1024, True)
    ]


@pytest.mark.parametrize("stop", [None, "w"])
async def test_a_completion_goes_on_from_its_prompt(tmp_path, stop):
    """Of tokenizers that take a space off a text's beginning: it is the prompt's, and offsets are into what is told.

    A chat's answer is a text of its own; its tokens are those of the text all the same.
    """
    async with (
        whole_path(tmp_path, " so we", as_llama=True) as path,
        AsyncOpenAI(base_url=f"{path.url}/v1", api_key=path.key, max_retries=0) as openai,
    ):
        ask = {"model": "small", "logprobs": 1, "max_tokens": 20, "stop": stop}
        answer = (await openai.completions.create(prompt="Is", **ask)).choices[0]
        wanted = " so we" if stop is None else " so "
        assert (answer.text, "".join(answer.logprobs.tokens)) == (wanted, wanted)
        assert answer.logprobs.text_offset == list(range(len(wanted)))
        told = (await openai.completions.create(model="small", prompt="Is", echo=True, max_tokens=20)).choices[0]
        assert told.text == "Is so we"
        ask |= {"logprobs": True, "messages": [{"role": "user", "content": "Is"}]}
        chat = (await openai.chat.completions.create(**ask)).choices[0]
        assert chat.message.content == wanted[1:]
        assert "".join(one.token for one in chat.logprobs.content) == wanted
