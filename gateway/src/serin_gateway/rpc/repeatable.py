"""A gRPC answer that is made once, however often it is asked for under one `idempotency-key`.

Its messages, as they go over the wire, are the frames of a transcript. Knows nothing about who keeps transcripts.
"""

import hashlib
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from serin.inference.v1 import inference_pb2

from serin_gateway.idempotency import IdempotencyDesk, Transcript
from serin_gateway.pipeline import Request

IDEMPOTENCY_KEY = "idempotency-key"
REPEATED = ("idempotent-replayed", "true")

Answers = AsyncGenerator[inference_pb2.GenerateResponse, None]


async def repeatable(
    desk: IdempotencyDesk,
    work: Request,
    key: str,
    asked: inference_pb2.GenerateRequest,
    answers: Callable[[Request, inference_pb2.GenerateRequest], Answers],
) -> Answers:
    """The messages of a key's answer; ``answers`` makes them if nobody has.

    Raises:
        MeshError: as the desk and ``answers``.
    """

    async def make(transcript: Transcript) -> None:
        async with work.on_its_own(), aclosing(answers(work, asked)) as made:
            async for message in made:
                transcript.add(message.SerializeToString())

    wire = b"grpc\0" + asked.SerializeToString(deterministic=True)
    fingerprint = hashlib.blake2b(wire, digest_size=16).hexdigest()
    async with aclosing(desk.answer(work.caller.key_id, key, fingerprint, make)) as frames:
        async for frame in frames:
            if not work.outlives_caller:
                work.receipt.operation = "repeat"
            yield inference_pb2.GenerateResponse.FromString(frame)
