"""Who is calling: from a key to a caller, also while the key store is down.

A key that the store has confirmed within `FRESH_S` is believed without asking again, so a revocation takes effect
within that time on every gateway. While the store is down, keys confirmed within `COPY_S` go on working from a bounded
local copy; for all others it is unknown who they are, which is AUTH_UNAVAILABLE, never "wrong key". Knows nothing about
requests or headers.
"""

import asyncio
import contextlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Literal

from serin_mesh.errors import MeshError, Reason

from serin_gateway.keys.records import DEFAULT_ORGANIZATION, Ability, KeyRecord, Role, key_digest
from serin_gateway.keys.store import KeyStore, KeyStoreDown
from serin_gateway.keys.tenants import MemoryTenantStore, Tenants
from serin_gateway.keys.tokens import Tokens
from serin_gateway.limits.limiter import Limits, Scope

FRESH_S = 0.5
COPY_S = 300.0
COPY_PATIENCE_S = 0.05
"""A key that was confirmed before waits so long for the store; others wait as long as the store may take."""
KEPT_S = 3600.0
MAX_COPIES = 10_000
MAX_KEY_LENGTH = 256


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is calling and what they may do; ``limits`` None: the mesh's defaults; the rest: see `KeyRecord`."""

    key_id: str
    tenant: str
    role: Role
    limits: Limits | None = None
    unknown: Literal["refuse", "warn"] = "refuse"
    shadow: bool = True
    organization: str = DEFAULT_ORGANIZATION
    abilities: Collection[Ability] = ()
    models: Collection[str] = ()
    project_limits: Limits = field(default_factory=Limits)
    organization_limits: Limits = field(default_factory=Limits)

    def may(self, ability: Ability) -> bool:
        """Whether it was made for this."""
        return not self.abilities or ability in self.abilities

    def may_ask(self, model: str) -> bool:
        """Whether it may know of a model, by the model's own name."""
        return not self.models or model in self.models

    def scopes(self, model: str, model_limits: Limits, default_limits: Limits) -> list[Scope]:
        """Whose limits its requests to a model count against."""
        return [
            Scope("key", self.key_id, default_limits if self.limits is None else self.limits),
            Scope("project", self.tenant, self.project_limits),
            Scope("organization", self.organization, self.organization_limits),
            Scope("model", model, model_limits),
        ]


ANONYMOUS = Caller(key_id="anonymous", tenant="anonymous", role=Role.APP)


@dataclass(slots=True)
class _Copy:
    record: KeyRecord
    confirmed_at: float
    used_at: float


class Authenticator:
    """Turns keys into callers.

    Args:
        store: where keys are.
        secret: what keys are digested with.
        clock: seconds that only go forward; another one for tests.
        tenants: projects and organizations, with their limits.
        tokens: reads tokens of declared issuers.
        home: the mesh's own organization: whose callers without a key are, and projects that nobody declared.
    """

    def __init__(
        self,
        store: KeyStore,
        secret: bytes,
        clock: Callable[[], float] = time.monotonic,
        tenants: Tenants | None = None,
        tokens: Tokens | None = None,
        home: str = DEFAULT_ORGANIZATION,
    ) -> None:
        self.anonymous = replace(ANONYMOUS, organization=home)
        """Who shows no key, where such callers are let in."""
        self._home = home
        self._tokens = tokens or Tokens()
        self._tenants = tenants or Tenants(MemoryTenantStore())
        self._store = store
        self._secret = secret
        self._clock = clock
        self._copies: OrderedDict[str, _Copy] = OrderedDict()
        self._asking: dict[str, asyncio.Task[KeyRecord | None]] = {}
        self._silent_since: float | None = None

    @property
    def stale_s(self) -> float:
        """Seconds since the store was first asked in vain; 0: it answered when it was asked last."""
        return 0.0 if self._silent_since is None else self._clock() - self._silent_since

    async def identify(self, key: str | None) -> Caller:
        """The caller that holds this key.

        Raises:
            MeshError: KEY_MISSING, KEY_INVALID, or AUTH_UNAVAILABLE when that cannot be known now.
        """
        if not key:
            raise MeshError(Reason.KEY_MISSING, "no API key: send it as `Authorization: Bearer sk-serin-…`")
        if self._tokens.is_token(key):
            return await self._bearer(key)
        if len(key) > MAX_KEY_LENGTH:
            raise _wrong_key()
        digest = key_digest(self._secret, key)
        record = await self._find(digest)
        if record is None or not hmac.compare_digest(record.digest, digest):
            raise _wrong_key()
        if not record.is_valid(time.time()):
            what = "was revoked" if record.revoked_at is not None else "has expired"
            raise MeshError(Reason.KEY_INVALID, f"this API key ({record.key_id}) {what}; ask for a new one")
        project = self._tenants.project(record.tenant, record.organization)
        return Caller(
            record.key_id,
            record.tenant,
            record.role,
            record.limits,
            record.unknown,
            record.shadow,
            project.organization,
            record.abilities,
            record.models,
            project.limits,
            self._tenants.organization(project.organization).limits,
        )

    async def _bearer(self, token: str) -> Caller:
        """The caller that holds a token: of the project that its issuer vouches for."""
        claimed = await self._tokens.read(token)
        project = self._tenants.project(claimed.project, claimed.organization or self._home)
        if claimed.organization not in (None, project.organization):
            raise MeshError(Reason.KEY_INVALID, "this token names a project of another organization")
        return Caller(
            claimed.name,
            project.name,
            claimed.role,
            organization=project.organization,
            project_limits=project.limits,
            organization_limits=self._tenants.organization(project.organization).limits,
        )

    async def _find(self, digest: str) -> KeyRecord | None:
        copy = self._copies.get(digest)
        now = self._clock()
        if copy is not None:
            copy.used_at = now
            if now - copy.confirmed_at < FRESH_S:
                return copy.record
        try:
            return await asyncio.wait_for(self._ask(digest, now), None if copy is None else COPY_PATIENCE_S)
        except (KeyStoreDown, TimeoutError) as error:
            if copy is not None and now - copy.confirmed_at < COPY_S:
                return copy.record
            raise MeshError(
                Reason.AUTH_UNAVAILABLE, "keys cannot be checked at the moment; try again shortly", retry_after_s="2"
            ) from error

    async def _ask(self, digest: str, now: float) -> KeyRecord | None:
        """Ask the store, once for all who want to know the same at the same time."""
        asking = self._asking.get(digest)
        if asking is None:
            asking = self._asking[digest] = asyncio.create_task(self._look_up(digest))
            asking.add_done_callback(lambda done: self._asked(digest, done, now))
        return await asyncio.shield(asking)

    def _asked(self, digest: str, done: "asyncio.Task[KeyRecord | None]", now: float) -> None:
        """Remember the answer, also one that came too late for whoever asked: a copy did for them."""
        self._asking.pop(digest, None)
        if not done.cancelled() and done.exception() is None:
            self._remember(digest, done.result(), now)

    async def _look_up(self, digest: str) -> KeyRecord | None:
        try:
            record = await self._store.lookup(digest)
        except KeyStoreDown:
            if self._silent_since is None:
                self._silent_since = self._clock()
            raise
        self._silent_since = None
        return record

    def _remember(self, digest: str, record: KeyRecord | None, now: float) -> None:
        if record is None:
            self._copies.pop(digest, None)
            return
        self._copies[digest] = _Copy(record, now, now)
        self._copies.move_to_end(digest)
        if len(self._copies) > MAX_COPIES:
            self._copies.popitem(last=False)

    async def refresh(self) -> None:
        """Confirm all copies again, so that whoever asked within `KEPT_S` is known when an outage begins."""
        if not self._copies and self._silent_since is not None:
            with contextlib.suppress(KeyStoreDown):
                await self._look_up("")  # only to know whether it answers again
        for digest, copy in list(self._copies.items()):
            now = self._clock()
            if now - copy.used_at >= KEPT_S:
                self._copies.pop(digest, None)
                continue
            try:
                record = await self._look_up(digest)
            except KeyStoreDown:
                return
            if record is None:
                self._copies.pop(digest, None)
            else:
                copy.record, copy.confirmed_at = record, now


def _wrong_key() -> MeshError:
    return MeshError(Reason.KEY_INVALID, "this API key is not valid; check it for copying errors or ask for a new one")
