"""Where rollouts survive: what is written together, by whom, and what may not be written.

Says what a store must do; :class:`MemoryRollouts` does it for tests and for meshes without Redis. Every write names the
term of whoever leads and the revision it was made from, so a control plane that no longer leads, or has not seen what
another one wrote, writes nothing. Only that a canary was taken back anybody may put into the book.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

from serin_control.errors import NotLeading, RolloutConflict
from serin_control.rollouts.act import Act
from serin_control.rollouts.rollout import Rollout
from serin_control.rollouts.seals import Seals
from serin_control.rollouts.standing import Standing
from serin_control.rollouts.withdrawal import Withdrawal, among


@dataclass(frozen=True, slots=True)
class Leader:
    """Who leads.

    Attributes:
        name: of its instance, unique in the mesh.
        address: ``host:port``; empty: not known.
        boot: drawn when its process started.
        term: counts leads.
    """

    name: str
    address: str = ""
    boot: str = ""
    term: int = 0


@dataclass(frozen=True, slots=True)
class Book:
    """Everything that decides traffic, consistent in itself.

    Attributes:
        revision: grows with every write.
        rollouts: those that run, by model.
        standings: by model.
        seals: the files that versions were accepted with, by model.
        frozen: why rollouts may not move; empty: they may.
        withdrawn: rollouts that run and were taken back, by id: whoever leads writes that down before anything else.
        unreadable: records that another version wrote in a way that this one cannot read.
    """

    revision: int = 0
    rollouts: Mapping[str, Rollout] = field(default_factory=dict)
    standings: Mapping[str, Standing] = field(default_factory=dict)
    frozen: str = ""
    withdrawn: Mapping[str, Withdrawal] = field(default_factory=dict)
    unreadable: tuple[str, ...] = ()
    seals: Mapping[str, Seals] = field(default_factory=dict)

    def seals_of(self, model: str) -> Seals:
        """The files that a model's versions were accepted with."""
        return self.seals.get(model) or Seals(model)


@dataclass(frozen=True, slots=True)
class Change:
    """What is written together, all of it or nothing.

    Attributes:
        acts: lines for the history.
        rollout: a rollout as it is now; one that has ended leaves the book.
        standing: a model's standing as it is now.
        seals: the files that a model's versions were accepted with, as it is now.
        frozen: the reason of a freeze; empty: an end of it; None: as it was.
        golden: the golden set of a rollout that starts.
    """

    acts: tuple[Act, ...]
    rollout: Rollout | None = None
    standing: Standing | None = None
    frozen: str | None = None
    golden: str = ""
    seals: Seals | None = None


class Page(NamedTuple):
    """Rollouts of the past and of now, newest first.

    Attributes:
        more: where the page ended; empty: nothing follows.
        unreadable: ids of those that another version wrote in a way that this one cannot read; left out.
    """

    rollouts: list[Rollout]
    more: str = ""
    unreadable: tuple[str, ...] = ()


class RolloutStore(Protocol):
    """A durable store. Every method raises :class:`serin_control.errors.StoreDown` when it does not answer."""

    async def lead(self, who: Leader, ttl_s: float) -> Leader:
        """Take the lead, or keep it for another ``ttl_s``; returns who leads, with their term."""

    async def resign(self, who: Leader) -> None:
        """Give the lead up, if one has it."""

    async def read(self, known: int) -> Book | None:
        """The book, or None if it is still of the revision that is ``known``."""

    async def write(self, leader: Leader, book: Book, change: Change) -> Book:
        """Write a change of a book; returns the book after it.

        What is kept for judges goes with the rollout that ends.

        Raises:
            NotLeading: another one leads by now.
            RolloutConflict: the book is of another revision by now.
        """

    async def withdraw(self, withdrawal: Withdrawal) -> None:
        """Put into the book that a rollout was taken back. Needs no lead: it only ever takes traffic off a canary.

        Has no effect where the rollout does not run any more, or was withdrawn before.
        """

    async def keep(self, leader: Leader, rollout: Rollout, judge: Mapping[str, Any] | None) -> None:
        """Keep how far a rollout and its judge (None: as it was) have come; no line in the history, no new revision.

        Has no effect where the rollout does not run any more: its end may be written without its writer knowing.

        Raises:
            NotLeading: another one leads by now.
        """

    async def judge(self, rollout: str) -> Mapping[str, Any] | None:
        """What was kept of a rollout's judge; None: nothing, or the rollout has ended."""

    async def golden(self, rollout: str) -> str:
        """The golden set of a rollout; empty: it has none, or has ended."""

    async def rollout(self, rollout: str) -> Rollout | None:
        """A rollout, running or ended.

        Raises:
            RolloutNotFound: there is one, which another version wrote in a way that this one cannot read.
        """

    async def rollouts(self, model: str, size: int, after: str) -> Page:
        """Rollouts of a model (empty: of all), newest first."""

    async def acts(self, rollout: str, size: int, after: str) -> tuple[list[Act], str]:
        """The history of a rollout (empty: of all), newest first, and where the page ended.

        Of all, a line that another version wrote in a way that this one cannot read stands as ``unreadable``.
        """

    async def next_number(self) -> int:
        """A number that no rollout was given before."""


def changed(book: Book, change: Change) -> Book:
    """The book after a change."""
    rollouts, standings = dict(book.rollouts), dict(book.standings)
    if change.rollout is not None:
        if change.rollout.ended:
            rollouts.pop(change.rollout.model, None)
        else:
            rollouts[change.rollout.model] = change.rollout
    if change.standing is not None:
        standings[change.standing.model] = change.standing
    frozen = book.frozen if change.frozen is None else change.frozen
    seals = {**book.seals, change.seals.model: change.seals} if change.seals is not None else book.seals
    withdrawn = among(book.withdrawn, rollouts)
    return Book(book.revision + 1, rollouts, standings, frozen, withdrawn, book.unreadable, seals)


class MemoryRollouts:
    """A :class:`RolloutStore` that lasts as long as the process. Several control planes may share one."""

    def __init__(self) -> None:
        self._leader: Leader | None = None
        self._term = 0
        self._number = 0
        self._book = Book()
        self._rollouts: dict[str, Rollout] = {}
        self._acts: list[Act] = []
        self._judges: dict[str, Mapping[str, Any]] = {}
        self._golden: dict[str, str] = {}

    async def lead(self, who: Leader, ttl_s: float) -> Leader:
        """Take the lead if nobody has it; it does not lapse, only :meth:`lapse` and :meth:`resign` end it."""
        if self._leader is None or (self._leader.name == who.name and self._leader.boot != who.boot):
            self._term += 1
            self._leader = replace(who, term=self._term)
        return self._leader

    def lapse(self) -> None:
        """The leader was not heard for too long."""
        self._leader = None

    async def resign(self, who: Leader) -> None:
        """Give the lead up, if one has it."""
        if self._leader is not None and self._leader.boot == who.boot:
            self._leader = None

    async def read(self, known: int) -> Book | None:
        """The book, or None if it is still of the revision that is ``known``."""
        return None if known == self._book.revision else self._book

    async def write(self, leader: Leader, book: Book, change: Change) -> Book:
        """Write a change of a book."""
        self._check(leader)
        if book.revision != self._book.revision:
            raise RolloutConflict("somebody else changed it first: look again")
        self._book = changed(book, change)
        if change.rollout is not None:
            self._rollouts[change.rollout.id] = change.rollout
            if change.golden:
                self._golden[change.rollout.id] = change.golden
            if change.rollout.ended:
                self._golden.pop(change.rollout.id, None)
                self._judges.pop(change.rollout.id, None)
        self._acts += [replace(act, term=leader.term) for act in change.acts]
        return self._book

    async def withdraw(self, withdrawal: Withdrawal) -> None:
        """Put into the book that a rollout was taken back."""
        book, name = self._book, withdrawal.rollout.id
        if name in among({name: withdrawal}, book.rollouts) and name not in book.withdrawn:
            withdrawn = {**book.withdrawn, name: withdrawal}
            self._book = replace(book, revision=book.revision + 1, withdrawn=withdrawn)

    async def keep(self, leader: Leader, rollout: Rollout, judge: Mapping[str, Any] | None) -> None:
        """Keep how far a rollout and its judge have come."""
        self._check(leader)
        running = self._book.rollouts.get(rollout.model)
        if running is None or running.id != rollout.id:
            return
        self._rollouts[rollout.id] = rollout
        self._book = replace(self._book, rollouts={**self._book.rollouts, rollout.model: rollout})
        if judge is not None:
            self._judges[rollout.id] = judge

    async def judge(self, rollout: str) -> Mapping[str, Any] | None:
        """What was kept of a rollout's judge."""
        return self._judges.get(rollout)

    async def golden(self, rollout: str) -> str:
        """The golden set of a rollout."""
        return self._golden.get(rollout, "")

    async def rollout(self, rollout: str) -> Rollout | None:
        """A rollout, running or ended."""
        return self._rollouts.get(rollout)

    async def rollouts(self, model: str, size: int, after: str) -> Page:
        """Rollouts, newest first."""
        everything = [one for one in reversed(self._rollouts.values()) if not model or one.model == model]
        begin = next((i + 1 for i, one in enumerate(everything) if one.id == after), 0)
        page = everything[begin : begin + size]
        return Page(page, page[-1].id if begin + size < len(everything) else "")

    async def acts(self, rollout: str, size: int, after: str) -> tuple[list[Act], str]:
        """The history, newest first."""
        everything = [act for act in reversed(self._acts) if not rollout or act.rollout == rollout]
        begin = int(after or 0)
        end = begin + size
        return everything[begin:end], str(end) if end < len(everything) else ""

    async def next_number(self) -> int:
        """A number that no rollout was given before."""
        self._number += 1
        return self._number

    def _check(self, leader: Leader) -> None:
        if self._leader is None or self._leader.term != leader.term:
            now = self._leader or Leader("nobody")
            raise NotLeading(f"{now.name} leads by now", now.address)
