"""An issuer of tokens, and what the claims of its tokens mean. Knows nothing about signatures."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from serin_gateway.keys.records import Role


@dataclass(frozen=True, slots=True)
class TokenIssuer:
    """Whose tokens are believed; the attributes are those of ``serin.control.v1.TokenIssuer``."""

    issuer: str
    audience: str
    jwks_url: str
    algorithms: tuple[str, ...] = ("RS256", "ES256")
    project_claim: str = ""
    project: str = ""
    organization_claim: str = ""
    role_claim: str = ""
    roles: Mapping[str, Role] = field(default_factory=dict)

    def project_of(self, claims: Mapping[str, Any]) -> str:
        """The caller's project; empty: its token names none, or in a form that nobody can read."""
        named = claims.get(self.project_claim) if self.project_claim else None
        if named is None:
            return self.project
        return named if isinstance(named, str) else ""

    def organization_of(self, claims: Mapping[str, Any]) -> str | None:
        """The caller's organization; None: it is not looked at; empty: it should be named and is not."""
        if not self.organization_claim:
            return None
        named = claims.get(self.organization_claim)
        return named if isinstance(named, str) else ""

    def role_of(self, claims: Mapping[str, Any]) -> Role:
        """The highest of the roles that the token names."""
        named = claims.get(self.role_claim) if self.role_claim else None
        values = named if isinstance(named, list) else [named]
        best = Role.APP
        for value in values:
            role = self.roles.get(value) if isinstance(value, str) else None
            if role is not None and role.covers(best):
                best = role
        return best
