"""Sessions, each one unit, gathered into blocks of those that began at about the same time.

A session on a lane is one unit however many requests it makes: the mean of its first half minute, once. That is the
cluster; a session with a thousand failures is one failure. Sessions that a lane gets from the other one (they are
older, longer, with more context) are compared with sessions that stayed and were also known before: so that there are
some, a session on the old lane counts again after a quarter of an hour; on the new lane none ever does.

Knows nothing about what a burden means or how blocks are compared. Its clock is what it is told.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from serin_control.judge.sessions import SeenSessions

MAX_NEW_UNITS = 512
MAX_OLD_UNITS = 2048
OLD_PER_NEW = 32
MIN_OLD_UNITS = 64
MAX_BLOCK_S = 1800.0
# A block with fewer old units than new ones shows little: it stays open this much longer for more of them.
PATIENCE = 6
OLD_COUNTS_AGAIN_S = 900.0
MAX_DUMPED_UNITS = 2048
LEVELS = 1024

Burdens = Iterable[tuple[str, float]]
Counts = dict[str, dict[float, int]]


@dataclass(slots=True)
class Unit:
    """One session on one arm."""

    was_known: bool
    began: float
    sums: dict[str, list[float]] = field(default_factory=dict)

    def add(self, burdens: Burdens) -> None:
        """One request's burdens."""
        for metric, burden in burdens:
            known = self.sums.get(metric)
            if known is None:
                self.sums[metric] = [burden, 1]
            else:
                known[0] += burden
                known[1] += 1


@dataclass(slots=True)
class Block:
    """Units that began at about the same time, by arm and session."""

    began: float
    closed: float | None = None
    old: dict[int, Unit] = field(default_factory=dict)
    new: dict[int, Unit] = field(default_factory=dict)

    def has_room(self, is_new: bool) -> bool:
        """Whether another unit of this arm would still add to what the block shows."""
        if is_new:
            return len(self.new) < MAX_NEW_UNITS
        return len(self.old) < min(MAX_OLD_UNITS, MIN_OLD_UNITS + OLD_PER_NEW * len(self.new))


@dataclass(frozen=True, slots=True)
class Settled:
    """Burdens of a finished block's units, by metric: sessions that were known before, or sessions that were not."""

    old: Counts
    new: Counts


class Blocks:
    """Blocks that are open.

    Args:
        session_s: how long a session is watched.
        block_s: shortest time in which a block's sessions begin.
    """

    def __init__(self, session_s: float, block_s: float) -> None:
        self._session_s = session_s
        self._block_s = block_s
        self._open: list[Block] = []
        self._seen_old = SeenSessions(OLD_COUNTS_AGAIN_S)
        self._seen_new = SeenSessions()

    def unit(self, is_new: bool, session: int, began: float) -> Unit | None:
        """Where a request that began at ``began`` counts; None: its session has counted, or enough others do."""
        for block in self._open:
            unit = (block.new if is_new else block.old).get(session)
            if unit is not None:
                return unit if began <= unit.began + self._session_s else None
        if self._seen_new.ever(session) if is_new else self._seen_old.recently(session, began):
            return None
        block = self._block_of(began)
        if not block.has_room(is_new):
            return None
        unit = Unit(self._seen_old.ever(session), began)
        (block.new if is_new else block.old)[session] = unit
        (self._seen_new if is_new else self._seen_old).add(session, began)
        return unit

    def forget(self, since: float) -> None:
        """Drop the open units, of both arms, that were watched after ``since``: their sessions have counted."""
        for block in self._open:
            for units in (block.old, block.new):
                for session in [name for name, unit in units.items() if unit.began + self._session_s >= since]:
                    del units[session]

    def advance(self, now: float) -> Iterator[Settled]:
        """It is ``now``, later than before; gives the blocks that are finished."""
        if not self._open:
            self._open.append(Block(now))
        filling = self._open[-1]
        age = now - filling.began
        both = bool(filling.old and filling.new)
        patience_s = self._block_s if len(filling.old) >= len(filling.new) else PATIENCE * self._block_s
        if (both and age >= patience_s) or age >= MAX_BLOCK_S:
            filling.closed = now
            self._open.append(Block(now))
        while self._open[0].closed is not None and now >= self._open[0].closed + self._session_s:
            yield from _settled(self._open.pop(0))

    def dump(self) -> dict[str, Any]:
        """As JSON. Of what is open a bounded number of units is kept: the new arm's first, every nth of the rest.

        Not the first that came: who ends early is quick.
        """
        num_old, num_new = sum(len(block.old) for block in self._open), sum(len(block.new) for block in self._open)
        every_new = _one_in(num_new, MAX_DUMPED_UNITS // 2)
        every_old = _one_in(num_old, MAX_DUMPED_UNITS - num_new // every_new)
        return {
            "open": [
                [block.began, block.closed, _units(block.old, every_old), _units(block.new, every_new)]
                for block in self._open
            ],
            "seen_old": self._seen_old.dump(),
            "seen_new": self._seen_new.dump(),
        }

    @classmethod
    def load(cls, session_s: float, block_s: float, dumped: dict[str, Any]) -> "Blocks":
        """What :meth:`dump` gave."""
        blocks = cls(session_s, block_s)
        blocks._open = [
            Block(began, closed, _units_of(old), _units_of(new)) for began, closed, old, new in dumped["open"]
        ]
        blocks._seen_old = SeenSessions.load(OLD_COUNTS_AGAIN_S, dumped["seen_old"])
        blocks._seen_new = SeenSessions.load(0.0, dumped["seen_new"])
        return blocks

    def _block_of(self, began: float) -> Block:
        if not self._open:
            self._open.append(Block(began))
        for block in reversed(self._open):
            if began >= block.began:
                return block
        return self._open[0]


def _settled(block: Block) -> Iterator[Settled]:
    old, new = _counts(block.old), _counts(block.new)
    for was_known in (False, True):
        if old[was_known] or new[was_known]:
            yield Settled(old[was_known], new[was_known])


def _counts(units: Mapping[int, Unit]) -> tuple[Counts, Counts]:
    """Units by metric and rounded burden: of sessions that were not known before, and of those that were."""
    counts: tuple[Counts, Counts] = ({}, {})
    for unit in units.values():
        of_kind = counts[unit.was_known]
        for metric, (total, number) in unit.sums.items():
            burden = round(total / number * LEVELS) / LEVELS
            of_metric = of_kind.setdefault(metric, {})
            of_metric[burden] = of_metric.get(burden, 0) + 1
    return counts


def _one_in(number: int, room: int) -> int:
    """Every how many of a number fit where there is room."""
    return max(1, -(-number // room))


def _units(units: Mapping[int, Unit], every: int) -> list[Any]:
    kept = itertools.islice(units.items(), 0, None, every)
    return [[session, unit.was_known, unit.began, unit.sums] for session, unit in kept]


def _units_of(dumped: list[Any]) -> dict[int, Unit]:
    return {
        session: Unit(was_known, began, {metric: list(known) for metric, known in sums.items()})
        for session, was_known, began, sums in dumped
    }
