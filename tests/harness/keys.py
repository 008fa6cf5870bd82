"""Mints API keys straight into a mesh's state Redis, with limits that a test wants. Knows the gateway's key store."""

from redis.asyncio import Redis
from serin_gateway.keys import KeyRecord, RedisKeyStore, Role, key_secret, mint_key
from serin_gateway.limits.limiter import Limits

from harness.running_mesh import RunningMesh


async def mint(
    mesh: RunningMesh,
    *,
    role: Role = Role.APP,
    limits: Limits | None = None,
    shadow: bool = True,
    project: str = "default",
) -> tuple[str, KeyRecord]:
    """A new key of the mesh and its record."""
    secret = key_secret((mesh.state / "mesh.secret").read_bytes().strip())
    key, record = mint_key(secret, role=role, limits=limits, shadow=shadow, tenant=project)
    async with Redis.from_url(mesh.record["state_redis"]) as redis:
        await RedisKeyStore(redis).create(record)
    return key, record


async def revoke(mesh: RunningMesh, record: KeyRecord) -> None:
    """End a key."""
    async with Redis.from_url(mesh.record["state_redis"]) as redis:
        await RedisKeyStore(redis).revoke(record.key_id)
