"""Fields of a newer caller: found wherever they are, in moments however many there are."""

import pytest
from serin.generation.v1 import chat_pb2, sampling_pb2
from serin.inference.v1 import inference_pb2
from serin_gateway.rpc.unknown_fields import MAX_MESSAGES, MAX_UNKNOWN_BYTES, drop_unknown_fields

NUMBER_99 = b"\x98\x06\x01"
"""Field 99, a varint, 1."""


def newer(message):
    """The same message as a version knows it that has a field 99 in it."""
    message.MergeFromString(NUMBER_99)
    return message


def asked(num_turns=2, **fields):
    """A request of some turns."""
    turns = [chat_pb2.ChatMessage(role="user", content=[chat_pb2.ContentPart(text="a")]) for _ in range(num_turns)]
    sampling = sampling_pb2.SamplingParameters(temperature=0, logit_bias={5: 1.0})
    chat = inference_pb2.Chat(messages=turns)
    return inference_pb2.GenerateRequest(**{"model": "small", "chat": chat, "sampling": sampling} | fields)


@pytest.mark.parametrize(
    ("inner", "places"),
    [
        (lambda _: [], []),
        (lambda request: [request], ["99"]),
        (lambda request: [request.sampling], ["sampling.99"]),
        (lambda request: [request.chat.messages[1]], ["chat.messages[1].99"]),
        (lambda request: [request.chat.messages[0].content[0], request], ["99", "chat.messages[0].content[0].99"]),
        (lambda request: [request.sampling] * 3, ["sampling.99"]),
    ],
)
def test_every_depth_is_looked_at(inner, places):
    """What is left is what is known; a field that comes again is named once."""
    request = asked()
    for message in inner(request):
        newer(message)
    assert drop_unknown_fields(request, request.SerializeToString()) == places
    assert request == asked()
    assert request.SerializeToString(deterministic=True) == asked().SerializeToString(deterministic=True)


def test_a_field_in_place_of_a_known_one_of_a_choice():
    """An input of a kind that only newer versions know is unknown, and nothing else is taken for it."""
    request = newer(inference_pb2.GenerateRequest(model="small"))
    assert drop_unknown_fields(request, request.SerializeToString()) == ["99"]
    assert request.WhichOneof("input") is None


def test_a_flood_is_told_by_its_size():
    """Neither millions of fields nor one behind as many messages are looked for one by one."""
    flood = asked()
    flood.MergeFromString(NUMBER_99 * MAX_UNKNOWN_BYTES)
    behind = asked(num_turns=MAX_MESSAGES)
    newer(behind.chat.messages[-1])
    for request, num_bytes in ((flood, 3 * MAX_UNKNOWN_BYTES), (behind, 3)):
        found = drop_unknown_fields(request, request.SerializeToString())
        assert found == [f"({num_bytes} bytes of unknown fields)"]
