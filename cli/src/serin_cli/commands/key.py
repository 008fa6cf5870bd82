"""`serin key`: make, list and revoke API keys."""

import argparse
import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.table import Table
from serin_gateway.keys import KeyNotFound, KeyRecord, KeyStoreDown, RedisKeyStore, Role, key_secret, mint_key
from serin_gateway.limits.limiter import Limits

from serin_cli.arguments import add_state, integer, one_line, redis_url, state_path
from serin_cli.errors import CliError, UsageProblem
from serin_cli.key_store import open_key_store
from serin_cli.local.display import wide_console
from serin_cli.record import read_record
from serin_cli.state_dir import StateDir

DESCRIPTION = """\
Make, list and revoke API keys. Roles: app asks models; viewer also sees how the mesh is; operator also changes what it
serves; admin may do everything. Each may do what the ones before it may.
"""
_LIMITS = ("requests_per_minute", "tokens_per_minute", "concurrent_requests")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the actions and their flags."""
    actions = parser.add_subparsers(dest="action", metavar="create|list|revoke", required=True)
    create = actions.add_parser("create", help="make a key and print it, this once")
    create.add_argument("--role", choices=[str(role) for role in Role], required=True, help="what the key may do")
    create.add_argument("--name", type=one_line, default="", help="what to remember it by")
    create.add_argument(
        "--expires-days", type=integer(1, 36_500), metavar="N", help="days until it ends (default: never)"
    )
    for limit in _LIMITS:
        flag, words = "--" + limit.replace("_", "-"), limit.replace("_", " ")
        create.add_argument(flag, type=integer(0, 2**32 - 1), metavar="N", help=f"its own limit of {words}; 0: none")
    create.add_argument(
        "--no-shadow", action="store_true", help="its answers are never scored again to compare two versions"
    )
    revoke = actions.add_parser("revoke", help="end a key, by its id from `serin key list`")
    revoke.add_argument("key_id", metavar="KEY_ID")
    for action in (create, actions.add_parser("list", help="show all keys; never the keys themselves"), revoke):
        action.add_argument(
            "--state-redis", type=redis_url, metavar="URL", help="keys of a mesh that `serin up` does not run"
        )
        action.add_argument("--mesh-secret-file", type=Path, metavar="FILE", help="that mesh's secret")
        add_state(action)


def run(arguments: argparse.Namespace) -> int:
    """Carry out one action."""
    try:
        return asyncio.run(_act(arguments))
    except KeyStoreDown as error:
        raise CliError(f"{error}; see `serin status`") from error
    except KeyNotFound as error:
        raise UsageProblem.setting("serin key revoke", arguments.key_id, "an id from `serin key list`") from error


async def _act(arguments: argparse.Namespace) -> int:
    state = StateDir(state_path(arguments.state))
    url = arguments.state_redis or read_record(state).state_redis
    secret = _mesh_secret(arguments.mesh_secret_file or state.mesh_secret) if arguments.action == "create" else b""
    async with open_key_store(url) as store:
        if arguments.action == "create":
            await _create(arguments, store, secret)
        elif arguments.action == "revoke":
            print(await _revoke(arguments.key_id, store))
        else:
            _print_table(await store.list())
    return 0


async def _create(arguments: argparse.Namespace, store: RedisKeyStore, secret: bytes) -> None:
    given = {limit: value for limit in _LIMITS if (value := getattr(arguments, limit)) is not None}
    key, record = mint_key(
        key_secret(secret),
        role=Role(arguments.role),
        name=arguments.name,
        limits=Limits(**given) if given else None,
        lifetime_s=arguments.expires_days * 86_400.0 if arguments.expires_days else None,
        shadow=not arguments.no_shadow,
    )
    await store.create(record)
    print(key)


async def _revoke(key_id: str, store: RedisKeyStore) -> str:
    begun = time.time()
    record = await store.revoke(key_id)
    who = f"{record.key_id} {record.name}".rstrip()
    if record.revoked_at is not None and record.revoked_at < begun:  # the first revocation counts
        return f"{who} was revoked already, on {_day(record.revoked_at)}"
    return f"revoked {who}"


def _mesh_secret(file: Path) -> bytes:
    try:
        return file.read_bytes().strip()
    except OSError as error:
        accepted = f"a file with the mesh secret ({error.strerror})"
        raise UsageProblem.setting("--mesh-secret-file", str(file), accepted) from error


def _print_table(records: Sequence[KeyRecord]) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("id", "role", "name", "tenant", "created", "state"):
        table.add_column(heading, no_wrap=True)
    for record in records:
        table.add_row(
            record.key_id, str(record.role), record.name, record.tenant, _day(record.created_at), _state(record)
        )
    wide_console().print(table)


def _state(record: KeyRecord) -> str:
    if record.revoked_at is not None:
        return f"revoked {_day(record.revoked_at)}"
    if not record.is_valid(time.time()):
        return "expired"
    return "valid" if record.expires_at is None else f"valid until {_day(record.expires_at)}"


def _day(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d")
