"""Projects and organizations in the state Redis, shared by all gateways and the command line.

``serin:{org}:tenants`` is a hash: ``o:<name>`` and ``p:<name>`` to a record as JSON, ``revision`` to a number that
grows with every change. Knows nothing about requests; a slow or dead Redis becomes :class:`KeyStoreDown` in time.
"""

from contextlib import suppress
from typing import Any

from redis.asyncio import Redis

from serin_gateway.keys.store import KeyStoreDown
from serin_gateway.keys.tenants import Directory, Organization, Project, check_home
from serin_gateway.redis_calls import in_time


class RedisTenantStore:
    """Projects and organizations in Redis.

    Args:
        redis: a client of the state Redis; not closed here.
        organization: hash tag of the key.
        timeout_s: longest wait for one call.
    """

    def __init__(self, redis: Redis, *, organization: str = "default", timeout_s: float = 2.0) -> None:
        self._redis = redis
        self._timeout_s = timeout_s
        self._name = f"serin:{{{organization}}}:tenants"

    async def put_organization(self, organization: Organization) -> None:
        """Keep it."""
        await self._put("o:" + organization.name, organization.to_json())

    async def put_project(self, project: Project) -> None:
        """Keep it. Two administrators who give one name to two organizations at once are not told apart."""
        text = await self._answer(self._redis.hget(self._name, "p:" + project.name))
        check_home(Project.from_json(text) if text else None, project)
        await self._put("p:" + project.name, project.to_json())

    async def directory(self, known_revision: int = -1) -> Directory | None:
        """All of them; one that is damaged does not hide the others."""
        revision = int(await self._answer(self._redis.hget(self._name, "revision")) or 0)
        if revision == known_revision:
            return None
        stored: dict[bytes, bytes] = await self._answer(self._redis.hgetall(self._name))
        organizations, projects = [], []
        for name, text in sorted(stored.items()):
            with suppress(ValueError):
                if name.startswith(b"o:"):
                    organizations.append(Organization.from_json(text))
                elif name.startswith(b"p:"):
                    projects.append(Project.from_json(text))
        return Directory(int(stored.get(b"revision", 0)), organizations, projects)

    async def _put(self, name: str, text: str) -> None:
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(self._name, name, text)
            pipe.hincrby(self._name, "revision", 1)
            await self._answer(pipe.execute())

    async def _answer(self, call: Any) -> Any:
        return await in_time(call, self._timeout_s, KeyStoreDown)
