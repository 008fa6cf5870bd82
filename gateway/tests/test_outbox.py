"""Between makers and the reader."""

import asyncio

import pytest
from serin_gateway.events import (
    ChoiceEnded,
    Completed,
    FinishReason,
    TextChunk,
    ToolCallBegun,
    ToolCallEnded,
    ToolCallGrew,
    Usage,
)
from serin_gateway.outbox import Outbox
from serin_mesh.errors import MeshError, Reason


def chunk(text: str, choice: int = 0) -> TextChunk:
    """Text of a choice."""
    return TextChunk(choice, text, [1], [])


async def test_a_reader_that_keeps_up_gets_every_chunk():
    """Nothing is held, nothing melts together."""
    outbox = Outbox()
    for text in "abc":
        outbox.put(chunk(text))
        assert [event.text for event in await outbox.take()] == [text]


async def test_waiting_chunks_of_one_choice_melt_together():
    """In order; other choices and other events keep their places; an end is never overtaken."""
    outbox = Outbox()
    for text, choice in (("a", 0), ("x", 1), ("b", 0), ("y", 1)):
        outbox.put(chunk(text, choice))
    outbox.put(ChoiceEnded(0, FinishReason.STOP))
    events = await outbox.take()
    assert [(event.choice_index, getattr(event, "text", "end")) for event in events] == [
        (0, "ab"),
        (1, "xy"),
        (0, "end"),
    ]
    assert events[0].token_ids == [1, 1]


async def test_arguments_of_a_call_melt_together_and_text_never_overtakes_it():
    """A slow reader gets the call in one piece, the text around it in its place, and ids wherever there is a chunk."""
    outbox = Outbox(room_characters=8)
    outbox.put(chunk("a"))
    outbox.put(ToolCallBegun(0, 0, "id", "f"))
    for piece in ("{", '"x"', ": 1}"):
        outbox.put(ToolCallGrew(0, 0, piece))
        outbox.put(chunk(""))
    assert outbox.is_full
    outbox.put(ToolCallGrew(1, 0, "{}"))
    outbox.put(ToolCallEnded(0, 0, is_whole=True))
    outbox.put(chunk("b"))
    assert await outbox.take() == [
        TextChunk(0, "a", [1, 1, 1, 1], []),
        ToolCallBegun(0, 0, "id", "f"),
        ToolCallGrew(0, 0, '{"x": 1}'),
        ToolCallGrew(1, 0, "{}"),
        ToolCallEnded(0, 0, is_whole=True),
        chunk("b"),
    ]


async def test_a_failure_comes_after_what_was_put_before():
    """The first one counts."""
    outbox = Outbox()
    outbox.put(chunk("a"))
    outbox.fail(MeshError(Reason.LANE_LOST, "gone"))
    outbox.fail(MeshError(Reason.INTERNAL, "later"))
    assert len(await outbox.take()) == 1
    with pytest.raises(MeshError, match="gone"):
        await outbox.take()


async def test_makers_wait_for_a_slow_reader():
    """Until it has taken what is there."""
    outbox = Outbox(room_characters=10)
    outbox.put(chunk("x" * 20))
    assert outbox.is_full
    waiting = asyncio.create_task(outbox.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    await outbox.take()
    await waiting


async def test_a_reader_waits_for_the_first_event():
    """And is woken by it."""
    outbox = Outbox()
    reading = asyncio.create_task(outbox.take())
    await asyncio.sleep(0)
    outbox.put(Completed(Usage()))
    assert isinstance((await reading)[0], Completed)
