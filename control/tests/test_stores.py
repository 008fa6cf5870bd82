"""Both stores keep the same promises; the one in Redis survives and says when it would not."""

import pytest
from control_builders import instance, pair
from control_valkey import Valkey
from redis.asyncio import Redis
from serin_control.errors import ConfigConflict, StoreDown, StoreUnsafe
from serin_control.instance import Service
from serin_control.redis_store import PREFIX, RedisStore
from serin_control.store import MemoryStore, SavedConfig, SavedMesh

LANES = {"small": {"f" * 32: ((Service.TOKENIZER, "v1"), (Service.WORKER, "v2"))}}


@pytest.fixture(params=["memory", "redis"])
async def store(request, tmp_path):
    """Each store in turn."""
    if request.param == "memory":
        yield MemoryStore()
        return
    server = await Valkey(tmp_path).start()
    kept = RedisStore(server.url)
    yield kept
    await kept.close()
    await server.stop()


async def test_empty_at_first(store):
    """A new store knows nothing."""
    assert await store.read_config() is None
    assert await store.read_mesh() == SavedMesh()


async def test_configurations_follow_each_other(store):
    """Each replaces the one before; a gap or a repeat with another text is a conflict and changes nothing."""
    first, second = SavedConfig(1, "a: ü\n", "s1"), SavedConfig(2, "b", "s1")
    await store.write_config(first)
    await store.write_config(second)
    for late in (SavedConfig(2, "other"), SavedConfig(4, "c"), SavedConfig(1, "a")):
        with pytest.raises(ConfigConflict, match="revision 2, not"):
            await store.write_config(late)
    assert await store.read_config() == second


async def test_what_runs_is_replaced_whole(store):
    """Instances and lanes come back as they were; those that are gone are gone."""
    everything = (*pair("v1", num_workers=2), instance("g", Service.GATEWAY, http_endpoint="h:1"))
    await store.write_mesh(SavedMesh(everything, LANES))
    found = await store.read_mesh()
    assert set(found.instances) == set(everything)
    assert found.carried == LANES
    await store.write_mesh(SavedMesh(everything[:1], {}))
    assert await store.read_mesh() == SavedMesh(everything[:1], {})


async def test_redis_keeps_over_its_own_death(valkey):
    """SIGKILL after the answer loses nothing; the same client goes on after it is back."""
    store = RedisStore(valkey.url)
    await store.write_config(SavedConfig(1, "a"))
    await store.write_mesh(SavedMesh(tuple(pair("v1")), LANES))
    await valkey.stop()
    with pytest.raises(StoreDown, match="state Redis: "):
        await store.read_config()
    with pytest.raises(StoreDown):
        await store.write_mesh(SavedMesh())
    await valkey.start()
    assert (await store.read_config()).yaml == "a"
    assert len((await store.read_mesh()).instances) == 2
    await store.close()


async def test_a_write_whose_answer_was_lost_counts(valkey):
    """Repeating the same configuration is no conflict."""
    store = RedisStore(valkey.url)
    await store.write_config(SavedConfig(1, "a"))
    await store.write_config(SavedConfig(1, "a"))
    await store.close()


async def test_a_redis_that_hangs_is_down_within_its_time_limit(valkey):
    """A frozen server raises; it never holds a caller for ever."""
    store = RedisStore(valkey.url)
    await store.read_config()
    valkey.freeze()
    try:
        with pytest.raises(StoreDown):
            await store.read_config()
    finally:
        valkey.thaw()
    await store.close()


async def test_records_of_another_version_are_named_not_fatal(valkey):
    """What cannot be read is left out; the rest is there."""
    store = RedisStore(valkey.url)
    await store.write_mesh(SavedMesh(tuple(pair("v1")), LANES))
    async with Redis.from_url(valkey.url) as raw:
        await raw.hset(PREFIX + "instances", "future", '{"registration": 7}')
        await raw.hset(PREFIX + "lanes", "odd", "not json")
    found = await store.read_mesh()
    assert len(found.instances) == 2
    assert set(found.unreadable) == {"future", "odd"}
    await store.close()


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"appendonly": "no"}, "appendonly is 'no'"),
        ({"maxmemory_policy": "allkeys-lru"}, "maxmemory-policy is 'allkeys-lru'"),
    ],
)
async def test_a_redis_that_forgets_is_refused(tmp_path, setting, said):
    """Eviction or no append-only file: refused, with the setting that would do."""
    server = await Valkey(tmp_path, **setting).start()
    store = RedisStore(server.url)
    with pytest.raises(StoreUnsafe, match=said):
        await store.check()
    await store.close()
    await server.stop()


async def test_a_good_or_silent_redis_passes_the_check(valkey):
    """One that is down is no reason not to start."""
    store = RedisStore(valkey.url)
    await store.check()
    await valkey.stop()
    await store.check()
    await store.close()
