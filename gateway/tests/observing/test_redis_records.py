"""Records in a real Valkey."""

import uuid

import pytest
from redis.asyncio import Redis
from serin_gateway.observing.record import AttemptRecord, RequestRecord
from serin_gateway.observing.records import RecordsDown
from serin_gateway.observing.redis_records import RedisRecords


@pytest.fixture
async def redis(valkey_url):
    """A client."""
    async with Redis.from_url(valkey_url) as client:
        yield client


async def test_records_are_kept_by_tenant_and_end_by_themselves(redis):
    """Found as they were put, by whoever looks at the same Redis."""
    store = RedisRecords(redis, organization=(organization := uuid.uuid4().hex))
    mine = RequestRecord("req-1", 1.5, tenant="a", session=2**64 - 1, attempts=(AttemptRecord("lane-a"),))
    theirs = RequestRecord("req-1", 1.5, tenant="b")
    await store.put([mine, theirs], 100)
    found = await RedisRecords(redis, organization=organization).find("req-1")
    assert sorted(found, key=lambda record: record.tenant) == [mine, theirs]
    assert 90 < await redis.ttl(f"serin:{{{organization}}}:request:req-1") <= 100
    assert await store.find("req-2") == []


async def test_a_damaged_record_does_not_hide_others(redis):
    """It is passed over."""
    store = RedisRecords(redis, organization=(organization := uuid.uuid4().hex))
    await store.put([RequestRecord("req-1", 1.5, tenant="a")], 100)
    await redis.hset(f"serin:{{{organization}}}:request:req-1", "b", "{")
    assert [record.tenant for record in await store.find("req-1")] == ["a"]


async def test_feedback_is_claimed_once_a_tenant(redis):
    """Whoever is first; it ends by itself too."""
    store = RedisRecords(redis, organization=(organization := uuid.uuid4().hex))
    assert [await store.claim_feedback(tenant, "r") for tenant in ("a", "a", "b")] == [True, False, True]
    assert await redis.ttl(f"serin:{{{organization}}}:feedback:r") > 80_000


async def test_a_redis_that_is_gone_is_said(unused_port):
    """RecordsDown, whatever is called."""
    async with Redis(port=unused_port) as gone:
        store = RedisRecords(gone, timeout_s=0.5)
        with pytest.raises(RecordsDown):
            await store.find("r")
        with pytest.raises(RecordsDown):
            await store.put([RequestRecord("r", 0.0)], 10)
        with pytest.raises(RecordsDown):
            await store.claim_feedback("a", "r")
