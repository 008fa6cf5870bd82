"""Whether a Valkey answers."""

from redis import Redis
from redis.exceptions import RedisError


def answers(port: int, password: str | None = None) -> bool:
    """One PING on loopback."""
    try:
        with Redis(port=port, password=password, socket_timeout=1) as redis:
            return bool(redis.ping())
    except RedisError:
        return False
