"""Fields of a message that this version does not know, by their place: `99`, `sampling.20`, `chat.messages[0].7`.

Protobuf keeps them aside and reads on. In a public request they may be what a newer caller wants the answer to be, so
somebody has to be told (docs/decisions/0001-contracts.md). Knows nothing about who that is.
"""

from collections.abc import Iterator
from itertools import islice

from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

MAX_UNKNOWN_BYTES = 16_384
"""More than this is not taken apart: a field may be as short as two bytes."""
MAX_MESSAGES = 1024
"""Messages inside of one that are looked into, for the same reason."""


def drop_unknown_fields(message: Message, wire: bytes) -> list[str]:
    """Take them out of a message, and say where they were; of more than can be looked for in moments, how many bytes.

    Args:
        message: looked at in every depth.
        wire: its bytes, unknown fields included, as it serializes.
    """
    # Two passes in C over what nearly never has any (a few microseconds); walking in Python only for what has.
    message.DiscardUnknownFields()
    num_bytes = len(wire) - message.ByteSize()
    if num_bytes == 0:
        return []
    places: dict[str, None] = {}
    if num_bytes <= MAX_UNKNOWN_BYTES:
        whole = type(message)()
        whole.ParseFromString(wire)
        for inside, one in islice(_messages(whole, ""), MAX_MESSAGES):
            unknown = UnknownFieldSet(one)
            places.update((f"{inside}{unknown[at].field_number}", None) for at in range(len(unknown)))
    return list(places) or [f"({num_bytes} bytes of unknown fields)"]


def _messages(message: Message, inside: str) -> Iterator[tuple[str, Message]]:
    """A message and all in it, each with what the places of its fields begin with."""
    yield inside, message
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        if field.is_repeated:
            for at, one in enumerate(value):
                yield from _messages(one, f"{inside}{field.name}[{at}].")
        else:
            yield from _messages(value, f"{inside}{field.name}.")
