"""Versions of the cache side by side on one store: each reads what it knows, and never meets what it does not.

`formats/N.json` is what the version that wrote format N first left in the store for `ANSWER` to `ASKED`. A format that
is written anew gets a file of its own here; no file is ever changed.
"""

import json
from pathlib import Path

import pytest
from cache_requests import ANSWER, ASKED
from serin.cache.v1 import cache_pb2
from serin_cache_svc.answers import AnswerLimits, Answers
from serin_cache_svc.errors import StoreDown
from serin_cache_svc.formats import FORMAT, READ, Formats
from serin_cache_svc.store.memory_store import MemoryAnswerStore
from serin_mesh.breaker import CircuitBreaker
from worker_twin import SECRET

RECORDED = {int(file.stem): json.loads(file.read_text()) for file in (Path(__file__).parent / "formats").glob("*.json")}
NEWER = max(READ) + 1
NEXT_READING_OURS = Formats(written=NEWER, read=(NEWER, *READ))
NEXT_ALONE = Formats(written=NEWER, read=(NEWER,))
BILINGUAL = Formats(written=FORMAT, read=(*READ, NEWER))


def version(store: MemoryAnswerStore, formats: Formats | None = None) -> Answers:
    """A version of the cache on a store that others use too."""
    breaker = CircuitBreaker("store", failures=(StoreDown,), budget_s=1.0)
    return Answers(store, breaker, SECRET, AnswerLimits(), formats)


async def left_behind(number: int) -> MemoryAnswerStore:
    """A store as the version that wrote a format left it."""
    store, recorded = MemoryAnswerStore(), RECORDED[number]
    await store.put(recorded["group_tag"], recorded["key"], bytes.fromhex(recorded["value"]), 3600)
    return store


def test_what_is_written_is_read_and_recorded():
    """A version reads its own format, and every format that it reads was recorded by whoever wrote it first."""
    assert FORMAT in READ
    assert set(READ) <= set(RECORDED)


@pytest.mark.parametrize("number", READ)
async def test_what_the_version_before_wrote_is_read(number):
    """The answer comes back as it was given, from bytes that another version stored."""
    found = await version(await left_behind(number)).recall(ASKED)
    assert cache_pb2.StoredAnswer.FromString(found) == ANSWER


async def test_the_version_before_reads_what_this_one_writes():
    """Byte for byte what was recorded, under the same key: whoever read that reads this."""
    store, recorded = MemoryAnswerStore(), RECORDED[FORMAT]
    assert await version(store).put(ASKED, ANSWER.SerializeToString(deterministic=True), 0)
    assert await store.get(recorded["group_tag"], recorded["key"]) == bytes.fromhex(recorded["value"])


async def test_a_newer_format_is_a_clean_miss():
    """Neither an error nor a wrong answer: this version never meets it, and its own answers stay."""
    store = MemoryAnswerStore()
    ours, theirs = version(store), version(store, NEXT_ALONE)
    await theirs.put(ASKED, b"newer", 0)
    assert await ours.recall(ASKED) is None
    await ours.put(ASKED, b"ours", 0)
    assert [await ours.recall(ASKED), await theirs.recall(ASKED)] == [b"ours", b"newer"]


async def test_a_newer_format_under_our_key_is_a_clean_miss():
    """Even where a version broke the rule and wrote its own format where ours belongs."""
    store = await left_behind(FORMAT)
    recorded = RECORDED[FORMAT]
    value = bytes.fromhex(recorded["value"])
    await store.put(recorded["group_tag"], recorded["key"], bytes([NEWER]) + value[1:], 3600)
    assert await version(store).recall(ASKED) is None


async def test_a_newer_version_that_reads_ours_begins_with_our_answers():
    """And writes under keys of its own, so that going back loses nothing."""
    store = await left_behind(FORMAT)
    newer = version(store, NEXT_READING_OURS)
    assert cache_pb2.StoredAnswer.FromString(await newer.recall(ASKED)) == ANSWER
    await newer.put(ASKED, b"newer", 0)
    assert await newer.recall(ASKED) == b"newer"
    assert cache_pb2.StoredAnswer.FromString(await version(store).recall(ASKED)) == ANSWER


async def test_whoever_reads_both_formats_shares():
    """A version that learned the newer format before it is written finds it."""
    store = MemoryAnswerStore()
    await version(store, NEXT_ALONE).put(ASKED, b"newer", 0)
    assert await version(store, BILINGUAL).recall(ASKED) == b"newer"


async def test_a_purge_takes_formats_that_it_does_not_read():
    """A tenant's data goes, whoever wrote it."""
    store = MemoryAnswerStore()
    for formats in (Formats(), NEXT_ALONE):
        await version(store, formats).put(ASKED, b"x", 0)
    assert await version(store).purge(ASKED.cache_group) == 2
    assert await version(store, NEXT_ALONE).recall(ASKED) is None
