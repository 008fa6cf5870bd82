"""One attempt to do harm: how it is made, and how it must end. Knows nothing about how it is sent."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message
from harness.asking import TINY
from serin.generation.v1 import chat_pb2, sampling_pb2
from serin.inference.v1 import inference_pb2
from serin_mesh.errors import Reason

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
MESSAGES, COUNT, FEEDBACK = "/v1/messages", "/v1/messages/count_tokens", "/v1/feedback"
TOKENIZE, DETOKENIZE = "/tokenize", "/detokenize"
HELLO = [{"role": "user", "content": "Hello"}]
KEY = "{key}"
"""Stands for the mesh's own key in headers and bytes."""
MARK = "hostile7f3a"
"""Part of every name that an attack invents: it must turn up in no metric."""

MANY = 300_000
"""So many parts fit into a body, and nobody may look at each of them."""

ANSWERED = None
"""An end: the request is answered as any other, since what is odd about it does no harm."""


@dataclass(frozen=True, slots=True)
class Rest:
    """A request over REST; a body of bytes goes as it is."""

    body: Any = None
    path: str = CHAT
    method: str = "POST"
    headers: Mapping[str, str | bytes] = field(default_factory=dict)
    key: str | None = KEY


@dataclass(frozen=True, slots=True)
class Rpc:
    """A call over gRPC; what makes its request is called when it is sent."""

    make: Callable[[], Message]
    method: str = "Generate"
    metadata: Collection[tuple[str, str | bytes]] = ()
    key: str | None = KEY


@dataclass(frozen=True, slots=True)
class Raw:
    """Bytes on a socket of the HTTP port. Nothing of a second request may be answered behind them."""

    data: bytes
    statuses: Collection[int] = (400,)
    num_answers: int = 1


@dataclass(frozen=True, slots=True)
class Attack:
    """One attempt.

    Attributes:
        kind: its class in the table of promises.
        by: how it is made.
        ends: reasons that it may be refused for; ANSWERED: it may be answered.
    """

    kind: str
    name: str
    by: Rest | Rpc | Raw
    ends: Collection[Reason | None] = (Reason.PARAMETER_INVALID,)

    @property
    def id(self) -> str:
        """How a test calls it."""
        return f"{self.kind}: {type(self.by).__name__.lower()}: {self.name}"


def chat(**fields: Any) -> Rest:
    """A chat completion that is right but for these fields."""
    return Rest({"model": TINY, "messages": HELLO, "max_tokens": 2, **fields})


def completion(**fields: Any) -> Rest:
    """A completion that is right but for these fields."""
    return Rest({"model": TINY, "prompt": "Hi", "max_tokens": 2, **fields}, COMPLETIONS)


def anthropic(**fields: Any) -> Rest:
    """A message that is right but for these fields."""
    return Rest({"model": TINY, "messages": HELLO, "max_tokens": 2, **fields}, MESSAGES)


def text(body: str, path: str = CHAT) -> Rest:
    """A body as text."""
    return Rest(body.encode(), path)


def generate(**fields: Any) -> Rpc:
    """A call of Generate that is right but for these fields.

    ``sampling`` is a mapping; a field that is a function is called when the call is made: some are large.
    """

    def make() -> Message:
        given = {name: value() if callable(value) else value for name, value in fields.items()}
        given["sampling"] = sampling_pb2.SamplingParameters(**({"max_tokens": 2} | given.get("sampling", {})))
        if not {"chat", "prompt", "token_prompt"} & set(given):
            given["chat"] = turns("Hello")
        return inference_pb2.GenerateRequest(**({"model": TINY} | given))

    return Rpc(make)


def turns(*texts: str, role: str = "user", **fields: Any) -> inference_pb2.Chat:
    """A conversation over gRPC."""
    parts = [chat_pb2.ContentPart(text=text) for text in texts]
    return inference_pb2.Chat(messages=[chat_pb2.ChatMessage(role=role, content=parts)], **fields)


def deep(levels: int, opening: str = "[", closing: str = "]", inside: str = "") -> str:
    """Nested text."""
    return opening * levels + inside + closing * levels


def nested_lists(levels: int) -> list[Any]:
    """A list in a list in a list."""
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value
