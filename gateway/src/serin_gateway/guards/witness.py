"""Writes what guards decided into the audit log: which detector, what happened, of which kinds how many; no text.

The log is for good, and anybody who may ask can make decisions happen. So those of one key become one entry every few
seconds: sums of all of them, and the requests by name, up to a number. While the log cannot be written they wait, up to
a number of keys; what finds no room is counted. Knows nothing about requests beyond their names.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from serin_gateway.audit.log import AuditLog
from serin_gateway.guards.decisions import Decisions
from serin_gateway.keys.store import KeyStoreDown

WRITE_EVERY_S = 10.0
MAX_LISTED = 20
"""Requests of one entry that are listed by name; of the others the sum says how many."""
MAX_KEYS = 1000
"""Keys whose decisions may wait."""
ACTION = "guard.decided"


@dataclass(slots=True)
class _Noted:
    """What waits for one key."""

    num_requests: int = 0
    sums: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    listed: list[dict[str, Any]] = field(default_factory=list)


class Witness:
    """Keeps decisions until they are written; `keep_writing` is a task of whoever owns it.

    Args:
        log: the audit log.
        clock: Unix seconds.
    """

    def __init__(self, log: AuditLog, clock: Callable[[], float] = time.time) -> None:
        self._log = log
        self._clock = clock
        self._noted: dict[str, _Noted] = {}
        self.num_lost = 0
        """Requests whose decisions found no room."""

    def note(self, key_id: str, request_id: str, decisions: Decisions) -> None:
        """Keep those of a request."""
        if key_id not in self._noted and len(self._noted) >= MAX_KEYS:
            self.num_lost += 1
            return
        noted = self._noted.setdefault(key_id, _Noted())
        noted.num_requests += 1
        made = list(decisions)
        for one in made:
            noted.sums[one.detector, one.direction, one.action] += one.count
        if len(noted.listed) < MAX_LISTED:
            lines = [
                {"detector": one.detector, "direction": one.direction, "action": one.action, "kinds": dict(one.kinds)}
                for one in made
            ]
            noted.listed.append({"request": request_id, "policy": decisions.policy, "decisions": lines})

    async def keep_writing(self) -> None:
        """Write what waits, now and again, for as long as this task lives."""
        while True:
            await asyncio.sleep(WRITE_EVERY_S)
            await self.write()

    async def write(self) -> None:
        """Write what waits; what may not have been written goes on waiting."""
        while self._noted:
            key_id = next(iter(self._noted))
            noted = self._noted.pop(key_id)
            try:
                await self._log.append(
                    self._clock(),
                    key_id,
                    ACTION,
                    f"{noted.num_requests} requests" if noted.num_requests > 1 else noted.listed[0]["request"],
                    "done",
                    sums=[
                        {"detector": detector, "direction": direction, "action": action, "count": count}
                        for (detector, direction, action), count in sorted(noted.sums.items())
                    ],
                    requests=noted.listed,
                )
            except (KeyStoreDown, asyncio.CancelledError) as error:
                self._put_back(key_id, noted)
                if isinstance(error, asyncio.CancelledError):
                    raise
                return

    def _put_back(self, key_id: str, noted: _Noted) -> None:
        """In front of what came meanwhile."""
        later = self._noted.pop(key_id, _Noted())
        noted.num_requests += later.num_requests
        noted.sums += later.sums
        noted.listed = [*noted.listed, *later.listed][:MAX_LISTED]
        self._noted[key_id] = noted
