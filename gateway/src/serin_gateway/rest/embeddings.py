"""`POST /v1/embeddings`: from its body to an ask, and its shape. Knows nothing about how vectors are computed."""

import base64
import sys
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from serin_gateway.embedder import Vector
from serin_gateway.embedding import embed
from serin_gateway.embedding_ask import EmbeddingAsk, check
from serin_gateway.pipeline import Request
from serin_gateway.rest.answering import read_body
from serin_gateway.rest.asks import input_name, prompts
from serin_gateway.rest.client import Client
from serin_gateway.rest.headers import answer_headers
from serin_gateway.rest.parameters import Neutral, parse
from serin_gateway.rest.schemas import EmbeddingsBody

EMBEDDINGS: Mapping[str, Neutral] = {}


async def create_embeddings(client: Client, request: Request) -> None:
    """Compute a vector for each input; a client that leaves takes everything downstream with it."""
    body, ignored = parse(EmbeddingsBody, EMBEDDINGS, await read_body(client, request), request.caller.unknown)
    ask = embedding_ask(body)
    async with client.watched():
        vectors = await embed(request, ask)
    receipt = request.receipt
    client.headers += answer_headers(receipt, request.standing, ignored)
    # What was reserved is free before the client learns that the answer is complete.
    await request.settle()
    usage = {"prompt_tokens": receipt.usage.prompt_tokens, "total_tokens": receipt.usage.total_tokens}
    data = _data(vectors, is_base64=body.encoding_format == "base64")
    await client.respond(200, orjson.dumps({"object": "list", "data": data, "model": receipt.model, "usage": usage}))


def embedding_ask(body: EmbeddingsBody) -> EmbeddingAsk:
    """What a body asks.

    Raises:
        MeshError: PARAMETER_INVALID with the parameter's name as the client wrote it.
    """

    def named(name: str) -> str:
        return "dimensions" if name == "num_dimensions" else input_name(name, "input", body.input)

    ask = EmbeddingAsk(
        model=body.model,
        inputs=prompts(body.input, "input"),
        session_keys=[body.user[:256]] if body.user else [],
        num_dimensions=body.dimensions,
        named=named,
    )
    return check(ask)


def _data(vectors: Sequence[Vector], *, is_base64: bool) -> list[dict[str, Any]]:
    write = _base64 if is_base64 else array.tolist
    return [{"object": "embedding", "index": at, "embedding": write(vector)} for at, vector in enumerate(vectors)]


def _base64(vector: Vector) -> str:
    """32-bit floats, little-endian."""
    if sys.byteorder == "big":
        vector = vector[:]
        vector.byteswap()
    return base64.b64encode(vector.tobytes()).decode()
