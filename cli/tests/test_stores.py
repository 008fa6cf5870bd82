"""The two Valkeys: what each keeps, and which Redis is refused as the state's."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis
from serin_cli.demo_model import demo_config
from serin_cli.errors import StartRefused, UsageProblem
from serin_cli.local.board import Phase
from serin_cli.local.default_key import ensure_default_key
from serin_cli.local.follow import follow_store
from serin_cli.local.mesh import LocalMesh
from serin_cli.local.names import CACHE_STORE, STATE_STORE
from serin_cli.local.store_policy import check_cache_store, check_state_store, hide_password
from serin_cli.local.valkey import store_spec, store_url
from serin_cli.local.wish import Wish
from serin_gateway.keys import RedisKeyStore, key_digest, key_secret


@contextlib.asynccontextmanager
async def _running(name, fleet, board, state) -> AsyncIterator[str]:
    url = store_url(name, state)
    fleet.start(store_spec(name, state))
    follower = asyncio.create_task(follow_store(name, url, board))
    try:
        async with asyncio.timeout(60):
            await board.until(lambda: fleet.can_come_up() and board.phase(name) is Phase.READY)
        yield url
    finally:
        follower.cancel()
        await asyncio.gather(follower, return_exceptions=True)
        await fleet.stop([name])


async def test_the_state_store_keeps_what_it_is_told(fleet, board, state):
    """A value is still there after the store was stopped and started, and it is fit to be the state Redis."""
    async with _running(STATE_STORE, fleet, board, state) as url:
        await check_state_store(url)
        async with Redis.from_url(url) as redis:
            await redis.set("kept", "yes")
    async with _running(STATE_STORE, fleet, board, state) as url, Redis.from_url(url) as redis:
        assert await redis.get("kept") == b"yes"


async def test_the_cache_store_is_refused_as_state(fleet, board, state):
    """A store that evicts is fine for the cache and refused for the state, with the setting to change."""
    async with _running(CACHE_STORE, fleet, board, state) as url:
        await check_cache_store(url)
        with pytest.raises(
            StartRefused, match=r"evicts .maxmemory-policy allkeys-lru.*set `maxmemory-policy noeviction`"
        ):
            await check_state_store(url)
        async with Redis.from_url(url) as redis:
            await redis.config_set("maxmemory-policy", "noeviction")
            with pytest.raises(StartRefused, match=r"no append-only file.*set `appendonly yes`"):
                await check_state_store(url)
            await redis.config_set("requirepass", "word")
        with pytest.raises(StartRefused, match=r"does not answer|refused the password"):
            await check_state_store(url)


async def test_the_default_key_stays_until_it_is_revoked(fleet, board, state):
    """One key for the directory: kept while it is valid, made anew when it was revoked."""
    async with _running(STATE_STORE, fleet, board, state) as url, Redis.from_url(url) as redis:
        store = RedisKeyStore(redis)
        await ensure_default_key(state, store, now=0.0)
        first = state.read_default_key()
        await ensure_default_key(state, store, now=0.0)
        assert state.read_default_key() == first
        secret = key_secret(state.mesh_secret.read_bytes().strip())
        record = await store.lookup(key_digest(secret, first))
        assert record.role == "app"
        await store.revoke(record.key_id)
        await ensure_default_key(state, store, now=0.0)
        assert state.read_default_key() != first
        assert state.default_key.stat().st_mode & 0o777 == 0o600


async def test_an_absent_redis_is_named(tmp_path):
    """A Redis that is not there is refused with its address and without its password."""
    with pytest.raises(StartRefused, match=r"--state-redis: unix://@.*/none.sock does not answer"):
        await check_state_store(f"unix://:secret@{tmp_path}/none.sock")
    with pytest.raises(UsageProblem, match=r"--cache-redis"):
        await check_cache_store("redis://127.0.0.1:port")


@pytest.mark.parametrize("given", ["state_redis", "cache_redis"])
async def test_beside_a_redis_that_does_not_answer_nothing_is_started(given, fleet, board, state):
    """It is asked before the other store, and before ports and models are looked for."""
    wish = Wish(demo_config(1), replaces=True, http_port=0, grpc_port=0, **{given: f"unix://{state.root}/none.sock"})
    mesh = LocalMesh(wish, state, board, fleet, lambda text: None)
    flag = given.replace("_", "-")
    try:
        with pytest.raises(StartRefused, match=rf"^--{flag}: unix://.*/none.sock does not answer"):
            async with asyncio.timeout(60):
                await mesh.start()
        assert fleet.specs == {}
        assert list(state.data.iterdir()) == []
    finally:
        await mesh.stop()


def test_passwords_are_not_shown():
    """Addresses are shown without passwords."""
    assert hide_password("redis://user:secret@host:6379/0") == "redis://user@host:6379/0"
    assert hide_password("redis://host:6379") == "redis://host:6379"
