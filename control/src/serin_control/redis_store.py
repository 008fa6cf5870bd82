"""State in Redis (or Valkey): with :mod:`serin_control.rollouts.redis_store` the only module that knows of it.

Keys, all with one hash tag: ``serin:{control}:config`` (hash: revision, yaml, seed), ``serin:{control}:instances``
(hash: name to JSON), ``serin:{control}:lanes`` (hash: model to JSON).
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from serin_mesh.cancellation import cancels_kept

from serin_control.errors import StoreDown, StoreUnsafe
from serin_control.instance import Instance
from serin_control.lanes import Versions
from serin_control.store import SavedConfig, SavedMesh, check_succession

PREFIX = "serin:{control}:"
TIMEOUT_S = 1.0

_REPLACE_CONFIG = """
local in_force = tonumber(redis.call('HGET', KEYS[1], 'revision') or '0')
if in_force == tonumber(ARGV[1]) and redis.call('HGET', KEYS[1], 'yaml') == ARGV[2] then return in_force - 1 end
if in_force + 1 == tonumber(ARGV[1]) then
  redis.call('HSET', KEYS[1], 'revision', ARGV[1], 'yaml', ARGV[2], 'seed', ARGV[3])
end
return in_force
"""
"""Compare and set. A repeat of a write that did arrive (its answer was lost) counts as that write."""

T = TypeVar("T")

_instance = TypeAdapter(Instance)
_lanes = TypeAdapter(dict[str, Versions])


class RedisStore:
    """A :class:`serin_control.store.StateStore` in Redis.

    Args:
        url: ``redis://host:port/db``, ``rediss://`` or ``unix://``.
    """

    def __init__(self, url: str) -> None:
        self._redis = opened(url)
        self._written: dict[str, dict[str, str]] = {}

    async def check(self) -> None:
        """Refuse a Redis that would lose what it is given. One that does not answer, or does not tell, is let pass.

        Raises:
            StoreUnsafe: it evicts keys, or keeps no append-only file.
        """
        try:
            found = {**await self._redis.config_get("maxmemory-policy"), **await self._redis.config_get("appendonly")}
        except RedisError:
            return
        for key, needed in (("maxmemory-policy", "noeviction"), ("appendonly", "yes")):
            if found.get(key, needed) != needed:
                raise StoreUnsafe(
                    f"{key} is {found[key]!r}: it would lose keys, limits and rollouts; set `{key} {needed}`"
                )

    async def close(self) -> None:
        """Close all connections."""
        await self._redis.aclose()

    async def read_config(self) -> SavedConfig | None:
        """The configuration in force, or None before the first."""
        with translated():
            found = await awaited(self._redis.hgetall(PREFIX + "config"))
        return SavedConfig(int(found["revision"]), found["yaml"], found["seed"]) if found else None

    async def write_config(self, config: SavedConfig) -> None:
        """Replace the configuration of the revision before."""
        with translated():
            in_force = await awaited(
                self._redis.eval(_REPLACE_CONFIG, 1, PREFIX + "config", str(config.revision), config.yaml, config.seed)
            )
        check_succession(int(in_force), config)

    async def read_mesh(self) -> SavedMesh:
        """What was running."""
        with translated():
            instances = await awaited(self._redis.hgetall(PREFIX + "instances"))
            lanes = await awaited(self._redis.hgetall(PREFIX + "lanes"))
        self._written = {"instances": dict(instances), "lanes": dict(lanes)}
        good_instances, bad_instances = _readable(instances, _instance.validate_json)
        good_lanes, bad_lanes = _readable(lanes, _lanes.validate_json)
        return SavedMesh(tuple(good_instances.values()), good_lanes, (*bad_instances, *bad_lanes))

    async def write_mesh(self, mesh: SavedMesh) -> None:
        """Write what changed since the last write, in one transaction."""
        wanted = {
            "instances": {i.registration.instance: _instance.dump_json(i).decode() for i in mesh.instances},
            "lanes": {model: _lanes.dump_json(dict(lanes)).decode() for model, lanes in mesh.carried.items()},
        }
        with translated():
            async with self._redis.pipeline(transaction=True) as transaction:
                for key, values in wanted.items():
                    before = self._written.get(key, {})
                    changed = {name: text for name, text in values.items() if before.get(name) != text}
                    gone = [name for name in before if name not in values]
                    if changed:
                        transaction.hset(PREFIX + key, mapping=cast(Any, changed))
                    if gone:
                        transaction.hdel(PREFIX + key, *gone)
                await transaction.execute()
        self._written = wanted


def opened(url: str) -> Redis:
    """A client of state Redis; nothing is connected before the first command."""
    return Redis.from_url(
        url,
        decode_responses=True,
        socket_timeout=TIMEOUT_S,
        socket_connect_timeout=TIMEOUT_S,
        retry=Retry(NoBackoff(), 1),  # one pooled connection may be stale after Redis restarted
    )


def _readable(records: Mapping[str, str], read: Callable[[str], T]) -> tuple[dict[str, T], list[str]]:
    """Records as values, and the names of those that another version wrote in a way this one cannot read."""
    good, bad = {}, []
    for name, text in records.items():
        try:
            good[name] = read(text)
        except ValueError:
            bad.append(name)
    return good, bad


async def awaited(answer: Any) -> Any:
    """The client's own types do not say that these commands are awaitable."""
    return await cast(Awaitable[Any], answer)


@contextmanager
def translated() -> Iterator[None]:
    """Raise what the client raises as :class:`StoreDown`; a cancel that it loses is raised after all."""
    try:
        with cancels_kept():
            yield
    except (RedisError, OSError) as error:
        raise StoreDown(f"state Redis: {type(error).__name__}: {error}") from error
