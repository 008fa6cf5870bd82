"""One question with its only right answer, and the hash that keeps test questions out of training.

Knows nothing about the kinds of question, tokens or models.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

Message = Mapping[str, Any]
"""A chat message in OpenAI's shape: ``role``, ``content``, and for an assistant perhaps ``tool_calls``."""

HELD_OUT_SHARE = 0.1
"""Share of all entities that training never sees."""


@dataclass(frozen=True, slots=True)
class Item:
    """A question, the turns before it where it needs some, and its answer.

    Attributes:
        kind: which kind of question this is.
        entity: what the question is about; the split between training and test is a hash of it.
        messages: the turns up to and with the question.
        answer: the assistant's whole reply, without the end-of-turn token.
        held_out: whether the question belongs to the test side of the split.
        tools: functions on offer, in OpenAI's shape.
    """

    kind: str
    entity: str
    messages: Sequence[Message]
    answer: str
    held_out: bool
    tools: Sequence[Mapping[str, Any]] = ()


class Kind(Protocol):
    """A kind of question: draws items of both sides of its split."""

    name: str

    def draw(self, random: Random) -> Item:
        """Any item, in training or held out; the same state of ``random`` gives the same item."""
        ...


def is_held_out(entity: str, share: float = HELD_OUT_SHARE) -> bool:
    """Whether an entity belongs to the test side: decided by its hash alone, before any wording is chosen."""
    return hash_of(entity) < share * 2**64


def hash_of(entity: str) -> int:
    """The entity's place in the split, 0 to 2**64 - 1 (BLAKE2b, so equal on every machine)."""
    return int.from_bytes(hashlib.blake2b(entity.encode(), digest_size=8).digest())


def ask(question: str) -> tuple[Message, ...]:
    """A conversation of one question."""
    return ({"role": "user", "content": question},)
