"""What an administrator does from a shell: tenants, keys with limits, usage, the audit log; on a running mesh."""

import asyncio
import csv
import io
import json

import httpx
from harness.asking import TINY, greedy
from harness.clients import plain_http
from harness.eventually import eventually
from harness.running_mesh import MeshFailed, RunningMesh
from redis.asyncio import Redis
from serin_gateway.keys.redis_tenants import RedisTenantStore

PROJECT, ORGANIZATION = "shell-project", "shell-house"


async def serin(mesh: RunningMesh, *arguments: str) -> str:
    """What a command prints."""
    return await asyncio.to_thread(mesh.serin, *arguments)


async def ask(mesh: RunningMesh, key: str, max_tokens: int = 4) -> httpx.Response:
    """A short completion of the model that it may ask."""
    async with plain_http(base_url=mesh.rest, headers={"authorization": f"Bearer {key}"}) as client:
        return await client.post("/v1/chat/completions", json=greedy("Hi", max_tokens=max_tokens))


async def test_from_a_tenant_to_its_bill(mesh: RunningMesh):
    """Declared, given a key, asked, limited together, billed by the token, written down, and unharmed by a look."""
    await serin(mesh, "tenant", "organization", ORGANIZATION)
    await serin(mesh, "tenant", "project", PROJECT, "--organization", ORGANIZATION)
    assert f"{PROJECT}" in await serin(mesh, "tenant", "list")
    create = ("key", "create", "--role", "app", "--project", PROJECT, "--model", TINY, "--may", "inference")
    key = (await serin(mesh, *create)).split()[-1]
    answers = [await ask(mesh, key) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    used = [answer.json()["usage"] for answer in answers]

    async def bill() -> dict[str, dict[str, str]]:
        rows = csv.DictReader(io.StringIO(await serin(mesh, "usage", "--by", "project", "--csv")))
        return {row["project"]: row for row in rows}

    row = (await eventually(bill, lambda rows: rows.get(PROJECT, {}).get("lines") == "2", "two lines"))[PROJECT]
    assert int(row["prompt_tokens"]) == sum(one["prompt_tokens"] for one in used)
    assert int(row["completion_tokens"]) == sum(one["completion_tokens"] for one in used)
    assert row["currency"] == "USD"
    table = await serin(mesh, "usage", "--by", "project")
    assert "cost USD" in table.splitlines()[0]
    assert PROJECT in table
    async with plain_http(base_url=mesh.rest, headers={"authorization": f"Bearer {key}"}) as client:
        other = await client.post("/v1/chat/completions", json=greedy("Hi", model="small", max_tokens=1))
        assert (other.status_code, other.json()["error"]["reason"]) == (404, "MODEL_NOT_FOUND")
        assert (await client.get("/v1/models")).json()["error"]["reason"] == "ROLE_INSUFFICIENT"

    await serin(mesh, "tenant", "project", PROJECT, "--organization", ORGANIZATION, "--requests-per-minute", "1")
    refused = await eventually(lambda: ask(mesh, key, 1), lambda answer: answer.status_code == 429, "the new limit")
    assert "project" in refused.json()["error"]["message"]

    entries = [json.loads(line) for line in (await serin(mesh, "audit", "list", "--json")).splitlines()]
    told = [entry for entry in entries if PROJECT in json.dumps(entry)]
    assert len(told) >= 3, entries[-5:]
    assert key not in json.dumps(entries)
    verified = await serin(mesh, "audit", "verify")
    head = verified.split()[-1]
    assert await serin(mesh, "audit", "verify", "--expect", head)


async def test_a_mesh_of_another_organization_is_administered(mesh: RunningMesh):
    """Its gateways keep everything under its name (`--organization`): told it, commands find that and no more."""
    own = ("--mesh-organization", "elsewhere")
    await serin(mesh, "tenant", "project", "theirs", *own)
    assert [line.split()[:3] for line in (await serin(mesh, "tenant", "list", *own)).splitlines()[1:]] == [
        ["project", "theirs", "elsewhere"]
    ]
    assert "theirs" not in await serin(mesh, "tenant", "list")
    redis: Redis = Redis.from_url(mesh.record["state_redis"])
    try:
        store = RedisTenantStore(redis, organization="elsewhere")  # as a gateway opens it
        assert [one.name for one in (await store.directory()).projects] == ["theirs"]
    finally:
        await redis.aclose()


async def test_what_cannot_be_meant_is_one_line(mesh: RunningMesh):
    """Exit code 2 (1 where the log is another one), the flag or name, what is accepted; nothing is changed."""
    before = await serin(mesh, "tenant", "list")
    wrong = (
        (("tenant", "project", "a b"), "a b"),
        (("tenant", "project", PROJECT, "--tokens-per-day", "-1"), "--tokens-per-day"),
        (("usage", "--from", "yesterday"), "yesterday"),
        (("usage", "--by", "weather"), "weather"),
        (("key", "create", "--role", "app", "--expires-days", "0"), "--expires-days"),
        (("key", "create", "--role", "app", "--model", "nope"), "--model: 'nope' is no model; accepted: "),
        (("key", "create", "--role", "app", "--model", "demo"), "--model: 'demo' is an alias; keys are made"),
        (("audit", "verify", "--expect", "0" * 64), "expect"),
    )
    outcomes = await asyncio.gather(*(serin(mesh, *arguments) for arguments, _ in wrong), return_exceptions=True)
    for failure, (_, said) in zip(outcomes, wrong, strict=True):
        assert isinstance(failure, MeshFailed), failure
        assert said in str(failure), failure
        assert "Traceback" not in str(failure)
    assert await serin(mesh, "tenant", "list") == before
