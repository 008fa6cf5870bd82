"""What is to happen with what is found, and to whom it applies.

Knows nothing about how a policy is declared or how anything is found.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from serin_gateway.guards.detector import DetectorName


class Action(enum.StrEnum):
    """What happens with a finding. A closed set: it is also a metric's label."""

    COUNT = "count"
    """It is counted; the text stays as it is, and a detector that fails is counted too."""
    MASK = "mask"
    """Something else stands in its place. A detector that fails ends the request."""
    REFUSE = "refuse"
    """The request is refused, or the answer ends there. A detector that fails ends the request."""

    @property
    def holds(self) -> bool:
        """Whether text may go on only once it was looked at."""
        return self is not Action.COUNT


class Direction(enum.StrEnum):
    """Where text comes from: the caller, or the model."""

    INPUT = "input"
    OUTPUT = "output"


@dataclass(frozen=True, slots=True)
class GuardPolicy:
    """What is looked for, and what happens then; what is not named is not looked for.

    Attributes:
        name: of the policy.
        inputs, outputs: detectors and actions.
        countries: whose personal data is looked for, beside what is the same everywhere.
        terms: the block list.
    """

    name: str
    inputs: tuple[tuple[DetectorName, Action], ...] = ()
    outputs: tuple[tuple[DetectorName, Action], ...] = ()
    countries: tuple[str, ...] = ()
    terms: tuple[str, ...] = ()

    def rules(self, direction: Direction) -> tuple[tuple[DetectorName, Action], ...]:
        """Those of one direction."""
        return self.inputs if direction is Direction.INPUT else self.outputs

    @property
    def detectors(self) -> list[DetectorName]:
        """All that it needs, each once."""
        return list(dict.fromkeys(name for name, _ in (*self.inputs, *self.outputs)))


class Guarded(Protocol):
    """Whoever a policy may apply to."""

    @property
    def key_id(self) -> str:
        """Public name of the key."""

    @property
    def tenant(self) -> str:
        """The project."""

    @property
    def organization(self) -> str:
        """Whose project it is."""


@dataclass(frozen=True, slots=True)
class GuardPolicies:
    """Who has which policy, by name; the narrowest counts: key, project, organization, everybody.

    Attributes:
        default: of those that nothing else names; None: none.
    """

    default: GuardPolicy | None = None
    organizations: Mapping[str, GuardPolicy] = field(default_factory=dict)
    projects: Mapping[str, GuardPolicy] = field(default_factory=dict)
    keys: Mapping[str, GuardPolicy] = field(default_factory=dict)

    def of(self, caller: Guarded) -> GuardPolicy | None:
        """The policy of a caller."""
        for known, name in (
            (self.keys, caller.key_id),
            (self.projects, caller.tenant),
            (self.organizations, caller.organization),
        ):
            if name in known:
                return known[name]
        return self.default

    @property
    def all(self) -> list[GuardPolicy]:
        """Every policy that somebody has, each once."""
        named = (*self.organizations.values(), *self.projects.values(), *self.keys.values())
        return list(dict.fromkeys([*([self.default] if self.default else []), *named]))
