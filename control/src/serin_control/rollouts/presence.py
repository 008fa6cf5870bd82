"""What is remembered of rollouts from look to look: who was heard, and what became of canaries.

Of those: starts that came to nothing, how long all of it is gone or silent. Knows nothing about what follows from it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from serin_control.rollouts.rollout import Rollout
from serin_control.rollouts.sight import Hearing, Sight

HEARD_S = 4.0
"""So long after the first of a rollout was heard, who is still missing is missed: a lease and a heartbeat."""


@dataclass(frozen=True, slots=True)
class Presence:
    """A canary's at one look.

    Attributes:
        num_crashes: processes that have ended before it was ever ready.
        absent_s: seconds since something of it was last announced.
        silent_s: seconds for which all of it that would answer is silent.
    """

    num_crashes: int = 0
    absent_s: float = 0.0
    silent_s: float = 0.0


@dataclass(slots=True)
class _Seen:
    announced_at: float
    heard_at: float
    starts: set[tuple[str, float]] = field(default_factory=set)


class Attendance:
    """Canaries by rollout. ``clock``: seconds, monotonic."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._canaries: dict[str, _Seen] = {}
        self._heard_since: dict[str, float] = {}

    def knows(self, rollout: Rollout) -> bool:
        """Whether what is missing of a rollout is missing, rather than never heard of by this process."""
        since = self._heard_since.get(rollout.id)
        return since is not None and self._clock() - since >= HEARD_S

    def is_deaf_to(self, rollout: Rollout) -> bool:
        """Whether this process has heard nobody of a rollout yet."""
        return rollout.id not in self._heard_since

    def listen(self, rollout: Rollout, hearing: Hearing) -> None:
        """Note who of a rollout is heard now. Once everybody was, whoever is missing is missed at once."""
        if hearing is Hearing.ALL:
            self._heard_since[rollout.id] = float("-inf")
        elif hearing is Hearing.SOME:
            self._heard_since.setdefault(rollout.id, self._clock())

    def note(self, rollout: Rollout, seen: Sight) -> Presence:
        """Note what is seen of a rollout's canary now."""
        now = self._clock()
        canary = self._canaries.setdefault(rollout.id, _Seen(now, now))
        if rollout.was_able:
            canary.starts.clear()
        else:
            canary.starts |= seen.starts
        if seen.starts:
            canary.announced_at = now
        if not seen.silent:
            canary.heard_at = now
        return Presence(len(canary.starts - seen.starts), now - canary.announced_at, now - canary.heard_at)

    def forget_all_but(self, rollouts: Iterable[str]) -> None:
        """Only these run."""
        running = set(rollouts)
        self._canaries = {one: canary for one, canary in self._canaries.items() if one in running}
        self._heard_since = {one: since for one, since in self._heard_since.items() if one in running}
