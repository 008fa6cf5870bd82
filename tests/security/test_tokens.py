"""Tokens (JWT) that lie about who signed them, over both doors of a gateway that believes one issuer."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import grpc
import pytest
import pytest_asyncio
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey
from security.attack import Attack, Rest, Rpc, chat, generate
from security.doors import Doors, open_doors
from serin_gateway.keys import MemoryKeyStore, Role
from serin_gateway.keys.authenticator import Authenticator
from serin_gateway.keys.issuer import TokenIssuer
from serin_gateway.keys.tokens import SKEW_S, Tokens
from serin_gateway.testing import SECRET

pytestmark = pytest.mark.asyncio(loop_scope="module")

ISSUER = "https://login.example"
OURS = RSAKey.generate_key(2048, {"kid": "rsa-1", "use": "sig"})
CURVE = ECKey.generate_key("P-256", {"kid": "ec-1", "use": "sig"})
THEIRS = RSAKey.generate_key(2048, {"kid": "rsa-1"})
KEYS = {"keys": [OURS.as_dict(private=False), CURVE.as_dict(private=False)]}


def claims(**changes: Any) -> dict[str, Any]:
    """What a good token says; None leaves a claim out."""
    now = time.time()
    good = {"iss": ISSUER, "aud": "serin", "sub": "ada", "exp": now + 600, "nbf": now - 5, "project": "web"}
    return {name: value for name, value in (good | changes).items() if value is not None}


def signed(key: Any = OURS, algorithm: str = "RS256", head: dict[str, Any] | None = None, **changes: Any) -> str:
    """A token signed by a key."""
    return jwt.encode({"alg": algorithm, "kid": "rsa-1", **(head or {})}, claims(**changes), key, [algorithm])


def part(value: Any) -> str:
    """A part of a token."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def unsigned(head: Any, signature: str = "", **changes: Any) -> str:
    """A token that nobody signed."""
    return f"{part(head)}.{part(claims(**changes))}.{signature}"


def by_public_key() -> str:
    """HS256 with the public key as its secret."""
    text = unsigned({"alg": "HS256", "kid": "rsa-1"})[:-1]
    made = hmac.new(OURS.as_pem(private=False), text.encode(), hashlib.sha256).digest()
    return f"{text}.{base64.urlsafe_b64encode(made).rstrip(b'=').decode()}"


def changed(**changes: Any) -> str:
    """A good token, changed after it was signed."""
    head, _, signature = signed().split(".")
    return f"{head}.{part(claims(**changes))}.{signature}"


FORGED: dict[str, Callable[[], str]] = {
    "alg none": lambda: unsigned({"alg": "none"}),
    "alg NONE": lambda: unsigned({"alg": "NONE", "kid": "rsa-1"}),
    "alg empty": lambda: unsigned({"alg": "", "kid": "rsa-1"}),
    "alg a list": lambda: unsigned({"alg": ["RS256"], "kid": "rsa-1"}),
    "no alg": lambda: unsigned({"kid": "rsa-1"}),
    "no signature": lambda: unsigned({"alg": "RS256", "kid": "rsa-1"}),
    "a signature of zeros": lambda: unsigned({"alg": "ES256", "kid": "ec-1"}, "A" * 86),
    "HS256 with the public key": by_public_key,
    "changed": lambda: changed(role="admin"),
    "changed project": lambda: changed(project="other"),
    "another's signature": lambda: signed(THEIRS),
    "its own key": lambda: signed(THEIRS, head={"jwk": THEIRS.as_dict(private=False)}),
    "its own certificate": lambda: signed(THEIRS, head={"x5c": ["MIIB"]}),
    "a place of keys": lambda: signed(THEIRS, head={"jku": "http://127.0.0.1:1/keys"}),
    "a place of certificates": lambda: signed(THEIRS, head={"x5u": "http://169.254.169.254/"}),
    "kid a path": lambda: signed(THEIRS, head={"kid": "../../../../dev/null"}),
    "kid SQL": lambda: signed(THEIRS, head={"kid": "x' UNION SELECT 'key';--"}),
    "kid a command": lambda: signed(THEIRS, head={"kid": "/bin/sh|id"}),
    "kid an object": lambda: unsigned({"alg": "RS256", "kid": {"$ne": ""}}),
    "kid of 5 kB": lambda: signed(THEIRS, head={"kid": "k" * 5000}),
    "a key of another kind": lambda: signed(head={"kid": "ec-1"}),
    "critical": lambda: unsigned({"alg": "RS256", "kid": "rsa-1", "crit": ["exp"]}, "x"),
    "another issuer": lambda: signed(iss="https://evil.example"),
    "an issuer that begins like ours": lambda: signed(iss=f"{ISSUER}.evil.example"),
    "issuers": lambda: unsigned({"alg": "RS256"}, "x", iss=[ISSUER]),
    "no issuer": lambda: signed(iss=None),
    "another audience": lambda: signed(aud="others"),
    "no audience": lambda: signed(aud=None),
    "an audience that begins like ours": lambda: signed(aud="serin2"),
    "expired": lambda: signed(exp=time.time() - SKEW_S - 5, nbf=0),
    "never ends": lambda: signed(exp=None),
    "ends in words": lambda: signed(exp="never"),
    "ends at infinity": lambda: signed(exp=1e300),
    "ends at true": lambda: signed(exp=True),
    "not yet": lambda: signed(nbf=time.time() + SKEW_S + 60),
    "nobody": lambda: signed(sub=None),
    "somebody who is an object": lambda: (
        signed(sub={"x": 1}) if False else unsigned({"alg": "RS256"}, "x", sub={"x": 1})
    ),
    "a project that is a path": lambda: signed(project="../default"),
    "a project that is a pattern": lambda: signed(project="*"),
    "no project": lambda: signed(project=None),
    "parts that are no base64": lambda: "eyJ!!.eyJ!!.!!",
    "two dots of nothing": lambda: "eyJ..",
    "deep claims": lambda: f"{part({'alg': 'RS256'})}.{base64.urlsafe_b64encode(b'[' * 3000).decode()}.x",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def doors():
    """A gateway that believes one issuer, whose keys need no network."""
    issuer = TokenIssuer(ISSUER, "serin", "http://keys", project_claim="project", role_claim="role",
                         roles={"admin": Role.ADMIN})  # fmt: skip
    tokens = Tokens(lambda: [issuer], fetch=lambda url: json.dumps(KEYS).encode())
    keys = MemoryKeyStore()
    async with open_doors(authenticator=Authenticator(keys, SECRET, tokens=tokens)) as opened:
        yield opened


def by(token: str) -> list[Rest | Rpc]:
    """The same question with a token, over both doors."""
    asked = chat(model="small")
    return [replace(asked, key=token), replace(generate(model="small"), key=token)]


@pytest.mark.parametrize("name", FORGED)
async def test_no_forged_token_is_believed(doors: Doors, name: str):
    """401 and UNAUTHENTICATED, KEY_INVALID, and nothing of the token in the answer."""
    token = FORGED[name]()
    for attempt in by(token):
        outcome = await doors.senders.send(Attack("tokens", name, attempt))
        assert outcome.status in (401, grpc.StatusCode.UNAUTHENTICATED)
        assert outcome.reason == "KEY_INVALID"
        assert token[:30] not in outcome.message


async def test_a_good_token_is(doors: Doors):
    """Else the test above would prove nothing."""
    for key, algorithm, kid in ((OURS, "RS256", "rsa-1"), (CURVE, "ES256", "ec-1")):
        for attempt in by(signed(key, algorithm, {"kid": kid})):
            outcome = await doors.senders.send(Attack("tokens", "good", attempt))
            assert outcome.status in (200, grpc.StatusCode.OK), outcome.message
    assert doors.house.journal.receipts[-1].tenant == "web"
