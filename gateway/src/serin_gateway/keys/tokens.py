"""Tokens (JWT, RFC 7519) of declared issuers: who their callers are.

The issuer is chosen by the token, everything else by what was declared for it: which algorithms (asymmetric ones),
whose keys, which audience. Nothing that a token says about how to check it is believed. Knows nothing about requests.
"""

import base64
import binascii
import hashlib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey
from serin_mesh.errors import MeshError, Reason

from serin_gateway.keys.issuer import TokenIssuer
from serin_gateway.keys.jwks import Fetch, JwksCache, KeysUnknown
from serin_gateway.keys.records import Role

MAX_TOKEN_LENGTH = 8192
SKEW_S = 60
_TYPES: Mapping[str, type[RSAKey] | type[ECKey] | type[OKPKey]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
_FAMILIES = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
_SUBJECT = re.compile(r"[A-Za-z0-9._|@-]{1,64}")
_PROJECT = re.compile(r"[a-z0-9._-]{1,64}")


class Claimed:
    """What a token that is valid says about its caller.

    Attributes:
        name: public name, as a key's: the subject and its issuer.
        organization: None: the token does not say.
    """

    def __init__(self, name: str, project: str, organization: str | None, role: Role) -> None:
        self.name = name
        self.project = project
        self.organization = organization
        self.role = role


class Tokens:
    """Checks tokens.

    Args:
        issuers: those that are declared now.
        clock: Unix seconds.
        fetch: gets the content of a URL; another one for tests.
    """

    def __init__(
        self,
        issuers: Callable[[], Sequence[TokenIssuer]] = lambda: (),
        clock: Callable[[], float] = time.time,
        fetch: Fetch | None = None,
    ) -> None:
        self._issuers = issuers
        self._clock = clock
        self._fetch = fetch
        self._caches: dict[str, JwksCache] = {}

    @staticmethod
    def is_token(key: str) -> bool:
        """Whether something shown as a key has the form of a token."""
        return key.startswith("eyJ") and key.count(".") == 2

    async def read(self, token: str) -> Claimed:
        """Who holds a token.

        Raises:
            MeshError: KEY_INVALID, or AUTH_UNAVAILABLE when that cannot be known now.
        """
        if len(token) > MAX_TOKEN_LENGTH:
            raise _invalid(f"is longer than {MAX_TOKEN_LENGTH} characters")
        head, claims = _part(token, 0), _part(token, 1)
        issuer = next((one for one in self._issuers() if one.issuer == claims.get("iss")), None)
        if issuer is None:
            raise _invalid("is of an issuer that is not declared here")
        algorithm, kid = head.get("alg"), head.get("kid", "")
        if not isinstance(algorithm, str) or algorithm not in issuer.algorithms:
            raise _invalid("is signed by an algorithm that is not accepted")
        if not isinstance(kid, str) or "crit" in head or "b64" in head:
            raise _invalid("has a head that is not accepted")
        verified = self._verify(token, algorithm, await self._key(issuer, algorithm, kid))
        self._check_claims(issuer, verified)
        return _claimed(issuer, verified)

    async def _key(self, issuer: TokenIssuer, algorithm: str, kid: str) -> RSAKey | ECKey | OKPKey:
        cache = self._caches.get(issuer.jwks_url)
        if cache is None:
            cache = self._caches[issuer.jwks_url] = JwksCache(issuer.jwks_url, self._fetch)
        try:
            found = await cache.find(kid)
        except KeysUnknown as error:
            raise MeshError(
                Reason.AUTH_UNAVAILABLE,
                "the keys of this token's issuer cannot be fetched at the moment; try again shortly",
                retry_after_s=str(error.again_s),
            ) from error
        kind = _FAMILIES[algorithm[:2]]
        if found is None or found.get("kty") != kind or found.get("alg", algorithm) != algorithm:
            raise _invalid("is signed by a key that was not among its issuer's when they were fetched last")
        try:
            return _TYPES[kind].import_key({name: value for name, value in found.items() if name != "key_ops"})
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise _invalid("is signed by a key of its issuer that cannot be read") from error

    def _verify(self, token: str, algorithm: str, key: RSAKey | ECKey | OKPKey) -> Mapping[str, Any]:
        try:
            claims: Mapping[str, Any] = jwt.decode(token, key, algorithms=[algorithm]).claims
        except (JoseError, ValueError, TypeError) as error:
            raise _invalid("has a signature that does not hold") from error
        return claims

    def _check_claims(self, issuer: TokenIssuer, claims: Mapping[str, Any]) -> None:
        now = self._clock()
        if claims.get("iss") != issuer.issuer:
            raise _invalid("is of another issuer")
        audience = claims.get("aud")
        if issuer.audience not in (audience if isinstance(audience, list) else [audience]):
            raise _invalid("is meant for another audience")
        expires, begins = claims.get("exp"), claims.get("nbf", 0)
        if expires is None or not _is_time(expires) or not _is_time(begins):
            raise _invalid("does not say until when it holds")
        if now >= expires + SKEW_S:
            raise _invalid("has expired; ask its issuer for a new one")
        if now < begins - SKEW_S:
            raise _invalid("does not hold yet")
        if not isinstance(claims.get("sub"), str) or not claims["sub"]:
            raise _invalid("names no subject")


def _claimed(issuer: TokenIssuer, claims: Mapping[str, Any]) -> Claimed:
    project, organization = issuer.project_of(claims), issuer.organization_of(claims)
    if not _PROJECT.fullmatch(project):
        raise _invalid("names no project")
    if organization is not None and not _PROJECT.fullmatch(organization):
        raise _invalid("names no organization")
    subject = claims["sub"]
    digest = hashlib.blake2b(f"{issuer.issuer}\0{subject}".encode(), digest_size=8).hexdigest()
    name = f"{subject}@{digest}" if _SUBJECT.fullmatch(subject) else f"token@{digest}"
    return Claimed(name, project, organization, issuer.role_of(claims))


def _part(token: str, index: int) -> Mapping[str, Any]:
    text = token.split(".")[index]
    try:
        found = orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (binascii.Error, ValueError) as error:
        raise _invalid("cannot be read") from error
    if not isinstance(found, dict):
        raise _invalid("cannot be read")
    return found


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12


def _invalid(why: str) -> MeshError:
    return MeshError(Reason.KEY_INVALID, f"this token {why}")
