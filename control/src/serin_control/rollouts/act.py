"""Who did what to a rollout, and why: a line of the append-only history. A value."""

from dataclasses import dataclass

JUDGE = "judge"
"""The actor of everything that nobody did by hand."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Somebody who acts.

    Attributes:
        name: as the caller says.
        identity: service that the caller's certificate names; empty without one.
    """

    name: str = ""
    identity: str = ""

    @property
    def shown(self) -> str:
        """Who it is, for people."""
        return self.name or self.identity or "somebody"


@dataclass(frozen=True, slots=True)
class Act:
    """Something that was done.

    Attributes:
        at: seconds since 1970.
        rollout: its id; empty: it concerns all of them.
        what: start, step, pause, resume, promote, abort, rollback, rejudge, declare, expire, refuse, freeze,
            unfreeze or unreadable (another version wrote it).
        term: of the control plane that wrote it.
    """

    at: float
    rollout: str
    actor: str
    what: str
    reason: str = ""
    identity: str = ""
    term: int = 0
