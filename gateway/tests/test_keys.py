"""Keys: minted once, stored as digests, the same in memory and in Redis."""

import pytest
from redis.asyncio import Redis
from serin_gateway.keys import (
    KeyNotFound,
    KeyRecord,
    KeyStoreDown,
    MemoryKeyStore,
    RedisKeyStore,
    Role,
    key_digest,
    key_secret,
    mint_key,
)
from serin_gateway.limits.limiter import Limits

SECRET = key_secret(b"x" * 32)


@pytest.fixture(params=["memory", "redis"])
async def store(request, valkey_url):
    """Both stores, empty."""
    if request.param == "memory":
        yield MemoryKeyStore()
        return
    async with Redis.from_url(valkey_url) as redis:
        await redis.flushall()
        yield RedisKeyStore(redis)


def test_a_key_looks_like_a_key_and_is_never_in_its_record():
    """Prefix, 40 base62 characters, and only the digest in what is stored."""
    key, record = mint_key(SECRET, role=Role.APP, name="laptop", limits=Limits(1, 2, 3))
    assert key.startswith("sk-serin-")
    assert len(key) == len("sk-serin-") + 40
    assert key not in record.to_json()
    assert record.digest == key_digest(SECRET, key)
    assert KeyRecord.from_json(record.to_json()) == record


def test_digests_depend_on_the_mesh():
    """The same key has another digest in another mesh."""
    assert key_digest(SECRET, "sk-serin-a") != key_digest(key_secret(b"y" * 32), "sk-serin-a")


def test_members_of_a_newer_version_are_ignored_and_garbage_is_not():
    """Old gateways read new records; what is no record is an error, not a key."""
    _, record = mint_key(SECRET, role=Role.ADMIN)
    assert KeyRecord.from_json(record.to_json()[:-1] + ',"colour":"red"}') == record
    for text in ("{}", "[]", "1", '{"role":"king"}'):
        with pytest.raises(ValueError, match=r"."):
            KeyRecord.from_json(text)


def test_roles_are_ordered():
    """Each covers those below it."""
    assert Role.ADMIN.covers(Role.OPERATOR)
    assert Role.OPERATOR.covers(Role.VIEWER)
    assert Role.VIEWER.covers(Role.APP)
    assert not Role.APP.covers(Role.VIEWER)


async def test_create_look_up_list_revoke(store):
    """The life of a key; revoking twice keeps the first time."""
    _, first = mint_key(SECRET, role=Role.APP, name="a")
    _, second = mint_key(SECRET, role=Role.VIEWER, name="b", lifetime_s=60)
    assert await store.list() == []
    await store.create(first)
    await store.create(second)
    assert await store.lookup(first.digest) == first
    assert await store.lookup("0" * 64) is None
    assert [record.name for record in await store.list()] == ["a", "b"]
    revoked = await store.revoke(first.key_id)
    assert not revoked.is_valid(revoked.created_at)
    assert (await store.revoke(first.key_id)).revoked_at == revoked.revoked_at
    assert (await store.lookup(first.digest)).revoked_at == revoked.revoked_at
    assert second.is_valid(second.created_at + 59)
    assert not second.is_valid(second.created_at + 61)
    with pytest.raises(KeyNotFound, match="key_nobody"):
        await store.revoke("key_nobody")


async def test_a_dead_redis_is_down_not_empty(unused_port):
    """Unknown is not "no such key"."""
    async with Redis(port=unused_port) as redis:
        with pytest.raises(KeyStoreDown):
            await RedisKeyStore(redis, timeout_s=0.5).lookup("0" * 64)
