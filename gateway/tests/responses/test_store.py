"""Kept responses: the twin in memory and a real Valkey promise the same, to the byte and in any order of calls."""

import asyncio
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis
from serin_gateway.responses.redis_store import RedisResponses
from serin_gateway.responses.store import Bounds, Kept, MemoryResponses, ResponsesDown, StoredResponse, Turn, Walk

MONTH = Bounds(30 * 86_400.0, 1 << 20)
TENANTS = ("a", "b")


def named(name: str, conversation: str = "c") -> str:
    """An identifier that a test can say again."""
    return f"resp_req-{name}.{conversation.encode().hex():0>24}{name.encode().hex():0>24}"


def response(name: str, previous: str = "", conversation: str = "c", *, num_bytes: int = 10) -> StoredResponse:
    """A response whose members tell it from others."""
    padded = name.ljust(num_bytes, ".").encode()
    previous_id = named(previous, conversation) if previous else ""
    response_id = named(name, conversation)
    return StoredResponse(response_id, b"head " + padded, b"out " + padded, b"in " + padded, previous_id, f"s-{name}")


@pytest.fixture
async def redis(valkey_url):
    """A client."""
    async with Redis.from_url(valkey_url) as client:
        yield client


@pytest.fixture(params=["memory", "redis"])
def store(request, redis):
    """Either of them, empty."""
    return MemoryResponses() if request.param == "memory" else RedisResponses(redis, organization=uuid.uuid4().hex)


async def chain(
    store, *names: str, conversation: str = "c", tenant: str = "a", bounds: Bounds = MONTH, num_bytes: int = 10
) -> None:
    """Keep responses that continue each other."""
    for previous, name in zip(("", *names), names, strict=False):
        one = response(name, previous, conversation, num_bytes=num_bytes)
        assert await store.put(tenant, one, bounds) is Kept.KEPT


async def walked(store, name: str, conversation: str = "c", *, tenant: str = "a", max_turns=100, max_bytes=1 << 20):
    """The state of a walk, or the names of its turns."""
    found = await store.walk(tenant, named(name, conversation), max_turns, max_bytes)
    if found.walk is not Walk.FOUND:
        return found.walk
    assert found.session == f"s-{name}"
    return [turn.input.decode().removeprefix("in ").rstrip(".") for turn in found.turns]


async def test_a_conversation_is_found_from_its_end(store):
    """Oldest first, whole, and from any of its responses; branches do not meet."""
    await chain(store, "1", "2", "3")
    assert await store.put("a", response("4", "2"), MONTH) is Kept.KEPT
    assert await walked(store, "3") == ["1", "2", "3"]
    assert await walked(store, "4") == ["1", "2", "4"]
    assert await walked(store, "2") == ["1", "2"]
    found = await store.walk("a", named("1"), 10, 1000)
    assert found.turns == [Turn(response("1").input, response("1").output)]
    assert await store.find("a", named("2")) == (response("2").head, response("2").output)
    assert await store.find_input("a", named("2")) == response("2").input
    await store.reach()


async def test_nothing_is_found_under_another_tenant(store):
    """Neither read, nor continued, nor deleted."""
    await chain(store, "1")
    assert await store.find("b", named("1")) is None
    assert await store.find_input("b", named("1")) is None
    assert await walked(store, "1", tenant="b") is Walk.MISSING
    assert not await store.delete("b", named("1"))
    assert await store.put("b", response("2", "1"), MONTH) is Kept.GONE
    assert await walked(store, "1") == ["1"]


async def test_walks_are_bounded(store):
    """In responses and in bytes."""
    await chain(store, "1", "2", "3")
    assert await walked(store, "3", max_turns=3) == ["1", "2", "3"]
    assert await walked(store, "3", max_turns=2) is Walk.TOO_LONG
    size = sum(len(one.input) + len(one.output) for one in map(response, "123"))
    assert await walked(store, "3", max_bytes=size) == ["1", "2", "3"]
    assert await walked(store, "3", max_bytes=size - 1) is Walk.TOO_LARGE


async def test_what_is_deleted_stays_readable_to_what_continues_it(store):
    """It cannot be read or continued any more; it ends with the last that continues it."""
    await chain(store, "1", "2", "3")
    assert await store.delete("a", named("1"))
    assert not await store.delete("a", named("1"))
    assert await store.find("a", named("1")) is None
    assert await store.find_input("a", named("1")) is None
    assert await walked(store, "1") is Walk.MISSING
    assert await walked(store, "3") == ["1", "2", "3"]
    assert await store.put("a", response("4", "3"), MONTH) is Kept.KEPT
    assert await walked(store, "4") == ["1", "2", "3", "4"]


async def test_what_only_deleted_ones_continued_is_gone(redis):
    """Not a byte of a conversation is left once all of it is deleted, in whatever order."""
    for order in ("123", "321", "213"):
        organization = uuid.uuid4().hex
        store = RedisResponses(redis, organization=organization)
        await chain(store, "1", "2", "3")
        for name in order:
            assert await store.delete("a", named(name))
        (left,) = [key async for key in redis.scan_iter(f"serin:{{{organization}}}:*")]
        assert left.endswith(b":bytes")
        assert await redis.hgetall(left) == {b"": b"0"}


async def test_a_deleted_end_takes_what_was_deleted_before_it(redis):
    """What is left of a conversation is what kept responses continue."""
    organization = uuid.uuid4().hex
    store = RedisResponses(redis, organization=organization)
    await chain(store, "1", "2", "3")
    for name in "23":
        assert await store.delete("a", named(name))
    (tree,) = [key async for key in redis.scan_iter(f"serin:{{{organization}}}:response:*")]
    assert {member.split()[0].decode() for member in await redis.hkeys(tree)} == {named("1")}
    assert await walked(store, "1") == ["1"]


async def test_a_tenants_share_is_kept(store):
    """Conversations continued longest ago go first, each as a whole; other tenants lose nothing."""
    each = response("1", num_bytes=1000).num_bytes
    bounds = Bounds(1000.0, 4 * each + 100)
    await chain(store, "x", tenant="b", num_bytes=1000)
    await chain(store, "1", bounds=bounds, num_bytes=1000)
    await chain(store, "2", "3", conversation="d", bounds=bounds, num_bytes=1000)
    assert await store.put("a", response("4", "1", num_bytes=1000), bounds) is Kept.KEPT
    assert await store.put("a", response("5", "4", num_bytes=1000), bounds) is Kept.KEPT
    assert await walked(store, "5") == ["1", "4", "5"]
    assert await walked(store, "3", "d") is Walk.MISSING
    assert await walked(store, "2", "d") is Walk.MISSING
    assert await walked(store, "x", tenant="b") == ["x"]


async def test_a_conversation_larger_than_the_share_ends(store):
    """Its next response is not kept; nobody else's goes for it."""
    each = response("1", num_bytes=1000).num_bytes
    bounds = Bounds(1000.0, 3 * each + 100)
    await chain(store, "1", "2", bounds=bounds, num_bytes=1000)
    await chain(store, "3", conversation="d", bounds=bounds, num_bytes=1000)
    assert await store.put("a", response("4", "2", num_bytes=3000), bounds) is Kept.FULL
    assert await store.find("a", named("4")) is None
    assert await walked(store, "2") == ["1", "2"]
    assert await walked(store, "3", "d") == ["3"]
    assert await store.put("a", response("4", "2", num_bytes=1000), bounds) is Kept.KEPT


async def test_all_of_a_conversation_lives_as_long_as_its_end(redis):
    """By Redis' own clock; what nobody continues ends by itself, and its share is free again."""
    organization = uuid.uuid4().hex
    store = RedisResponses(redis, organization=organization)
    brief = Bounds(400.0, 1 << 20)
    await chain(store, "1", bounds=brief)
    await chain(store, "other", conversation="d", bounds=brief)
    await grow_older(redis, organization, 250)
    assert await store.put("a", response("2", "1"), brief) is Kept.KEPT
    await grow_older(redis, organization, 250)
    assert await walked(store, "2") == ["1", "2"]
    assert await store.find("a", named("other", "d")) is None
    assert await store.put("a", response("3", "2"), brief) is Kept.KEPT
    (sizes,) = [key async for key in redis.scan_iter(f"serin:{{{organization}}}:*:bytes")]
    assert len(await redis.hkeys(sizes)) == 2
    await grow_older(redis, organization, 450)
    assert [key async for key in redis.scan_iter(f"serin:{{{organization}}}:*")] == []
    assert await store.put("a", response("4", "3"), brief) is Kept.GONE


async def grow_older(redis, organization: str, seconds: int) -> None:
    """As if so much time had passed for all that is kept, and for nobody else."""
    for key in [key async for key in redis.scan_iter(f"serin:{{{organization}}}:*")]:
        left_ms = await redis.pttl(key)
        assert left_ms > 0, f"{key} would stay for ever"
        if await redis.type(key) == b"zset":  # by microseconds of last use
            used_at = await redis.zrange(key, 0, -1, withscores=True)
            await redis.zadd(key, {name: at - seconds * 1e6 for name, at in used_at})
        await redis.pexpire(key, left_ms - seconds * 1000)


async def test_the_twin_has_its_own_clock():
    """The same in memory."""
    now = [0.0]
    store = MemoryResponses(lambda: now[0])
    bounds = Bounds(10.0, 1 << 20)
    await chain(store, "1", bounds=bounds)
    now[0] = 9.0
    assert await store.put("a", response("2", "1"), bounds) is Kept.KEPT
    now[0] = 18.0
    assert await walked(store, "2") == ["1", "2"]
    now[0] = 19.0
    assert await walked(store, "2") is Walk.MISSING


async def test_a_long_conversation_is_one_round_trip(redis):
    """Hundreds of turns are walked and bounded as three are."""
    store = RedisResponses(redis, organization=uuid.uuid4().hex)
    await chain(store, *(f"{n}" for n in range(500)))
    assert len(await walked(store, "499", max_turns=500)) == 500
    assert await walked(store, "499", max_turns=499) is Walk.TOO_LONG


async def test_a_redis_that_is_gone_is_said(unused_port):
    """ResponsesDown, whatever is called."""
    async with Redis(port=unused_port) as gone:
        store = RedisResponses(gone, timeout_s=0.1)
        for call in (
            store.reach(),
            store.find("a", named("1")),
            store.find_input("a", named("1")),
            store.walk("a", named("1"), 1, 1),
            store.delete("a", named("1")),
            store.put("a", response("1"), MONTH),
        ):
            with pytest.raises(ResponsesDown):
                await call


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from(TENANTS), st.integers(-1, 12), st.sampled_from([10, 400, 900])),
        st.tuples(st.just("delete"), st.sampled_from(TENANTS), st.integers(0, 12), st.just(0)),
    ),
    max_size=24,
)


@settings(max_examples=60)
@given(steps=STEPS)
def test_the_twin_and_redis_agree(valkey, steps):
    """Whatever is kept, continued and deleted in whatever order: the same answers, and the same is left."""
    asyncio.run(_agree(valkey.url, steps))


async def _agree(url: str, steps) -> None:
    bounds = Bounds(1000.0, 7000)
    conversations: dict[int, str] = {}
    async with Redis.from_url(url) as redis:
        twin, real = MemoryResponses(), RedisResponses(redis, organization=uuid.uuid4().hex)
        for number, (verb, tenant, which, num_bytes) in enumerate(steps):
            if verb == "put":
                conversation = conversations[number] = conversations.get(which, f"c{number}")
                one = response(str(number), str(which) if which >= 0 else "", conversation, num_bytes=num_bytes)
                assert await twin.put(tenant, one, bounds) is await real.put(tenant, one, bounds)
            elif which in conversations:
                name = named(str(which), conversations[which])
                assert await twin.delete(tenant, name) == await real.delete(tenant, name)
        for tenant in TENANTS:
            for which, conversation in conversations.items():
                name = named(str(which), conversation)
                assert await twin.find(tenant, name) == await real.find(tenant, name)
                assert await twin.walk(tenant, name, 6, 4000) == await real.walk(tenant, name, 6, 4000)
