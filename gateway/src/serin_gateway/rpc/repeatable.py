"""A gRPC answer that is made once, however often it is asked for under one `idempotency-key`.

Its messages, as they go over the wire, are the frames of a transcript. Knows nothing about who keeps transcripts.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.message import Message

from serin_gateway.idempotency import IdempotencyDesk, Transcript, fingerprint
from serin_gateway.pipeline import Request

IDEMPOTENCY_KEY = "idempotency-key"
REPEATED = ("idempotent-replayed", "true")

Asked = TypeVar("Asked", bound=Message)
Said = TypeVar("Said", bound=Message)


@dataclass(frozen=True, slots=True)
class Method(Generic[Asked, Said]):
    """A method that is answered once.

    Attributes:
        name: tells its requests from those of others, which may have the same bytes.
        answers: makes the messages.
        read: a message from its bytes.
    """

    name: bytes
    answers: Callable[[Request, Asked], AsyncGenerator[Said, None]]
    read: Callable[[bytes], Said]


async def repeatable(
    desk: IdempotencyDesk, work: Request, key: str, asked: Asked, method: Method[Asked, Said]
) -> AsyncGenerator[Said, None]:
    """The messages of a key's answer; the method makes them if nobody has.

    Raises:
        MeshError: as the desk and the method.
    """

    async def make(transcript: Transcript) -> None:
        try:
            async with work.on_its_own(transcript.account), aclosing(method.answers(work, asked)) as made:
                async for message in made:
                    transcript.add(message.SerializeToString())
        finally:
            transcript.is_billed = work.receipt.is_billed

    wire = asked.SerializeToString(deterministic=True)
    whole = fingerprint(method.name, wire, work.arrival.steering)
    frames = desk.answer(work.caller.key_id, key, whole, make, timeout_s=work.seconds_left)
    async with aclosing(frames):
        async for frame in frames:
            if not work.outlives_caller:
                work.receipt.operation = "repeat"
            yield method.read(frame)
