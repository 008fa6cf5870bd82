"""`serin key`: make, list and revoke API keys."""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from serin_gateway.administration.desk import KeyWish
from serin_gateway.catalog import CatalogSource, MemoryCatalog
from serin_gateway.keys import KeyRecord, Role
from serin_gateway.keys.records import DEFAULT_PROJECT, Ability
from serin_gateway.upstream.lanes import to_catalog
from serin_mesh.errors import MeshError, Reason

from serin_cli.admin_store import OpenDesk, add_flags, open_desk
from serin_cli.arguments import integer, model_name, one_line, state_path, tenant_name
from serin_cli.errors import CliError, NoMesh, UsageProblem
from serin_cli.limit_flags import add_limits, limits_from, shown
from serin_cli.local.registry import ControlPlane
from serin_cli.record import read_record
from serin_cli.state_dir import StateDir
from serin_cli.terminal import say, screen, table

DESCRIPTION = """\
Make, list and revoke API keys. Roles: app asks models; viewer also sees how the mesh is; operator also changes what it
serves; admin may do everything. Each may do what the ones before it may.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the actions and their flags."""
    actions = parser.add_subparsers(dest="action", metavar="create|list|revoke", required=True)
    create = actions.add_parser("create", help="make a key and print it, this once")
    create.add_argument("--role", choices=[str(role) for role in Role], required=True, help="what the key may do")
    create.add_argument("--name", type=one_line, default="", help="what to remember it by")
    create.add_argument(
        "--project", type=tenant_name, default=DEFAULT_PROJECT, help="whose it is (default: %(default)s)"
    )
    create.add_argument(
        "--expires-days", type=integer(1, 36_500), metavar="N", help="days until it ends (default: never)"
    )
    create.add_argument(
        "--may", action="append", choices=[str(one) for one in Ability], default=[],
        help="what it is made for, again for more (default: all that its role may)",
    )  # fmt: skip
    create.add_argument(
        "--model",
        action="append",
        type=model_name,
        default=[],
        help="a model it may ask, by its own name and no alias, again for more (default: all)",
    )
    create.add_argument("--unknown", choices=["refuse", "warn"], default="refuse", help="parameters nobody knows")
    add_limits(create, "its own", "; with one of these five, none of the mesh's default limits of keys hold")
    create.add_argument(
        "--no-shadow", action="store_true", help="its answers are never scored again to compare two versions"
    )
    revoke = actions.add_parser("revoke", help="end a key, by its id from `serin key list`")
    revoke.add_argument("key_id", metavar="KEY_ID")
    listing = actions.add_parser("list", help="show all keys; never the keys themselves")
    listing.add_argument("--json", action="store_true", help="print JSON, as `GET /admin/keys` has it")
    for action in (create, listing, revoke):
        add_flags(action)


def run(arguments: argparse.Namespace) -> int:
    """Carry out one action."""
    try:
        return asyncio.run(_act(arguments))
    except MeshError as error:
        if error.reason is Reason.NOT_FOUND:
            raise UsageProblem.setting("serin key revoke", arguments.key_id, "an id from `serin key list`") from error
        if error.metadata.get("parameter") == "models":
            raise UsageProblem(f"serin key create: --model: {error.message.removeprefix('models: ')}") from error
        raise CliError(f"{error.message}; see `serin status`") from error


async def _act(arguments: argparse.Namespace) -> int:
    catalog = await _catalog(arguments) if arguments.action == "create" and arguments.model else None
    async with open_desk(arguments, catalog) as at:
        if arguments.action == "create":
            key, _ = await at.desk.create_key(at.actor, _wish(arguments))
            print(key)
        elif arguments.action == "revoke":
            say(await _revoke(arguments.key_id, at))
        else:
            show(await at.desk.keys(at.actor), as_json=arguments.json)
    return 0


async def _catalog(arguments: argparse.Namespace) -> CatalogSource | None:
    """Which models the mesh has; None, and a warning: nobody can be asked."""
    try:
        if arguments.state_redis:
            raise NoMesh("this mesh's control plane is not known")
        async with ControlPlane(read_record(StateDir(state_path(arguments.state))).control) as control:
            return MemoryCatalog(to_catalog(await control.lanes()))
    except (MeshError, NoMesh) as error:
        named = ", ".join(arguments.model)
        say(f"not checked whether these are models' own names: {named} ({error})", sys.stderr)
        return None


def _wish(arguments: argparse.Namespace) -> KeyWish:
    return KeyWish(
        role=Role(arguments.role),
        name=arguments.name,
        project=arguments.project,
        limits=limits_from(arguments),
        lifetime_s=arguments.expires_days * 86_400.0 if arguments.expires_days else None,
        abilities=[Ability(name) for name in arguments.may],
        models=arguments.model,
        unknown=arguments.unknown,
        shadow=not arguments.no_shadow,
    )


async def _revoke(key_id: str, at: OpenDesk) -> str:
    begun = time.time()
    record = await at.desk.revoke_key(at.actor, key_id)
    who = f"{record.key_id} {record.name}".rstrip()
    if record.revoked_at is not None and record.revoked_at < begun:  # the first revocation counts
        return f"{who} was revoked already, on {_day(record.revoked_at)}"
    return f"revoked {who}"


def show(records: Sequence[KeyRecord], *, as_json: bool) -> None:
    """Print all of each but its digest."""
    if as_json:
        print(json.dumps([record.shown() for record in records], indent=2))
        return
    rows = table("id", "role", "name", "project", "organization", "created", "state", "may", "models", "limits")
    for record in records:
        rows.add_row(
            record.key_id,
            str(record.role),
            record.name,
            record.tenant,
            record.organization,
            _day(record.created_at),
            _state(record),
            " ".join(record.abilities) or "all",
            " ".join(record.models) or "all",
            "default" if record.limits is None else shown(record.limits),
        )
    screen().show(rows)


def _state(record: KeyRecord) -> str:
    if record.revoked_at is not None:
        return f"revoked {_day(record.revoked_at)}"
    if not record.is_valid(time.time()):
        return "expired"
    return "valid" if record.expires_at is None else f"valid until {_day(record.expires_at)}"


def _day(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d")
