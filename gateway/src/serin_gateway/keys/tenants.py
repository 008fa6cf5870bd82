"""Projects and organizations, and what limits them: the seam of their store, its twin, and a gateway's copy of it.

A project belongs to one organization and its name is unique in the mesh, so it stands for itself wherever a tenant is
named. Projects that nobody declared exist too, without limits: a key's record says whose they are. Knows nothing about
Redis.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from serin_gateway.keys.records import DEFAULT_ORGANIZATION
from serin_gateway.keys.store import KeyStoreDown
from serin_gateway.limits.limiter import Limits


@dataclass(frozen=True, slots=True)
class Organization:
    """One organization."""

    name: str
    limits: Limits = field(default_factory=Limits)

    def to_json(self) -> str:
        """As it is stored."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> "Organization":
        """Read it back.

        Raises:
            ValueError: not an organization.
        """
        stored = _stored(text, "name")
        return cls(stored["name"], Limits.read(stored.get("limits") or {}))


@dataclass(frozen=True, slots=True)
class Project:
    """One project, and whose it is."""

    name: str
    organization: str = DEFAULT_ORGANIZATION
    limits: Limits = field(default_factory=Limits)

    def to_json(self) -> str:
        """As it is stored."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> "Project":
        """Read it back.

        Raises:
            ValueError: not a project.
        """
        stored = _stored(text, "name", "organization")
        return cls(stored["name"], stored["organization"], Limits.read(stored.get("limits") or {}))


class ProjectMoved(Exception):
    """A project never changes its organization: what it has used is counted there."""


@dataclass(frozen=True, slots=True)
class Directory:
    """All declared projects and organizations, and the revision that they are of."""

    revision: int = 0
    organizations: Sequence[Organization] = ()
    projects: Sequence[Project] = ()


class TenantStore(Protocol):
    """Keeps projects and organizations. Every method may raise :class:`KeyStoreDown`."""

    async def put_organization(self, organization: Organization) -> None:
        """Keep it, in place of the one of its name."""

    async def put_project(self, project: Project) -> None:
        """Keep it, in place of the one of its name.

        Raises:
            ProjectMoved: that one is another organization's.
        """

    async def directory(self, known_revision: int = -1) -> Directory | None:
        """All of them, by name; None: nothing has changed since that revision."""


class MemoryTenantStore:
    """Projects and organizations of one process. ``down`` makes every call fail."""

    def __init__(self) -> None:
        self._organizations: dict[str, Organization] = {}
        self._projects: dict[str, Project] = {}
        self._revision = 0
        self.down = False

    async def put_organization(self, organization: Organization) -> None:
        """Keep it."""
        self._check_up()
        self._organizations[organization.name] = organization
        self._revision += 1

    async def put_project(self, project: Project) -> None:
        """Keep it."""
        self._check_up()
        check_home(self._projects.get(project.name), project)
        self._projects[project.name] = project
        self._revision += 1

    async def directory(self, known_revision: int = -1) -> Directory | None:
        """All of them."""
        self._check_up()
        if known_revision == self._revision:
            return None
        return Directory(
            self._revision,
            sorted(self._organizations.values(), key=lambda one: one.name),
            sorted(self._projects.values(), key=lambda one: one.name),
        )

    def _check_up(self) -> None:
        if self.down:
            raise KeyStoreDown("the tenant store is down")


class Tenants:
    """A gateway's copy of the directory; while the store is down the last one holds.

    Args:
        store: where they are.
    """

    def __init__(self, store: TenantStore) -> None:
        self._store = store
        self._revision = -1
        self._organizations: Mapping[str, Organization] = {}
        self._projects: Mapping[str, Project] = {}

    def project(self, name: str, organization: str) -> Project:
        """A project; one that is not declared belongs to the organization that its key names, and has no limits."""
        return self._projects.get(name) or Project(name, organization)

    def is_declared(self, project: str) -> bool:
        """Whether somebody declared a project of this name."""
        return project in self._projects

    def organization(self, name: str) -> Organization:
        """An organization; one that is not declared has no limits."""
        return self._organizations.get(name) or Organization(name)

    async def refresh(self) -> None:
        """Take over what has changed."""
        with suppress(KeyStoreDown):
            found = await self._store.directory(self._revision)
            if found is not None:
                self._revision = found.revision
                self._organizations = {one.name: one for one in found.organizations}
                self._projects = {one.name: one for one in found.projects}


def check_home(known: Project | None, project: Project) -> None:
    """Whether a project may be kept.

    Raises:
        ProjectMoved: it is another organization's.
    """
    if known is not None and known.organization != project.organization:
        raise ProjectMoved(
            f"project {project.name!r} belongs to {known.organization!r}; a project never changes its organization"
        )


def _stored(text: str | bytes, *needed: str) -> Mapping[str, Any]:
    stored = json.loads(text)
    if not isinstance(stored, dict) or not all(isinstance(stored.get(name), str) for name in needed):
        raise ValueError(f"not a record with {', '.join(needed)}")
    return stored
