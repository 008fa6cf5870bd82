"""API keys: what one is, how it is minted, and the digest it is stored by.

A key belongs to a *project*, a project to an *organization*. A project is what the rest of the mesh calls a tenant: it
owns its cached work and its requests' records, so the stored member is still called ``tenant``. Knows nothing about
where keys are stored, nor about requests.
"""

import enum
import hashlib
import hmac
import json
import secrets
import string
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from serin_gateway.limits.limiter import Limits

DEFAULT_ORGANIZATION = "default"
"""Whose a mesh and everything in it is, where nobody says otherwise."""
DEFAULT_PROJECT = "default"
"""Whose a key is, where nobody says otherwise."""
KEY_PREFIX = "sk-serin-"
_ALPHABET = string.ascii_letters + string.digits
_KEY_LENGTH = 40  # base62 characters: 238 bits


class Role(enum.StrEnum):
    """What a key may do. Each role may do all that the ones before it may."""

    APP = "app"
    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def covers(self, needed: "Role") -> bool:
        """Whether a key of this role may do what ``needed`` may."""
        return _RANK[self] >= _RANK[needed]


class Ability(enum.StrEnum):
    """What a key can be made for, within its role. A key that names none may do all that its role may."""

    INFERENCE = "inference"
    MODELS = "models"
    FEEDBACK = "feedback"
    MONITORING = "monitoring"
    ADMINISTRATION = "administration"


_RANK = {role: rank for rank, role in enumerate(Role)}


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """Everything known about a key except the key itself.

    Attributes:
        key_id: public name, ``key_…``; safe to show and to log.
        digest: keyed digest of the key, see :func:`key_digest`.
        limits: limits of its own; ``None``: the mesh's defaults.
        unknown: what happens to a parameter nobody knows: refused, or named in a response header.
        created_at, expires_at, revoked_at: Unix seconds.
        shadow: whether answers to it may be scored again in the background, to compare versions.
        tenant: its project; ``organization``: the project's.
        abilities: what it was made for; empty: all that its role may.
        models: the models that it may ask, by their own names; empty: all.
    """

    key_id: str
    digest: str
    name: str
    role: Role
    tenant: str
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None
    limits: Limits | None = None
    unknown: Literal["refuse", "warn"] = "refuse"
    shadow: bool = True
    organization: str = DEFAULT_ORGANIZATION
    abilities: tuple[Ability, ...] = ()
    models: tuple[str, ...] = ()

    def is_valid(self, now: float) -> bool:
        """Whether the key may still be used at Unix time ``now``."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    def revoked(self, now: float) -> "KeyRecord":
        """The same key, revoked; the first revocation counts."""
        return self if self.revoked_at is not None else replace(self, revoked_at=now)

    def shown(self) -> dict[str, Any]:
        """What may be shown of it, as JSON has it."""
        return {
            "object": "key",
            "id": self.key_id,
            "name": self.name,
            "role": self.role.value,
            "project": self.tenant,
            "organization": self.organization,
            "abilities": [ability.value for ability in self.abilities],
            "models": list(self.models),
            "limits": None if self.limits is None else asdict(self.limits),
            "created_at": self.created_at,
            "expires_at": self.expires_at,
            "revoked_at": self.revoked_at,
            "unknown": self.unknown,
            "shadow": self.shadow,
        }

    def to_json(self) -> str:
        """The record as stored."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> "KeyRecord":
        """Read a stored record; members that a newer version wrote are ignored.

        Raises:
            ValueError: not a record.
        """
        try:
            stored: Mapping[str, Any] = json.loads(text)
            known = {name: value for name, value in stored.items() if name in cls.__dataclass_fields__}
            known["role"] = Role(known["role"])
            if known.get("limits") is not None:
                known["limits"] = Limits.read(known["limits"])
            known["abilities"] = tuple(Ability(name) for name in known.get("abilities", ()))
            known["models"] = tuple(known.get("models", ()))
            return cls(**known)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not a key record: {error}") from error


def key_secret(mesh_secret: bytes) -> bytes:
    """The secret that keys are digested with, derived from the mesh's."""
    return hmac.new(mesh_secret, b"serin.api-key", hashlib.sha256).digest()


def key_digest(secret: bytes, key: str) -> str:
    """Hex HMAC-SHA256 of a key. Stolen digests are useless without ``secret``, and looking one up leaks no timing."""
    return hmac.new(secret, key.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def mint_key(
    secret: bytes,
    *,
    role: Role,
    name: str = "",
    tenant: str = DEFAULT_PROJECT,
    limits: Limits | None = None,
    lifetime_s: float | None = None,
    unknown: Literal["refuse", "warn"] = "refuse",
    shadow: bool = True,
    organization: str = DEFAULT_ORGANIZATION,
    abilities: Sequence[Ability] = (),
    models: Sequence[str] = (),
) -> tuple[str, KeyRecord]:
    """A new key, to be shown once, and its record."""
    key = KEY_PREFIX + "".join(secrets.choice(_ALPHABET) for _ in range(_KEY_LENGTH))
    now = time.time()
    record = KeyRecord(
        key_id="key_" + "".join(secrets.choice(_ALPHABET) for _ in range(16)),
        digest=key_digest(secret, key),
        name=name,
        role=role,
        tenant=tenant,
        created_at=now,
        expires_at=None if lifetime_s is None else now + lifetime_s,
        limits=limits,
        unknown=unknown,
        shadow=shadow,
        organization=organization,
        abilities=tuple(abilities),
        models=tuple(models),
    )
    return key, record
