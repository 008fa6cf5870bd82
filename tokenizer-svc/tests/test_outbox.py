"""News melt together while nobody takes them, and what waits is bounded."""

import asyncio

from serin_tokenizer_svc.outbox import MAX_CHARS, MERGED_CHARS, TAKEN_CHARS, TAKEN_NEWS, News, Outbox
from serin_tokenizer_svc.sequence import StopFound


async def drain(outbox):
    """All news until the end."""
    taken = []
    while some := await outbox.take():
        taken += some
    return taken


async def test_news_of_a_sequence_melt_together():
    """Texts add up, the newest counts stand, the first credit is kept, the end is not lost."""
    outbox = Outbox()
    await outbox.put(1, News("a", "x", 1, 1, credit=9))
    await outbox.put(2, News("b", "p", 1, 1, credit=9))
    await outbox.put(1, News("a", "y", 2, 2))
    stop = StopFound("s", 3)
    await outbox.put(1, News("a", "z", 3, 3, stop=stop, closed=True))
    outbox.end()
    assert await drain(outbox) == [
        (1, News("a", "xyz", 3, 3, 9, stop, True)),
        (2, News("b", "p", 1, 1, 9)),
    ]


async def test_a_name_used_again_is_another_sequence():
    """News of an ended sequence never melt with those of a later one of the same name."""
    outbox = Outbox()
    await outbox.put(1, News("a", "old", closed=True))
    await outbox.put(2, News("a", "new"))
    outbox.end()
    assert [news.text for _, news in await drain(outbox)] == ["old", "new"]


async def test_melted_news_stay_small():
    """Beyond a message's worth of text a new one is begun, and order is kept."""
    outbox = Outbox()
    part = "x" * (MERGED_CHARS // 2 + 1)
    for number in range(3):
        await outbox.put(1, News("a", part, watermark=number))
    outbox.end()
    assert [(len(news.text), news.watermark) for _, news in await drain(outbox)] == [(len(part), n) for n in range(3)]


async def test_a_caller_that_does_not_read_stops_the_service():
    """When too much waits, putting waits; taking lets it go on."""
    outbox = Outbox()
    for serial in range(1 + MAX_CHARS // MERGED_CHARS):
        await outbox.put(serial, News("a", "x" * MERGED_CHARS))
    blocked = asyncio.create_task(outbox.put(99, News("b", "y")))
    await asyncio.sleep(0)
    assert not blocked.done()
    await outbox.take()
    await asyncio.wait_for(blocked, 60)


async def test_a_message_carries_many_sequences_and_stays_small():
    """What is ready of all sequences is taken together, up to a message's worth of text or of news."""
    outbox = Outbox()
    for serial in range(TAKEN_NEWS + 1):
        await outbox.put(serial, News(str(serial), "x"))
    assert [len(await outbox.take()) for _ in range(2)] == [TAKEN_NEWS, 1]
    for serial in range(6):
        await outbox.put(serial, News(str(serial), "x" * MERGED_CHARS))
    assert [len(await outbox.take()) for _ in range(2)] == [TAKEN_CHARS // MERGED_CHARS, 2]


async def test_taking_waits_for_news():
    """A taker is woken by news and by the end."""
    outbox = Outbox()
    taker = asyncio.create_task(drain(outbox))
    await asyncio.sleep(0)
    await outbox.put(1, News("a", "x"))
    await asyncio.sleep(0)
    outbox.end()
    assert [news.text for _, news in await taker] == ["x"]
