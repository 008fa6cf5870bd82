"""Whether a Redis is fit to keep the mesh's state: asked before anything starts on it.

The command's only module that knows the Redis protocol.
"""

import asyncio

from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, BusyLoadingError, RedisError

from serin_cli.errors import StartRefused, UsageProblem

ANSWER_S = 5.0
RETRY_S = 0.05


async def await_store(url: str) -> None:
    """Wait until a Redis that is starting answers. Cancel it to stop waiting."""
    while True:
        try:
            async with asyncio.timeout(ANSWER_S), Redis.from_url(url) as redis:
                if await redis.ping():
                    return
        except (RedisError, OSError, TimeoutError):
            await asyncio.sleep(RETRY_S)


async def check_state_store(url: str) -> None:
    """Refuse a Redis that would lose keys, limits or rollouts.

    Raises:
        StartRefused: it does not answer, evicts, or keeps no append-only file.
    """
    memory = await _info("--state-redis", url, "memory")
    persistence = await _info("--state-redis", url, "persistence")
    policy = memory.get("maxmemory_policy", "unknown")
    if policy != "noeviction":
        raise StartRefused(
            f"--state-redis: {hide_password(url)} evicts (maxmemory-policy {policy}), it would lose keys and limits; "
            "set `maxmemory-policy noeviction` there (CONFIG SET, and in its configuration file)"
        )
    if not persistence.get("aof_enabled"):
        raise StartRefused(
            f"--state-redis: {hide_password(url)} keeps no append-only file, a restart would lose keys and limits; "
            "set `appendonly yes` there (CONFIG SET, and in its configuration file)"
        )


async def check_cache_store(url: str) -> None:
    """Refuse a Redis that does not answer.

    Raises:
        StartRefused: it does not answer.
    """
    await _info("--cache-redis", url, "memory")


def hide_password(url: str) -> str:
    """The address without its password, fit to be shown."""
    scheme, _, rest = url.partition("://")
    credentials, at, place = rest.rpartition("@")
    return f"{scheme}://{credentials.partition(':')[0]}{at}{place}"


async def _info(flag: str, url: str, section: str) -> dict[str, object]:
    try:
        redis: Redis = Redis.from_url(url)
    except ValueError as error:
        raise UsageProblem.setting(flag, hide_password(url), f"the address of a Redis ({error})") from error
    try:
        async with asyncio.timeout(ANSWER_S):
            info: dict[str, object] = await redis.info(section)
            return info
    except AuthenticationError as error:
        raise StartRefused(f"{flag}: {hide_password(url)} refused the password; put it into the address") from error
    except BusyLoadingError as error:
        raise StartRefused(f"{flag}: {hide_password(url)} still loads its data; try again in a moment") from error
    except (RedisError, OSError, TimeoutError) as error:
        reason = str(error) or type(error).__name__
        raise StartRefused(f"{flag}: {hide_password(url)} does not answer ({reason}); start it or mend it") from error
    finally:
        await redis.aclose()
