"""The admin API: who may do what, whose tenants they reach, and that every act is in the audit log."""

import csv
import io

import pytest
from serin_gateway.audit.entry import find_faults
from serin_gateway.keys import Role
from serin_gateway.keys.records import Ability
from serin_gateway.keys.tenants import Organization, Project
from serin_gateway.ledger.price import Price
from serin_gateway.limits.limiter import Limits
from serin_gateway.testing import SECRET, MemoryHouse, saying, small_catalog, small_lane

ROUTES = [
    ("POST", "/admin/keys", Role.ADMIN),
    ("GET", "/admin/keys", Role.ADMIN),
    ("DELETE", "/admin/keys/nobody", Role.ADMIN),
    ("GET", "/admin/tenants", Role.OPERATOR),
    ("PUT", "/admin/organizations/acme", Role.ADMIN),
    ("PUT", "/admin/projects/web", Role.ADMIN),
    ("GET", "/admin/usage", Role.VIEWER),
    ("GET", "/admin/audit", Role.ADMIN),
]


@pytest.fixture
async def admin(front):
    """Asks as an administrator of the mesh; returns the response."""
    key = await front.house.key(Role.ADMIN)

    async def ask(method: str, path: str, key: str = key, **options):
        return await front.http.request(method, path, headers={"authorization": f"Bearer {key}"}, **options)

    return ask


@pytest.mark.parametrize(("method", "path", "needed"), ROUTES)
async def test_each_route_needs_its_role(front, admin, method, path, needed):
    """The role below is 403; the role itself gets further; a key made for other things does not."""
    for role in Role:
        answer = await admin(method, path, await front.house.key(role), json={})
        told = answer.json().get("error", {}).get("reason") if answer.status_code >= 400 else None
        assert (told == "ROLE_INSUFFICIENT") == (not role.covers(needed)), (role, answer.text)
    narrow = await front.house.key(Role.ADMIN, abilities=[Ability.INFERENCE])
    assert (await admin(method, path, narrow, json={})).status_code == 403


async def test_a_key_is_made_used_and_revoked(front, admin):
    """It may ask the models that it was made for, sees no others, and ends; it is listed with all it may do."""
    limits = {"requests_per_minute": 9, "money_per_month": 5_000_000}
    wish = {"name": "laptop", "models": ["small"], "abilities": ["inference", "models"], "limits": limits}
    made = (await admin("POST", "/admin/keys", json=wish | {"expires_days": 2})).json()
    key = made.pop("key")
    assert (await admin("GET", "/v1/models", key)).status_code == 200
    assert (await admin("GET", "/metrics", key)).status_code == 403
    listed = next(one for one in (await admin("GET", "/admin/keys")).json()["data"] if one["id"] == made["id"])
    assert listed == made
    assert (listed["models"], listed["abilities"]) == (["small"], ["inference", "models"])
    assert listed["limits"] | limits == listed["limits"]
    assert listed["expires_at"] - listed["created_at"] == pytest.approx(2 * 86_400)
    assert (await admin("DELETE", f"/admin/keys/{made['id']}")).json()["revoked_at"]
    assert (await admin("DELETE", "/admin/keys/nobody")).status_code == 404


async def test_another_model_does_not_exist(front, admin):
    """Neither in the list, nor by name, nor to ask; over every operation the same 404."""
    key = await front.house.key(models=["other"])
    assert (await admin("GET", "/v1/models", key)).json()["data"] == []
    for answer in (
        await admin("GET", "/v1/models/small", key),
        await admin("GET", "/v1/models/demo", key),
        await admin("POST", "/v1/chat/completions", key, json={"model": "demo", "messages": _HI}),
        await admin("POST", "/v1/completions", key, json={"model": "small", "prompt": "x"}),
    ):
        assert (answer.status_code, answer.json()["error"]["reason"]) == (404, "MODEL_NOT_FOUND")
    assert not front.house.workers.orders
    named = await front.house.key(models=["small"])  # by its own name: its aliases mean the same model
    assert (
        await admin("POST", "/v1/chat/completions", named, json={"model": "demo", "messages": _HI})
    ).status_code == 200


_HI = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("method", "path", "body", "parameter"),
    [
        ("POST", "/admin/keys", {"role": "root"}, "role"),
        ("POST", "/admin/keys", {"colour": "red"}, "colour"),
        ("POST", "/admin/keys", {"project": "A B"}, "project"),
        ("POST", "/admin/keys", {"models": ["small", "demo"]}, "models"),  # an alias, which may lead elsewhere one day
        ("POST", "/admin/keys", {"models": ["nope"]}, "models"),
        ("POST", "/admin/keys", {"name": "a\nkey_1  admin"}, "name"),
        ("POST", "/admin/keys", {"name": "\x1b]0;owned\x07"}, "name"),
        ("POST", "/admin/keys", {"name": "a" * 201}, "name"),
        ("POST", "/admin/keys", {"name": "a\u202eb"}, "name"),
        ("POST", "/admin/keys", {"role": 1}, "role"),
        ("POST", "/admin/keys", {"expires_days": "7"}, "expires_days"),
        ("POST", "/admin/keys", {"shadow": "no"}, "shadow"),
        ("POST", "/admin/keys", {"limits": {"requests_per_minute": "5"}}, "limits.requests_per_minute"),
        ("PUT", "/admin/projects/web", {"limits": {"tokens_per_day": True}}, "limits.tokens_per_day"),
        ("PUT", "/admin/organizations/acme", {"limits": {"tokens_per_day": 5.0}}, "limits.tokens_per_day"),
        ("POST", "/admin/keys", {"limits": {"tokens_per_day": -1}}, "limits.tokens_per_day"),
        ("POST", "/admin/keys", {"limits": {"money_per_month": 0.5}}, "limits.money_per_month"),
        ("PUT", "/admin/projects/A", {}, "name"),
        ("GET", "/admin/usage?from=yesterday", None, "from"),
        ("GET", "/admin/usage?from=2026-02-01&to=2026-01-01", None, "from"),
        ("GET", "/admin/usage?from=2026-01-01&from=2026-02-01", None, "from"),
        ("GET", "/admin/usage?by=name", None, "by"),
        ("GET", "/admin/usage?format=xml", None, "format"),
        ("GET", "/admin/usage?colour=red", None, "colour"),
        ("GET", "/admin/audit?count=0", None, "count"),
    ],
)
async def test_what_is_wrong_is_named(admin, method, path, body, parameter):
    """400 with the parameter's name."""
    answer = await admin(method, path, json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == parameter


async def test_limits_of_projects_and_organizations_hold(front, admin):
    """Set over the API, they hold for all keys together; the refusal names the scope."""
    await admin("PUT", "/admin/organizations/acme", json={"limits": {"requests_per_minute": 3}})
    await admin("PUT", "/admin/projects/web", json={"organization": "acme", "limits": {"requests_per_minute": 2}})
    await admin("PUT", "/admin/projects/app", json={"organization": "acme"})
    await front.house.copy.refresh()
    keys = {
        name: (await admin("POST", "/admin/keys", json={"project": project})).json()["key"]
        for name, project in (("a", "web"), ("b", "web"), ("c", "app"))
    }

    async def ask(name: str):
        return await admin("POST", "/v1/chat/completions", keys[name], json={"model": "small", "messages": _HI})

    assert [(await ask(name)).status_code for name in "ab"] == [200, 200]
    refused = await ask("a")
    assert refused.status_code == 429
    assert "the project's limit of 2 requests per minute" in refused.json()["error"]["message"]
    assert refused.headers["x-ratelimit-limit-requests"] == "2"
    last = await ask("c")
    assert (last.status_code, last.headers["x-ratelimit-remaining-requests"]) == (200, "0")
    refused = await ask("c")
    assert "the organization's limit of 3 requests per minute" in refused.json()["error"]["message"]
    assert int(refused.headers["retry-after"]) >= 1
    moved = await admin("PUT", "/admin/projects/web", json={"organization": "other"})
    assert moved.status_code == 409


async def test_limits_of_an_organization_hold_whatever_its_administrators_do_to_its_projects(front, admin):
    """They divide it among their projects, and clear what the platform put there; its own limit they cannot touch."""
    limits = {"limits": {"requests_per_minute": 2}}
    await admin("PUT", "/admin/organizations/acme", json=limits)
    await admin("PUT", "/admin/projects/web", json={"organization": "acme", "limits": {"requests_per_minute": 1}})
    await front.house.copy.refresh()
    own = await front.house.key(Role.ADMIN, tenant="web", organization="acme")
    assert (await admin("PUT", "/admin/organizations/acme", own, json={})).status_code == 403
    assert (await admin("PUT", "/admin/projects/more", own, json={"organization": "acme"})).status_code == 403
    assert (await admin("PUT", "/admin/projects/web", own, json={"organization": "acme"})).status_code == 200
    await front.house.copy.refresh()
    asked = [await admin("POST", "/v1/completions", own, json={"model": "small", "prompt": "x"}) for _ in range(3)]
    assert [one.status_code for one in asked] == [200, 200, 429]
    assert "the organization's limit" in asked[-1].json()["error"]["message"]


async def test_an_organization_administers_itself_alone(front, admin):
    """Its administrator sees and makes only its own keys, reads only its usage, and sets no limit of its own."""
    for name in ("acme", "rival"):
        await front.house.tenants.put_organization(Organization(name))
        await front.house.tenants.put_project(Project(f"{name}-web", name))
    await front.house.copy.refresh()
    key = await front.house.key(Role.ADMIN, tenant="acme-web", organization="acme")
    _, foreign = await front.house.key_and_record(tenant="rival-web", organization="rival")
    assert (await admin("POST", "/admin/keys", key, json={"project": "acme-web"})).status_code == 200
    for project in ("rival-web", "default"):
        assert (await admin("POST", "/admin/keys", key, json={"project": project})).status_code == 403
    listed = (await admin("GET", "/admin/keys", key)).json()["data"]
    assert {one["organization"] for one in listed} == {"acme"}
    assert (await admin("DELETE", f"/admin/keys/{foreign.key_id}", key)).status_code == 404
    assert (await front.house.keys.lookup(foreign.digest)).revoked_at is None
    tenants = (await admin("GET", "/admin/tenants", key)).json()
    assert [one["name"] for one in tenants["projects"]] == ["acme-web"]
    assert (await admin("PUT", "/admin/organizations/acme", key, json={})).status_code == 403
    assert (await admin("PUT", "/admin/projects/acme-web", key, json={"organization": "acme"})).status_code == 200
    assert (await admin("GET", "/metrics", key)).status_code == 403
    assert (await admin("PUT", "/admin/projects/x", key, json={"organization": "rival"})).status_code == 403
    assert (await admin("GET", "/admin/audit", key)).status_code == 403
    await admin("POST", "/v1/completions", json={"model": "small", "prompt": "x"})
    assert (await admin("GET", "/admin/usage", key)).json()["data"] == []


async def test_nobody_takes_over_what_another_organization_uses(front, admin):
    """A name that nobody declared is the mesh's own organization's, with what is kept under it; one with keys stays."""
    await front.house.tenants.put_organization(Organization("acme"))
    await front.house.tenants.put_project(Project("acme-web", "acme"))
    await front.house.copy.refresh()
    key = await front.house.key(Role.ADMIN, tenant="acme-web", organization="acme")
    await front.house.key_and_record(tenant="rid")
    for name in ("rid", "default", "free"):
        taken = await admin("PUT", f"/admin/projects/{name}", key, json={"organization": "acme"})
        assert (taken.status_code, taken.json()["error"]["reason"]) == (403, "ROLE_INSUFFICIENT")
    for name in ("rid", "default"):
        moved = await admin("PUT", f"/admin/projects/{name}", json={"organization": "acme"})
        assert (moved.status_code, moved.json()["error"]["reason"]) == (409, "CONFIG_CONFLICT")
    assert (await admin("PUT", "/admin/projects/free", json={"organization": "acme"})).status_code == 200
    assert (await admin("PUT", "/admin/projects/rid", json={"limits": {"requests_per_minute": 9}})).status_code == 200
    declared = {one["name"]: one["organization"] for one in (await admin("GET", "/admin/tenants")).json()["projects"]}
    assert declared == {"acme-web": "acme", "free": "acme", "rid": "default"}


async def test_keys_are_their_projects_whatever_was_written_when_they_were_made(front, admin):
    """Its organization's administrators see them and end them."""
    await front.house.tenants.put_project(Project("web", "acme"))
    await front.house.copy.refresh()
    key = await front.house.key(Role.ADMIN, tenant="web", organization="acme")
    _, older = await front.house.key_and_record(tenant="web")
    assert older.organization == "default"
    listed = {one["id"]: one["organization"] for one in (await admin("GET", "/admin/keys", key)).json()["data"]}
    assert listed[older.key_id] == "acme"
    assert (await admin("DELETE", f"/admin/keys/{older.key_id}", key)).status_code == 200


async def test_usage_is_priced_and_comes_as_json_and_csv(fronts_on):
    """By whatever is asked; the cost is exact to the nano-unit, and a name is never a formula."""
    house = MemoryHouse(saying("hello"))
    house.catalog.publish(small_catalog(small_lane(version="v7", price=Price(150_000, 75_000, 600_000))))
    async with fronts_on(house) as front:
        headers = {"authorization": f"Bearer {await house.key(Role.ADMIN, tenant='=web')}"}
        for _ in range(3):
            body = {"model": "small", "prompt": "four"}
            assert (await front.http.post("/v1/completions", json=body, headers=headers)).status_code == 200
        cost = 3 * (4 * 150 + 6 * 600)  # nano-units: five letters and the end
        for by, name in (("project", "=web"), ("model", "small"), ("version", "v7"), ("organization", "default")):
            (row,) = (await front.http.get(f"/admin/usage?by={by}", headers=headers)).json()["data"]
            assert row == {
                "name": name, "lines": 3, "prompt_tokens": 12, "cached_tokens": 0, "completion_tokens": 18,
                "nano": cost, "cost": f"0.{cost:09d}",
            }  # fmt: skip
        answer = await front.http.get("/admin/usage?by=project&format=csv", headers=headers)
        assert answer.headers["content-type"].startswith("text/csv")
        head, line = csv.reader(io.StringIO(answer.text))
        assert head[0] == "project"
        assert line[:6] == ["'=web", "3", "12", "0", "18", f"0.{cost:09d}"]


async def test_every_act_is_audited_before_and_after(front, admin):
    """Who, what, on what, how it ended; no key, and a chain without faults."""
    made = (await admin("POST", "/admin/keys", json={"name": "secret plan"})).json()
    await admin("DELETE", f"/admin/keys/{made['id']}")
    await admin("PUT", "/admin/organizations/acme", json={"limits": {"tokens_per_day": 5}})
    await front.house.tenants.put_project(Project("web", "rival"))
    await admin("PUT", "/admin/projects/web", json={"organization": "acme"})
    answer = await admin("GET", "/admin/audit?count=1000")
    acts = [(one["action"], one["outcome"]) for one in answer.json()["data"]]
    assert acts == [
        ("key.create", "begun"), ("key.create", "done"),
        ("key.revoke", "begun"), ("key.revoke", "done"),
        ("organization.put", "begun"), ("organization.put", "done"),
        ("project.put", "begun"), ("project.put", "failed: ProjectMoved"),
    ]  # fmt: skip
    assert all(one["actor"].startswith("key_") for one in answer.json()["data"])
    assert made["key"] not in answer.text
    plain = {"role": "app", "project": "default", "models": []}
    assert answer.json()["data"][0]["facts"] == plain
    wish = {
        "abilities": ["inference"],
        "limits": {"tokens_per_day": 5},
        "unknown": "warn",
        "shadow": False,
        "expires_days": 2,
    }
    bound = (await admin("POST", "/admin/keys", json=wish)).json()
    logged = (await admin("GET", "/admin/audit?first=9&count=1")).json()["data"][0]
    shown = {name: bound[name] for name in ("abilities", "limits", "expires_at", "unknown", "shadow")}
    assert (logged["target"], logged["facts"]) == (bound["id"], plain | shown)
    assert bound["key"] not in str(logged)
    audit = front.house.audit
    assert find_faults(await audit.entries(), await audit.head(), SECRET) == []


async def test_nothing_happens_that_cannot_be_audited(front, admin):
    """While the log is away no key is made."""
    from serin_gateway.keys import KeyStoreDown

    async def down(*_, **__):
        raise KeyStoreDown("away")

    before = len(await front.house.keys.list())
    front.house.audit.append = down
    answer = await admin("POST", "/admin/keys", json={})
    assert (answer.status_code, answer.json()["error"]["reason"]) == (503, "AUTH_UNAVAILABLE")
    assert len(await front.house.keys.list()) == before


def test_limits_in_use():
    """What is shown of a key's limits is what holds."""
    assert Limits.read({"requests_per_minute": 1, "from the future": 2}) == Limits(1)
