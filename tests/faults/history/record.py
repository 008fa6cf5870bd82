"""What happened, as it happened: requests as their clients saw them, and what was done to workers.

Knows nothing about what should have happened.
"""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.streamed import Streamed


@dataclass
class Asked:
    """One request. Times in seconds of ``time.monotonic``; ``ended_at`` is infinite while it runs."""

    request_id: str
    question: str
    sent_at: float
    seen: Streamed = field(default_factory=Streamed)
    has_left: bool = False
    ended_at: float = float("inf")


@dataclass(frozen=True)
class Harm:
    """One worker from a signal to its recovery."""

    kind: str
    worker: str
    began_at: float
    ended_at: float = float("inf")


@dataclass
class History:
    """Everything in order of its beginning."""

    requests: list[Asked] = field(default_factory=list)
    harms: list[Harm] = field(default_factory=list)

    @property
    def num_left(self) -> int:
        """Clients that went away in the middle."""
        return sum(one.has_left for one in self.requests)

    @property
    def num_faults(self) -> int:
        """Harms and departures."""
        return len(self.harms) + self.num_left

    def ask(self, request_id: str, question: str) -> Asked:
        """A request is sent now."""
        asked = Asked(request_id, question, time.monotonic())
        self.requests.append(asked)
        return asked

    def write(self, path: Path, lines: dict[str, list[dict[str, Any]]]) -> None:
        """Keep it for whoever looks for the reason of a violation, with the gateway's own lines."""
        with path.open("w", encoding="utf-8") as file:
            for harm in self.harms:
                file.write(json.dumps({"harm": vars(harm)}, default=str) + "\n")
            for asked in self.requests:
                facts = {**vars(asked), "seen": vars(asked.seen), "lines": lines.get(asked.request_id)}
                file.write(json.dumps({"request": facts}, default=vars) + "\n")
