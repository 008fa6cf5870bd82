"""What a model's traffic does between rollouts: where promotions and rollbacks have left it.

A value and its changes. The configuration's own shares are in force until a promotion; they come back into force when
somebody changes them. Times are seconds since 1970.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from serin_control.lanes import Versions
from serin_control.plan import Share

KEEP_S = 86_400.0
"""So long a lane is kept after a promotion or a rollback: going back is one command."""

DRAIN_S = 600.0
"""So long a lane that was taken back is kept: its running answers end where they are."""

MAX_RETIRED = 16


@dataclass(frozen=True, slots=True)
class Kept:
    """Versions whose lane is kept for a while.

    ``good``: they keep the least weight and may be gone back to. Else they drain: no new session while another version
    takes it, answers end. ``left``: somebody went back from them, because they were not good enough.
    """

    versions: Versions
    until: float
    good: bool
    left: bool = False


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a model's traffic stands.

    Attributes:
        shares: who shares it; None: as declared.
        previous: shares before the last promotion; empty: there was none, or it was taken back.
        kept: versions whose lanes are kept.
        retired: versions that get nothing, although processes of theirs may still run.
        declared: shares that `serin.yaml` gave when this began.
    """

    model: str
    declared: tuple[Share, ...]
    shares: tuple[Share, ...] | None = None
    previous: tuple[Share, ...] = ()
    kept: tuple[Kept, ...] = ()
    retired: tuple[Versions, ...] = ()

    def moved_to(self, shares: tuple[Share, ...], before: tuple[Share, ...], now: float) -> "Standing":
        """Everything goes to these shares; what had it before is kept."""
        leaving = [Kept(share.versions, now + KEEP_S, True) for share in before]
        return replace(self, shares=shares, previous=before)._with(leaving, shares)

    def back_at(self, shares: tuple[Share, ...], before: tuple[Share, ...], now: float) -> "Standing":
        """The same, because what had it before was not good enough: going back once more leads nowhere."""
        moved, gone = self.moved_to(shares, before, now), {share.versions for share in before}
        kept = tuple(replace(one, left=True) if one.versions in gone else one for one in moved.kept)
        return replace(moved, kept=kept, previous=())

    def taken_back(self, versions: Versions, now: float) -> "Standing":
        """A canary lost its traffic: it drains."""
        return self._with([Kept(versions, now + DRAIN_S, False)], self.shares or ())

    def expired(self, now: float) -> "Standing":
        """What was kept long enough is retired."""
        over = [kept.versions for kept in self.kept if kept.until <= now]
        if not over:
            return self
        retired = (*[old for old in self.retired if old not in over], *over)[-MAX_RETIRED:]
        return replace(self, kept=tuple(kept for kept in self.kept if kept.until > now), retired=retired)

    def using(self, versions: Iterable[Versions]) -> "Standing":
        """These versions get traffic again: nothing of the past is held against them."""
        used = set(versions)
        return replace(
            self,
            kept=tuple(kept for kept in self.kept if kept.versions not in used),
            retired=tuple(old for old in self.retired if old not in used),
        )

    @property
    def successors(self) -> tuple[Kept, ...]:
        """What is kept, in the order in which it answers where nothing that has the traffic does.

        Who had it last comes first; who was gone back from, after all others.
        """
        latest_first = self.kept[::-1]
        return (*(one for one in latest_first if not one.left), *(one for one in latest_first if one.left))

    def _with(self, leaving: Sequence[Kept], used: Iterable[Share]) -> "Standing":
        names = {kept.versions for kept in leaving}
        others = [kept for kept in self.kept if kept.versions not in names]
        return replace(self, kept=(*others, *leaving)).using(share.versions for share in used)


def effective(shares: Iterable[Share]) -> tuple[Share, ...]:
    """Shares that have traffic: what somebody changes when they change the configuration of it."""
    return tuple(share for share in shares if share.weight)
