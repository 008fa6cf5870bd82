"""Sums of the ledger by day: the seam of their store, its twin, and how they are added up and shown.

Knows nothing about Redis, nor about who asks.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal, Protocol

from serin_gateway.ledger.line import SEPARATOR
from serin_gateway.limits.calendar import day_of
from serin_gateway.limits.memory import MemoryLimiter

By = Literal["organization", "project", "key", "model", "version", "day"]
MAX_DAYS = 400


@dataclass(frozen=True, slots=True)
class Sum:
    """What was used under one name on one day, or what several of them add up to.

    ``nano``: 10^-9 of the currency; below 0 where more of an earlier day was taken back than was billed.
    """

    day: str = ""
    organization: str = ""
    project: str = ""
    key: str = ""
    model: str = ""
    version: str = ""
    lines: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    nano: int = 0

    @classmethod
    def of(cls, day: str, name: str, counts: Mapping[str, int]) -> "Sum":
        """The sum of a name as `ledger.line` makes it.

        Raises:
            ValueError: not such a name.
        """
        organization, project, key, model, version = name.split(SEPARATOR)
        return cls(
            day,
            organization,
            project,
            key,
            model,
            version,
            counts.get("lines", 0),
            counts.get("prompt", 0),
            counts.get("cached", 0),
            counts.get("completion", 0),
            counts.get("nano", 0),
        )

    def name(self, by: By) -> str:
        """What it is called when sums are added up by something."""
        return str(getattr(self, by))


@dataclass(frozen=True, slots=True)
class UsageRow:
    """Sums added up; ``name`` is what they have in common."""

    name: str
    lines: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    nano: int


class UsageStore(Protocol):
    """Reads sums. May raise `KeyStoreDown`."""

    async def sums(self, days: Sequence[str]) -> Sequence[Sum]:
        """The sums of some days, ``YYYY-MM-DD``."""


class MemoryUsage:
    """Sums of a ledger in memory, all of today."""

    def __init__(self, limiter: MemoryLimiter, today: str = "") -> None:
        self._limiter = limiter
        self._today = today

    async def sums(self, days: Sequence[str]) -> Sequence[Sum]:
        """One for each line."""
        import time

        today = self._today or day_of(time.time())
        if today not in days:
            return []
        return [
            Sum.of(
                today,
                line.sums,
                {
                    "lines": 1,
                    "prompt": line.prompt_tokens,
                    "cached": line.cached_tokens,
                    "completion": line.completion_tokens,
                    "nano": line.nano,
                },
            )
            for line in self._limiter.lines
        ]


def days_between(first: str, last: str) -> list[str]:
    """All days from one to another, both included.

    Raises:
        ValueError: not days, the wrong way round, or more than 400.
    """
    begin, end = date.fromisoformat(first), date.fromisoformat(last)
    count = (end - begin).days + 1
    if not 1 <= count <= MAX_DAYS:
        raise ValueError(f"{count} days; accepted: 1 to {MAX_DAYS}")
    return [(begin + timedelta(days=n)).isoformat() for n in range(count)]


def added_up(sums: Iterable[Sum], by: By) -> list[UsageRow]:
    """Rows by what sums have in common, in the order of their names."""
    groups: dict[str, list[Sum]] = {}
    for one in sums:
        groups.setdefault(one.name(by), []).append(one)
    return [
        UsageRow(
            name,
            sum(one.lines for one in group),
            sum(one.prompt_tokens for one in group),
            sum(one.cached_tokens for one in group),
            sum(one.completion_tokens for one in group),
            sum(one.nano for one in group),
        )
        for name, group in sorted(groups.items())
    ]


def as_csv(rows: Iterable[UsageRow], by: By, currency: str) -> str:
    """RFC 4180, with a head; the cost is a decimal of the currency, exact."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow([by, "lines", "prompt_tokens", "cached_tokens", "completion_tokens", "cost", "currency"])
    for row in rows:
        figures = (row.lines, row.prompt_tokens, row.cached_tokens, row.completion_tokens)
        writer.writerow([_inert(row.name), *figures, decimal(row.nano), currency])
    return out.getvalue()


def decimal(nano: int) -> str:
    """Nano-units as a decimal of the currency; no float touches it."""
    whole, rest = divmod(abs(nano), 1_000_000_000)
    return f"{'-' if nano < 0 else ''}{whole}.{rest:09d}"


def _inert(name: str) -> str:
    """A name that no spreadsheet takes for a formula."""
    return f"'{name}" if name[:1] in ("=", "+", "-", "@") else name
