"""Embeddings through the whole mesh, asked by the official SDK: the numbers of transformers, and what is refused."""

import asyncio
import base64

import grpc
import httpx
import numpy as np
import pytest
from harness.asking import TINY
from harness.clients import plain_http
from harness.eventually import eventually
from harness.keys import mint
from harness.running_mesh import RunningMesh
from harness.tiny_encoder import DIMENSIONS, MAX_TOKENS, VECTORS
from harness.wire_errors import error_info
from openai import AsyncOpenAI
from serin.generation.v1 import tokens_pb2
from serin.inference.v1 import inference_pb2, inference_pb2_grpc
from serin_gateway.keys import Role
from serin_gateway.limits.limiter import Limits
from serin_mesh.errors import STATUS, Reason

TEXTS = ["Hello", "a cat sits", "x", "two cats sit on a mat, don't they?"]


@pytest.fixture(scope="module")
def plainly(mesh: RunningMesh, run_folder):
    """A text's vector as transformers makes it: alone, with mean pooling written out."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = run_folder / "shared-mesh" / VECTORS
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)

    def vector(text: str):
        ids = tokenizer(text, truncation=False)["input_ids"]
        assert (ids[0], ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
        with torch.inference_mode():
            mean = model(torch.tensor([ids])).last_hidden_state[0].mean(dim=0)
        return ids, (mean / mean.norm()).numpy()

    return vector


async def test_vectors_are_those_of_transformers(client: AsyncOpenAI, plainly):
    """One text and several, as text and as ids, in both encodings; tokens are counted with the special ones."""
    ids, wanted = zip(*(plainly(text) for text in TEXTS), strict=True)
    num_tokens = sum(map(len, ids))
    for given in (TEXTS, [list(one) for one in ids]):
        for encoding in ({}, {"encoding_format": "float"}, {"encoding_format": "base64"}):
            answer = await client.embeddings.create(model=VECTORS, input=given, **encoding)
            assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (num_tokens, num_tokens)
            assert (answer.model, [one.index for one in answer.data]) == (VECTORS, [0, 1, 2, 3])
            if encoding.get("encoding_format") == "base64":
                found = [np.frombuffer(base64.b64decode(one.embedding), "<f4") for one in answer.data]
            else:
                found = [np.array(one.embedding) for one in answer.data]
            np.testing.assert_allclose(np.array(found), np.array(wanted), atol=1e-5)
    alone = await client.embeddings.create(model=VECTORS, input=TEXTS[1], dimensions=8, user="me")
    short = wanted[1][:8] / np.linalg.norm(wanted[1][:8])
    np.testing.assert_allclose(alone.data[0].embedding, short, atol=1e-5)


async def test_a_crowd_gets_its_own_vectors(client: AsyncOpenAI, plainly):
    """Many callers at once, one of them with a long list: each text's vector is what it is alone."""
    many = [f"{text} {number}" for number in range(150) for text in TEXTS[:2]]
    asked = [client.embeddings.create(model=VECTORS, input=text) for text in many[:20]]
    *ones, long = await asyncio.gather(*asked, client.embeddings.create(model=VECTORS, input=many))
    assert len(long.data) == 300
    for at, one in enumerate(ones):
        np.testing.assert_allclose(one.data[0].embedding, plainly(many[at])[1], atol=1e-5)
        np.testing.assert_allclose(long.data[at].embedding, plainly(many[at])[1], atol=1e-5)


async def test_the_same_over_grpc(mesh: RunningMesh, front_door: grpc.aio.Channel, plainly):
    """Vectors, account and reasons."""
    stub = inference_pb2_grpc.InferenceServiceStub(front_door)
    metadata = (("authorization", f"Bearer {mesh.key}"),)

    async def embed(**fields):
        return await stub.Embed(inference_pb2.EmbedRequest(**fields), timeout=30, metadata=metadata)

    answer = await embed(model=VECTORS, inputs=TEXTS)
    for text, one in zip(TEXTS, answer.embeddings, strict=True):
        np.testing.assert_allclose(one.values, plainly(text)[1], atol=1e-5)
    assert answer.usage.prompt_token_count == sum(len(plainly(text)[0]) for text in TEXTS)
    run = tokens_pb2.TokenRun(token_ids=[10**6])
    for fields, reason in (
        ({"model": TINY, "inputs": ["a"]}, Reason.PARAMETER_UNSUPPORTED),
        ({"model": VECTORS, "inputs": ["a" * 100]}, Reason.PROMPT_TOO_LONG),
        ({"model": VECTORS, "token_inputs": [run]}, Reason.PARAMETER_INVALID),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await embed(**fields)
        assert (failure.value.code(), error_info(failure.value).reason) == (STATUS[reason].grpc, reason.value)


@pytest.mark.parametrize(
    ("path", "change", "reason", "param", "word"),
    [
        ("embeddings", {"input": []}, Reason.PARAMETER_INVALID, "input", "1 to 2048"),
        ("embeddings", {"input": ["a", ""]}, Reason.PARAMETER_INVALID, "input[1]", "empty"),
        ("embeddings", {"input": ["a"] * 2049}, Reason.PARAMETER_INVALID, "input", "2049"),
        ("embeddings", {"input": [[5], [5, 10**6]]}, Reason.PARAMETER_INVALID, "input[1]", "1000000"),
        ("embeddings", {"input": ["a", "b" * 100]}, Reason.PROMPT_TOO_LONG, "input[1]", str(MAX_TOKENS)),
        ("embeddings", {"input": [[5] * 49]}, Reason.PROMPT_TOO_LONG, "input[0]", "49"),
        ("embeddings", {"dimensions": DIMENSIONS + 1}, Reason.PARAMETER_INVALID, "dimensions", str(DIMENSIONS)),
        ("embeddings", {"encoding_format": "int8"}, Reason.PARAMETER_INVALID, "encoding_format", "int8"),
        ("embeddings", {"model": TINY}, Reason.PARAMETER_UNSUPPORTED, "model", "no pooling configuration"),
        ("embeddings", {"model": "nobody"}, Reason.NOT_READY, None, "nobody"),
        ("completions", {"prompt": "a", "input": None}, Reason.PARAMETER_UNSUPPORTED, "model", "computes embeddings"),
        (
            "chat/completions",
            {"messages": [{"role": "user", "content": "a"}], "input": None},
            Reason.PARAMETER_UNSUPPORTED,
            "model",
            "computes embeddings",
        ),
    ],
)
async def test_what_is_refused(http: httpx.AsyncClient, path, change, reason, param, word):
    """By the table, with the parameter's name and a sentence."""
    body = {"model": VECTORS, "input": "a", **change}
    response = await http.post(f"/v1/{path}", json={name: one for name, one in body.items() if one is not None})
    error = response.json()["error"]
    assert (response.status_code, error["reason"]) == (STATUS[reason].http, reason.value), error
    assert error["param"] == param or param is None
    assert word in error["message"]


async def test_it_is_paid_once_and_held_to_limits(mesh: RunningMesh, plainly):
    """A repeat gets the same bytes and costs nothing; the ledger has the tokens and their price; a limit refuses."""
    num_tokens = sum(len(plainly(text)[0]) for text in TEXTS)
    key, record = await mint(mesh, limits=Limits(tokens_per_minute=num_tokens + 10))
    admin, _ = await mint(mesh, role=Role.ADMIN)
    headers = {"authorization": f"Bearer {key}", "idempotency-key": "vectors"}
    async with plain_http(base_url=mesh.rest, timeout=60, headers=headers) as http:
        first, again = [await http.post("/v1/embeddings", json={"model": VECTORS, "input": TEXTS}) for _ in range(2)]
        assert (first.status_code, again.status_code) == (200, 200), first.text
        assert first.content == again.content
        assert (first.json()["usage"]["total_tokens"], again.headers["idempotent-replayed"]) == (num_tokens, "true")
        assert int(first.headers["x-ratelimit-remaining-tokens"]) <= 10
        over = await http.post(
            "/v1/embeddings", json={"model": VECTORS, "input": "a" * 12}, headers={"idempotency-key": "over"}
        )
        assert (over.status_code, over.json()["error"]["reason"]) == (429, "RATE_LIMITED")

    async def paid():
        async with plain_http(base_url=mesh.rest, timeout=60, headers={"authorization": f"Bearer {admin}"}) as http:
            rows = (await http.get("/admin/usage?by=key")).json()["data"]
        return [row for row in rows if row["name"] == record.key_id]

    (row,) = await eventually(paid, lambda rows: bool(rows), "the ledger's line")
    assert (row["lines"], row["prompt_tokens"], row["completion_tokens"]) == (1, num_tokens, 0)
    assert row["nano"] == num_tokens * 20, "20,000 micro-units for a million tokens"


async def test_it_is_listed(client: AsyncOpenAI):
    """With the length of its vectors and its longest input."""
    model = await client.models.retrieve(VECTORS)
    assert model.model_extra is not None
    assert (model.model_extra["embedding_dimensions"], model.model_extra["context_length"]) == (DIMENSIONS, MAX_TOKENS)
