"""The desk that administers: every act is in the audit log before it happens, and how it ended after.

Administrators of the mesh's own organization administer all of them, others only theirs. Knows nothing about HTTP, the
command line or Redis.
"""

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from serin_mesh.errors import MeshError, Reason
from serin_mesh.one_line import ONE_LINE, is_one_line

from serin_gateway.ask import refuse
from serin_gateway.audit.entry import Entry
from serin_gateway.audit.log import AuditLog
from serin_gateway.catalog import CatalogSource
from serin_gateway.keys.records import DEFAULT_ORGANIZATION, DEFAULT_PROJECT, Ability, KeyRecord, Role, mint_key
from serin_gateway.keys.store import KeyNotFound, KeyStore, KeyStoreDown
from serin_gateway.keys.tenants import Directory, Organization, Project, ProjectMoved, TenantStore, check_home
from serin_gateway.ledger.usage import By, UsageRow, UsageStore, added_up, days_between
from serin_gateway.limits.limiter import Limits
from serin_gateway.routing.names import no_model_fault

MAX_NAME = 200
"""Characters of a key's name: more fill every line that shows it."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who administers; ``organization`` None: all of them."""

    name: str
    organization: str | None = None


@dataclass(frozen=True, slots=True)
class KeyWish:
    """A key to make; see `KeyRecord`. ``limits`` None: the mesh's defaults."""

    role: Role = Role.APP
    name: str = ""
    project: str = DEFAULT_PROJECT
    limits: Limits | None = None
    lifetime_s: float | None = None
    abilities: Sequence[Ability] = ()
    models: Sequence[str] = ()
    unknown: Literal["refuse", "warn"] = "refuse"
    shadow: bool = True


class AdminDesk:
    """Administers.

    Args:
        keys, tenants, usage, audit: the stores.
        secret: what keys are digested with.
        home: organization of projects that nobody declared.
        catalog: what models there are, which keys may be made for; None: that cannot be known here, and any is taken.
        clock: Unix seconds.
    """

    def __init__(
        self,
        keys: KeyStore,
        tenants: TenantStore,
        usage: UsageStore,
        audit: AuditLog,
        secret: bytes,
        *,
        home: str = DEFAULT_ORGANIZATION,
        catalog: CatalogSource | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.audit = audit
        self.home = home
        self._catalog = catalog
        self._keys = keys
        self._tenants = tenants
        self._usage = usage
        self._secret = secret
        self._clock = clock

    def actor(self, name: str, organization: str) -> Actor:
        """Somebody of an organization: of the mesh's own one, they administer all."""
        return Actor(name, None if organization == self.home else organization)

    async def create_key(self, actor: Actor, wish: KeyWish) -> tuple[str, KeyRecord]:
        """A new key, which nobody can ask for again, and its record.

        Raises:
            MeshError: PARAMETER_INVALID (name: not one printable line or too long; models: something is no model's own
                name), ROLE_INSUFFICIENT, AUTH_UNAVAILABLE, or NOT_READY where it is not known yet which models there
                are.
        """
        if len(wish.name) > MAX_NAME or not is_one_line(wish.name):
            accepted = f"{ONE_LINE}, at most {MAX_NAME} characters"
            raise refuse("name", f"{wish.name[:40]!r} is not accepted; accepted: {accepted}")
        with _translated():
            project = await self._project(wish.project)
            _check_reach(actor, project.organization)
            self._check_models(project, wish.models)
            key, record = mint_key(
                self._secret,
                role=wish.role,
                name=wish.name,
                tenant=project.name,
                organization=project.organization,
                limits=wish.limits,
                lifetime_s=wish.lifetime_s,
                unknown=wish.unknown,
                shadow=wish.shadow,
                abilities=wish.abilities,
                models=wish.models,
            )
            async with self._audited(actor, "key.create", record.key_id, **_facts(record)):
                await self._keys.create(record)
            return key, record

    async def keys(self, actor: Actor) -> Sequence[KeyRecord]:
        """All keys within reach, oldest first; each is of the organization that its project is of now."""
        with _translated():
            directory = await self._directory()
            homes = {one.name: one.organization for one in directory.projects}
            found = [
                replace(one, organization=homes.get(one.tenant, one.organization)) for one in await self._keys.list()
            ]
            return [one for one in found if actor.organization in (None, one.organization)]

    async def revoke_key(self, actor: Actor, key_id: str) -> KeyRecord:
        """End a key, by its public name."""
        with _translated():
            if not any(one.key_id == key_id for one in await self.keys(actor)):
                raise KeyNotFound(f"no key is named {key_id[:64]!r}; list the keys to see all names")
            async with self._audited(actor, "key.revoke", key_id):
                return await self._keys.revoke(key_id)

    async def directory(self, actor: Actor) -> Directory:
        """The declared organizations and projects within reach."""
        with _translated():
            found = await self._directory()
            mine = actor.organization
            return Directory(
                found.revision,
                [one for one in found.organizations if mine in (None, one.name)],
                [one for one in found.projects if mine in (None, one.organization)],
            )

    async def put_organization(self, actor: Actor, organization: Organization) -> None:
        """Declare an organization and its limits. No organization sets its own."""
        if actor.organization is not None:
            raise MeshError(Reason.ROLE_INSUFFICIENT, "the limits of an organization are set by the mesh's own one")
        with _translated():
            facts = {"limits": asdict(organization.limits)}
            async with self._audited(actor, "organization.put", organization.name, **facts):
                await self._tenants.put_organization(organization)

    async def put_project(self, actor: Actor, project: Project) -> None:
        """Declare a project, whose it is, and its limits.

        Whoever nobody declared is of the mesh's own organization, with whatever it has kept: only that one's
        administrators give such a name to another organization, and none that has keys.
        """
        _check_reach(actor, project.organization)
        with _translated():
            await self._check_is_free(actor, project)
            facts = {"organization": project.organization, "limits": asdict(project.limits)}
            async with self._audited(actor, "project.put", project.name, **facts):
                await self._tenants.put_project(project)

    async def usage(self, actor: Actor, first_day: str, last_day: str, by: By) -> list[UsageRow]:
        """What was used from one day to another, both included, added up."""
        try:
            days = days_between(first_day, last_day)
        except ValueError as error:
            raise MeshError(
                Reason.PARAMETER_INVALID, f"from, to: {error}; days are YYYY-MM-DD", parameter="from"
            ) from error
        with _translated():
            sums = await self._usage.sums(days)
            return added_up((one for one in sums if actor.organization in (None, one.organization)), by)

    async def entries(self, actor: Actor, first: int, count: int) -> Sequence[Entry | None]:
        """Some of the audit log; it is the mesh's own organization's alone."""
        if actor.organization is not None:
            raise MeshError(Reason.ROLE_INSUFFICIENT, "the audit log is for the mesh's own organization")
        with _translated():
            return await self.audit.entries(first, count)

    def _check_models(self, project: Project, models: Sequence[str]) -> None:
        if self._catalog is None or not models:
            return
        catalog = self._catalog.current()
        for name in models:
            fault = no_model_fault(catalog, project.organization, project.name, name)
            if fault is not None:
                raise refuse("models", fault)

    async def _check_is_free(self, actor: Actor, project: Project) -> None:
        if project.organization == self.home or await self._declared(project.name):
            return  # the store refuses to move a declared one
        if actor.organization is not None:
            raise MeshError(
                Reason.ROLE_INSUFFICIENT,
                f"project {project.name!r} is not declared; that is for the administrators of {self.home!r}, the "
                "mesh's own organization: ask them",
            )
        if project.name == DEFAULT_PROJECT or any(one.tenant == project.name for one in await self._keys.list()):
            check_home(Project(project.name, self.home), project)

    async def _project(self, name: str) -> Project:
        return await self._declared(name) or Project(name, self.home)

    async def _declared(self, name: str) -> Project | None:
        return next((one for one in (await self._directory()).projects if one.name == name), None)

    async def _directory(self) -> Directory:
        return await self._tenants.directory() or Directory()

    @asynccontextmanager
    async def _audited(self, actor: Actor, action: str, target: str, **facts: Any) -> AsyncIterator[None]:
        """An act between its two entries. Where the first cannot be written, nothing happens."""
        await self.audit.append(self._clock(), actor.name, action, target, "begun", **facts)
        try:
            yield
        except Exception as error:
            await self.audit.append(self._clock(), actor.name, action, target, f"failed: {type(error).__name__}")
            raise
        await self.audit.append(self._clock(), actor.name, action, target, "done")


class _translated:  # noqa: N801 - reads as a word where it is used
    """What stores raise, as everybody is told it."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, KeyStoreDown):
            raise MeshError(
                Reason.AUTH_UNAVAILABLE, "the state store does not answer; try again shortly", retry_after_s="2"
            ) from error
        if isinstance(error, KeyNotFound):
            raise MeshError(Reason.NOT_FOUND, str(error)) from error
        if isinstance(error, ProjectMoved):
            raise MeshError(Reason.CONFIG_CONFLICT, str(error), should_retry="false") from error


def _facts(record: KeyRecord) -> dict[str, Any]:
    """What a new key may do, for the audit log: its role, project and models, and all else that was asked for."""
    said: dict[str, Any] = {"role": record.role.value, "project": record.tenant, "models": list(record.models)}
    if record.abilities:
        said["abilities"] = [ability.value for ability in record.abilities]
    if record.limits is not None:
        said["limits"] = asdict(record.limits)
    if record.expires_at is not None:
        said["expires_at"] = record.expires_at
    if record.unknown != "refuse":
        said["unknown"] = record.unknown
    if not record.shadow:
        said["shadow"] = record.shadow
    return said


def _check_reach(actor: Actor, organization: str) -> None:
    if actor.organization not in (None, organization):
        raise MeshError(
            Reason.ROLE_INSUFFICIENT, f"this administers {actor.organization!r} alone, not {organization!r}"
        )
