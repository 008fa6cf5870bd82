"""The audit chain: whatever is changed, removed, added or reordered is found."""

import asyncio
import dataclasses

import pytest
from redis.asyncio import Redis
from serin_gateway.audit.entry import Entry, Head, audit_secret, find_faults, has_been
from serin_gateway.audit.redis_log import RedisAuditLog

SECRET = audit_secret(b"a secret of the mesh")


@pytest.fixture
async def redis(valkey_url):
    """An empty store."""
    async with Redis.from_url(valkey_url) as client:
        await client.flushall()
        yield client


async def chain(redis, count: int = 5) -> tuple[list[Entry], Head]:
    """A log with some entries."""
    log = RedisAuditLog(redis, SECRET)
    for number in range(count):
        await log.append(1000.0 + number, "key_a", "key.create", f"key_{number}", "done", role="app")
    return list(await log.entries()), await log.head()


async def test_a_chain_is_intact_also_when_many_write(redis):
    """Entries of three writers at once: each follows another, none is lost; some can be read by number."""
    logs = [RedisAuditLog(redis, SECRET) for _ in range(3)]
    await asyncio.gather(*(log.append(1.0, "a", "act", str(n), "done") for n in range(6) for log in logs))
    entries = await logs[0].entries()
    assert len(entries) == 18
    assert find_faults(entries, await logs[0].head(), SECRET) == []
    assert [entry.number for entry in await logs[0].entries(4, 2)] == [4, 5]
    assert find_faults([], Head(), SECRET) == []
    for noted in (Head(), Head(4, entries[3].digest), await logs[0].head()):
        assert has_been(Head.parse(str(noted)), entries)
    for noted in (Head(0, entries[0].digest), Head(4, entries[4].digest), Head(19, entries[17].digest)):
        assert not has_been(noted, entries)


@pytest.mark.parametrize(
    "text", ["", "foo", "0" * 64, "1:", f"x:{'0' * 64}", f"1:{'0' * 63}", f"1:{'0' * 64}\n", "²:" + "0" * 64]
)
def test_what_is_no_head_is_refused(text):
    """Whoever notes one wrongly is told so, not that the log is at fault."""
    with pytest.raises(ValueError, match="not the head"):
        Head.parse(text)


def changed(entries):
    """Somebody else did it."""
    entries[2] = dataclasses.replace(entries[2], actor="key_b")


def forged(entries):
    """Changed and sealed again, without the secret."""
    entries[2] = dataclasses.replace(entries[2], actor="key_b").sealed(b"guess")


def removed(entries):
    """It never happened."""
    del entries[2]


def cut_off(entries):
    """The last one never happened."""
    del entries[-1]


def reordered(entries):
    """It happened before."""
    entries[1], entries[2] = entries[2], entries[1]


def repeated(entries):
    """It happened twice."""
    entries.insert(2, entries[2])


def unreadable(entries):
    """Nobody can say what happened."""
    entries[2] = None


@pytest.mark.parametrize("harm", [changed, forged, removed, cut_off, reordered, repeated, unreadable])
async def test_every_harm_is_found(redis, harm):
    """Whichever it is."""
    entries, head = await chain(redis)
    assert find_faults(entries, head, SECRET) == []
    harm(entries)
    assert find_faults(entries, head, SECRET)


async def test_another_mesh_secret_finds_nothing_intact(redis):
    """Who does not hold the secret can neither forge nor vouch."""
    entries, head = await chain(redis, 2)
    assert len(find_faults(entries, head, audit_secret(b"another"))) == 2
