"""`/admin/…`: keys, tenants, usage and audit over HTTP. Knows nothing about where any of it is kept."""

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, get_args

import orjson

from serin_gateway.administration.desk import Actor, AdminDesk, KeyWish
from serin_gateway.ask import refuse
from serin_gateway.keys.tenants import Organization, Project
from serin_gateway.ledger.usage import By, as_csv, decimal
from serin_gateway.limits.calendar import day_of
from serin_gateway.limits.limiter import Limits
from serin_gateway.pipeline import Request
from serin_gateway.rest.admin_schemas import KeyBody, LimitsBody, OrganizationBody, ProjectBody, is_name
from serin_gateway.rest.answering import read_body
from serin_gateway.rest.client import Client
from serin_gateway.rest.parameters import parse_exact

DAY_S = 86_400.0
MAX_ENTRIES = 1000


async def create_key(client: Client, request: Request) -> None:
    """Make a key; the only answer that ever holds one."""
    body = parse_exact(KeyBody, await read_body(client, request))
    wish = KeyWish(
        role=body.role,
        name=body.name,
        project=body.project,
        limits=_limits(body.limits) if body.limits is not None else None,
        lifetime_s=body.expires_days * DAY_S if body.expires_days else None,
        abilities=body.abilities,
        models=body.models,
        unknown=body.unknown,
        shadow=body.shadow,
    )
    key, record = await _desk(request).create_key(_actor(request), wish)
    await client.respond(200, orjson.dumps(record.shown() | {"key": key}))


async def list_keys(client: Client, request: Request) -> None:
    """All keys; never the keys themselves."""
    await _respond_list(client, [record.shown() for record in await _desk(request).keys(_actor(request))])


async def revoke_key(client: Client, request: Request) -> None:
    """End a key."""
    record = await _desk(request).revoke_key(_actor(request), _last_segment(client))
    await client.respond(200, orjson.dumps(record.shown()))


async def list_tenants(client: Client, request: Request) -> None:
    """Organizations and projects that are declared."""
    found = await _desk(request).directory(_actor(request))
    body = {
        "object": "tenants",
        "organizations": [asdict(one) for one in found.organizations],
        "projects": [asdict(one) for one in found.projects],
    }
    await client.respond(200, orjson.dumps(body))


async def put_organization(client: Client, request: Request) -> None:
    """Declare an organization."""
    body = parse_exact(OrganizationBody, await read_body(client, request))
    organization = Organization(_name(client), _limits(body.limits))
    await _desk(request).put_organization(_actor(request), organization)
    await client.respond(200, orjson.dumps({"object": "organization", **asdict(organization)}))


async def put_project(client: Client, request: Request) -> None:
    """Declare a project."""
    body = parse_exact(ProjectBody, await read_body(client, request))
    project = Project(_name(client), body.organization or _desk(request).home, _limits(body.limits))
    await _desk(request).put_project(_actor(request), project)
    await client.respond(200, orjson.dumps({"object": "project", **asdict(project)}))


async def usage(client: Client, request: Request) -> None:
    """What was used and what it costs, as JSON or CSV."""
    given = _query(client)
    today = day_of(time.time())
    by, form = given.get("by", "project"), given.get("format", "json")
    if by not in get_args(By):
        raise refuse("by", f"{by[:32]!r} is not accepted; accepted: {', '.join(get_args(By))}")
    if form not in ("json", "csv"):
        raise refuse("format", f"{form[:32]!r} is not accepted; accepted: json, csv")
    group: By = by  # type: ignore[assignment]  # it is one of them
    first, last = given.get("from", today), given.get("to", today)
    rows = await _desk(request).usage(_actor(request), first, last, group)
    currency = request.house.catalog.current().policy.currency
    if form == "csv":
        await client.respond(200, as_csv(rows, group, currency).encode(), b"text/csv; charset=utf-8")
        return
    data = [asdict(row) | {"cost": decimal(row.nano)} for row in rows]
    await client.respond(
        200,
        orjson.dumps({"object": "usage", "from": first, "to": last, "by": by, "currency": currency, "data": data}),
    )


async def audit(client: Client, request: Request) -> None:
    """Some of the audit log."""
    given = _query(client)
    numbers = {}
    for name, default, most in (("first", 1, 10**12), ("count", 100, MAX_ENTRIES)):
        text = given.get(name, str(default))
        if not (text.isascii() and text.isdecimal() and len(text) < 16 and 1 <= int(text) <= most):
            raise refuse(name, f"{text[:32]!r} is not accepted; accepted: 1 to {most}")
        numbers[name] = int(text)
    entries = await _desk(request).entries(_actor(request), numbers["first"], numbers["count"])
    await _respond_list(client, [None if one is None else asdict(one) for one in entries])


def _desk(request: Request) -> AdminDesk:
    return request.house.desk


def _actor(request: Request) -> Actor:
    return _desk(request).actor(request.caller.key_id, request.caller.organization)


def _limits(body: LimitsBody) -> Limits:
    return Limits(**body.model_dump())


def _last_segment(client: Client) -> str:
    path: bytes = client.scope["raw_path"]
    return path[path.rfind(b"/") + 1 :].decode("latin-1")


def _name(client: Client) -> str:
    name = _last_segment(client)
    if not is_name(name):
        raise refuse("name", f"{name[:64]!r} is not accepted; accepted: 1 to 64 of a-z 0-9 . _ -")
    return name


def _query(client: Client) -> Mapping[str, str]:
    return {name: values[0] for name, values in client.query.items()}


async def _respond_list(client: Client, data: list[Any]) -> None:
    await client.respond(200, orjson.dumps({"object": "list", "data": data}))
