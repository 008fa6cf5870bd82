"""The administrators' desk of a mesh, opened for the time of one command.

Knows where the mesh keeps its state, nothing about what is done there.
"""

import argparse
import getpass
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from redis.asyncio import Redis
from serin_gateway.administration.desk import Actor, AdminDesk
from serin_gateway.audit.entry import audit_secret
from serin_gateway.audit.redis_log import RedisAuditLog
from serin_gateway.catalog import CatalogSource
from serin_gateway.keys import RedisKeyStore, key_secret
from serin_gateway.keys.records import DEFAULT_ORGANIZATION
from serin_gateway.keys.redis_tenants import RedisTenantStore
from serin_gateway.ledger.redis_usage import RedisUsage

from serin_cli.arguments import add_state, redis_url, state_path, tenant_name
from serin_cli.errors import UsageProblem
from serin_cli.record import read_record
from serin_cli.state_dir import StateDir


@dataclass(frozen=True)
class OpenDesk:
    """A desk, who sits at it, and the secret of its audit log."""

    desk: AdminDesk
    actor: Actor
    secret: bytes


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say where the mesh keeps its state."""
    parser.add_argument("--state-redis", type=redis_url, metavar="URL", help="of a mesh that `serin up` does not run")
    parser.add_argument("--mesh-secret-file", type=Path, metavar="FILE", help="that mesh's secret")
    add_mesh_organization(parser)
    add_state(parser)


def add_mesh_organization(parser: argparse.ArgumentParser) -> None:
    """Add the flag that says whose name the mesh keeps its state under."""
    parser.add_argument(
        "--mesh-organization",
        type=tenant_name,
        default=DEFAULT_ORGANIZATION,
        metavar="NAME",
        help="that mesh's own, `organization` of its gateways (default: %(default)s)",
    )


@asynccontextmanager
async def open_desk(arguments: argparse.Namespace, catalog: CatalogSource | None = None) -> AsyncIterator[OpenDesk]:
    """The desk of the mesh that the flags mean; ``catalog``: which models it has, where that is known."""
    state = StateDir(state_path(arguments.state))
    url = state_redis(arguments)
    secret = _mesh_secret(arguments.mesh_secret_file or state.mesh_secret)
    redis: Redis = Redis.from_url(url)
    sealing, home = audit_secret(secret), arguments.mesh_organization
    desk = AdminDesk(
        RedisKeyStore(redis, organization=home),
        RedisTenantStore(redis, organization=home),
        RedisUsage(redis, organization=home),
        RedisAuditLog(redis, sealing, organization=home),
        key_secret(secret),
        home=home,
        catalog=catalog,
    )
    try:
        yield OpenDesk(desk, Actor(f"cli:{_user()}"), sealing)
    finally:
        await redis.aclose()


@asynccontextmanager
async def open_key_store(url: str) -> AsyncIterator[RedisKeyStore]:
    """The keys in the state Redis at ``url``."""
    redis: Redis = Redis.from_url(url)
    try:
        yield RedisKeyStore(redis)
    finally:
        await redis.aclose()


def state_redis(arguments: argparse.Namespace) -> str:
    """Address of the state Redis that the flags mean.

    Raises:
        NoMesh: none is named, and no mesh runs on the state directory.
    """
    return arguments.state_redis or read_record(StateDir(state_path(arguments.state))).state_redis


def _mesh_secret(file: Path) -> bytes:
    try:
        return file.read_bytes().strip()
    except OSError as error:
        accepted = f"a file with the mesh secret ({error.strerror})"
        raise UsageProblem.setting("--mesh-secret-file", str(file), accepted) from error


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
