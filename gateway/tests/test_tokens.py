"""Tokens of declared issuers: who is let in, and every way to be refused; keys come from a real server."""

import base64
import dataclasses
import hashlib
import hmac
import http.server
import json
import threading
import time

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey
from serin_gateway.keys import MemoryKeyStore, Role
from serin_gateway.keys import jwks as jwks_module
from serin_gateway.keys.authenticator import Authenticator
from serin_gateway.keys.issuer import TokenIssuer
from serin_gateway.keys.jwks import AGAIN_S, FRESH_S, STALE_S, JwksCache, KeysUnknown
from serin_gateway.keys.tenants import MemoryTenantStore, Project, Tenants
from serin_gateway.keys.tokens import MAX_TOKEN_LENGTH, SKEW_S, Tokens
from serin_gateway.limits.limiter import Limits
from serin_mesh.errors import MeshError, Reason

ISSUER = "https://login.example"
RSA = RSAKey.generate_key(2048, {"kid": "rsa-1", "use": "sig"})
EC = ECKey.generate_key("P-256", {"kid": "ec-1", "use": "sig"})
STRANGER = RSAKey.generate_key(2048, {"kid": "rsa-1"})


class Jwks(http.server.BaseHTTPRequestHandler):
    """Serves the keys that its server holds, and counts."""

    def do_GET(self) -> None:
        """The set."""
        self.server.num_fetched += 1
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("location", "/keys")
            self.end_headers()
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.server.content)

    def log_message(self, *_) -> None:
        """Say nothing."""


def content(*keys) -> bytes:
    """A set of public keys."""
    return json.dumps({"keys": [key.as_dict(private=False) for key in keys]}).encode()


@pytest.fixture
def server():
    """A server of keys on a free port."""
    serving = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Jwks)
    serving.content, serving.num_fetched = content(RSA, EC), 0
    thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    serving.url = f"http://127.0.0.1:{serving.server_port}/keys"
    yield serving
    serving.shutdown()
    serving.server_close()
    thread.join()


def issuer(server, **options) -> TokenIssuer:
    """The issuer, declared."""
    defaults = {"project_claim": "project", "role_claim": "groups", "roles": {"ops": Role.OPERATOR, "root": Role.ADMIN}}
    return TokenIssuer(ISSUER, "serin", server.url, **(defaults | options))


def claims(**changes) -> dict:
    """What a good token says; None leaves a claim out."""
    good = {
        "iss": ISSUER,
        "aud": "serin",
        "sub": "ada",
        "exp": time.time() + 600,
        "nbf": time.time() - 5,
        "project": "web",
    }
    return {name: value for name, value in (good | changes).items() if value is not None}


def token(key=RSA, algorithm: str = "RS256", head: dict | None = None, **changes) -> str:
    """A signed token."""
    kid = {"kid": key.kid} if key.kid else {}
    return jwt.encode({"alg": algorithm, **kid, **(head or {})}, claims(**changes), key, algorithms=[algorithm])


def encoded(part: dict) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize(("key", "algorithm"), [(RSA, "RS256"), (EC, "ES256")])
async def test_a_good_token_names_its_caller(server, key, algorithm):
    """Project, role and a name that can be logged; the limits are the project's."""
    store = MemoryTenantStore()
    await store.put_project(Project("web", "acme", Limits(tokens_per_day=5)))
    tenants = Tenants(store)
    await tenants.refresh()
    tokens = Tokens(lambda: [issuer(server)])
    authenticator = Authenticator(MemoryKeyStore(), b"s" * 32, tenants=tenants, tokens=tokens)
    caller = await authenticator.identify(token(key, algorithm, groups=["staff", "ops"]))
    assert (caller.tenant, caller.organization, caller.role) == ("web", "acme", Role.OPERATOR)
    assert caller.key_id.startswith("ada@")
    assert caller.project_limits == Limits(tokens_per_day=5)
    assert server.num_fetched == 1


def by_hand(head: dict, sign) -> str:
    """A token that no honest library makes."""
    text = f"{encoded(head)}.{encoded(claims())}"
    return f"{text}.{base64.urlsafe_b64encode(sign(text.encode())).rstrip(b'=').decode()}"


def unsigned(algorithm: str = "none", **changes) -> str:
    """A token without a signature."""
    return f"{encoded({'alg': algorithm, 'kid': 'rsa-1'})}.{encoded(claims(**changes))}."


def altered() -> str:
    """A good token whose claims were changed afterwards."""
    head, _, signature = token().split(".")
    return f"{head}.{encoded(claims(groups='root'))}.{signature}"


def confused() -> str:
    """Signed with the public key as if it were a secret."""
    secret = RSA.as_pem(private=False)
    return by_hand({"alg": "HS256", "kid": "rsa-1"}, lambda text: hmac.new(secret, text, hashlib.sha256).digest())


def critical() -> str:
    """Well signed, with an extension that whoever does not know it must refuse."""
    sign = RSA.private_key.sign
    head = {"alg": "RS256", "kid": "rsa-1", "crit": ["exp"]}
    return by_hand(head, lambda text: sign(text, padding.PKCS1v15(), hashes.SHA256()))


ATTACKS = {
    "alg none": lambda: unsigned(),
    "alg None": lambda: unsigned("None"),
    "no signature": lambda: unsigned("RS256"),
    "HS256 with the public key": confused,
    "altered": altered,
    "signed by a stranger under a known kid": lambda: token(STRANGER),
    "an algorithm that is not declared": lambda: token(algorithm="RS512"),
    "RS256 by the name of an EC key": lambda: token(RSA, head={"kid": "ec-1"}),
    "expired": lambda: token(exp=time.time() - SKEW_S - 5, nbf=time.time() - 900),
    "never expires": lambda: token(exp=None),
    "expires at a word": lambda: token(exp="tomorrow"),
    "not yet": lambda: token(nbf=time.time() + SKEW_S + 30),
    "another audience": lambda: token(aud="others"),
    "audiences of others": lambda: token(aud=["a", "b"]),
    "no audience": lambda: token(aud=None),
    "another issuer": lambda: token(iss="https://evil.example"),
    "no issuer": lambda: token(iss=None),
    "no subject": lambda: token(sub=None),
    "no project": lambda: token(project=None),
    "a project that is no name": lambda: token(project="../web"),
    "critical extensions": critical,
    "its own key in the head": lambda: token(STRANGER, head={"jwk": STRANGER.as_dict(private=False), "kid": "x"}),
    "a URL in the head": lambda: token(STRANGER, head={"jku": "http://127.0.0.1:1/keys", "kid": "x"}),
    "huge": lambda: token(padding="x" * MAX_TOKEN_LENGTH),
    "not base64": lambda: "eyJ!.eyJ!.x",
    "a list": lambda: f"eyJ.{encoded(claims())}.x",
}


@pytest.mark.parametrize("attack", ATTACKS)
async def test_every_attack_is_refused(server, attack):
    """KEY_INVALID, whatever is tried; and what it says never quotes the token."""
    shown = ATTACKS[attack]()
    with pytest.raises(MeshError) as refusal:
        await Tokens(lambda: [issuer(server)]).read(shown)
    assert refusal.value.reason is Reason.KEY_INVALID
    assert shown[:40] not in refusal.value.message


async def test_clocks_may_differ_by_a_minute(server):
    """Both ways, and no more (the attacks above are beyond it)."""
    tokens = Tokens(lambda: [issuer(server)])
    for shown in (token(exp=time.time() - SKEW_S + 20, nbf=time.time() - 900), token(nbf=time.time() + SKEW_S - 20)):
        assert (await tokens.read(shown)).project == "web"


async def test_claims_mean_what_was_declared(server):
    """Roles: the highest, and app without one; a project and an organization of the issuer's own."""
    tokens = Tokens(lambda: [issuer(server)])
    for groups, role in (
        (None, Role.APP), ("ops", Role.OPERATOR), (["ops", "root"], Role.ADMIN), (["x", 3, None], Role.APP),
        ("admin", Role.APP), ({"root": 1}, Role.APP),
    ):  # fmt: skip
        assert (await tokens.read(token(groups=groups))).role is role
    fixed = Tokens(lambda: [issuer(server, project_claim="", project="shared", organization_claim="org")])
    claimed = await fixed.read(token(org="acme"))
    assert (claimed.project, claimed.organization) == ("shared", "acme")
    with pytest.raises(MeshError, match="names no organization"):
        await fixed.read(token())


async def test_a_project_that_cannot_be_read_is_not_the_default_one(server):
    """That is whose token names none; one that names several, or nothing, is refused."""
    tokens = Tokens(lambda: [issuer(server, project="shared")])
    assert (await tokens.read(token(project=None))).project == "shared"
    assert (await tokens.read(token(project="web"))).project == "web"
    for named in (["web"], "", 7, {"name": "web"}):
        with pytest.raises(MeshError, match="names no project"):
            await tokens.read(token(project=named))


async def test_no_other_claim_narrows_a_caller(server):
    """As documented: a token may what its role may, at every model; whoever is to be narrower gets a key."""
    authenticator = Authenticator(MemoryKeyStore(), b"s" * 32, tokens=Tokens(lambda: [issuer(server)]))
    caller = await authenticator.identify(token(models=["small"], abilities=["models"], scope="models"))
    assert (caller.models, caller.abilities, caller.limits, caller.unknown) == ((), (), None, "refuse")


async def test_a_project_of_another_organization_is_refused(server):
    """The issuer vouches for an organization; the project's own one counts."""
    store = MemoryTenantStore()
    await store.put_project(Project("web", "acme"))
    tenants = Tenants(store)
    await tenants.refresh()
    declared = issuer(server, organization_claim="org")
    authenticator = Authenticator(MemoryKeyStore(), b"s" * 32, tenants=tenants, tokens=Tokens(lambda: [declared]))
    assert (await authenticator.identify(token(org="acme"))).organization == "acme"
    with pytest.raises(MeshError, match="another organization"):
        await authenticator.identify(token(org="rival"))


async def test_what_nobody_declared_is_of_the_meshs_own_organization(server):
    """Whatever that is called: projects of tokens that name none, and callers without a key."""
    tokens = Tokens(lambda: [issuer(server)])
    authenticator = Authenticator(MemoryKeyStore(), b"s" * 32, tokens=tokens, home="acme")
    assert (await authenticator.identify(token())).organization == "acme"
    assert authenticator.anonymous.organization == "acme"


async def test_without_issuers_no_token_is_believed():
    """Whatever it says."""
    with pytest.raises(MeshError, match="not declared"):
        await Tokens().read(token())


async def test_rotated_keys_are_found_and_a_flood_of_unknown_ones_is_not(server):
    """A new key is fetched when it is first seen; a thousand invented names cause no further call."""
    tokens = Tokens(lambda: [issuer(server)])
    await tokens.read(token())
    cache = tokens._caches[server.url]
    cache._tried_at -= AGAIN_S
    fresh = RSAKey.generate_key(2048, {"kid": "rsa-2", "use": "sig"})
    server.content = content(fresh)
    assert (await tokens.read(token(fresh))).project == "web"
    assert server.num_fetched == 2
    for number in range(1000):
        with pytest.raises(MeshError):
            await tokens.read(unsigned("RS256").replace(encoded({"alg": "RS256", "kid": "rsa-1"}), _named(number)))
    with pytest.raises(MeshError):  # what was rotated out is gone
        await tokens.read(token())
    assert server.num_fetched == 2


def _named(number: int) -> str:
    return encoded({"alg": "RS256", "kid": f"invented-{number}"})


async def test_keys_go_on_for_an_hour_without_their_issuer():
    """Fetched again after a while; while that fails the old ones hold, and in the end nobody knows."""
    now, answers = 0.0, [content(RSA)]

    def fetch(url: str) -> bytes:
        if not answers:
            raise OSError("away")
        return answers.pop()

    cache = JwksCache("https://keys", fetch, clock=lambda: now)
    assert await cache.find("rsa-1")
    now = FRESH_S + 1
    assert await cache.find("rsa-1")
    await cache._fetching
    now = STALE_S - 1
    assert await cache.find("rsa-1")
    now = STALE_S + 1
    with pytest.raises(KeysUnknown):
        await cache.find("rsa-1")
    answers.append(content(RSA))
    now += AGAIN_S
    assert await cache.find("rsa-1")


class Issuer:
    """Its keys by name, on a clock moved by hand; away, while there are none."""

    def __init__(self, *names: str) -> None:
        self.now, self.names, self.num_asked = 1000.0, list(names), 0
        self.cache = JwksCache("https://keys", self._fetch, clock=lambda: self.now)

    def _fetch(self, url: str) -> bytes:
        self.num_asked += 1
        if not self.names:
            raise OSError("away")
        return json.dumps({"keys": [{"kid": name} for name in self.names]}).encode()

    async def outcome(self, name: str) -> bool | int:
        """Whether it is found; or in how many seconds that may be known."""
        try:
            return await self.cache.find(name) is not None
        except KeysUnknown as unknown:
            return unknown.again_s


async def test_nobody_knows_a_new_key_while_the_issuer_is_away():
    """Not whether it is wrong; it is asked again every ten seconds, whoever asks here."""
    one = Issuer("a")
    assert await one.outcome("a")
    one.names, one.now = [], one.now + AGAIN_S
    assert [await one.outcome("b"), await one.outcome("c")] == [10, 10]
    one.now += 4
    assert [await one.outcome("b"), await one.outcome("a")] == [6, True]
    assert one.num_asked == 2
    one.names, one.now = ["a", "b"], one.now + 6
    assert [await one.outcome("b"), await one.outcome("c")] == [True, False]
    assert one.num_asked == 3


async def test_an_issuer_that_never_answered_is_unavailable_not_wrong(server):
    """503, so that nobody throws a good token away; a redirect is no answer, nor is a flood of bytes."""
    for url in ("http://127.0.0.1:1/keys", server.url.replace("/keys", "/moved")):
        with pytest.raises(MeshError) as refusal:
            await Tokens(lambda url=url: [dataclasses.replace(issuer(server), jwks_url=url)]).read(token())
        assert refusal.value.reason is Reason.AUTH_UNAVAILABLE
    server.content = b"x" * (jwks_module.MAX_BYTES + 1)
    with pytest.raises(MeshError) as refusal:
        await Tokens(lambda: [issuer(server)]).read(token())
    assert refusal.value.reason is Reason.AUTH_UNAVAILABLE
