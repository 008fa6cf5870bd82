"""The committed trace of chat sessions that simulated rollouts are drawn from: how it is made and how it is read.

    python tests/bench/rollout_traces.py        # writes traces/sessions.csv.gz again, the same bytes

It is synthetic and says so: no traffic of real people is in it. What it has is what makes judging hard. Sessions have
Zipf lengths, users differ in difficulty (their answers are longer, slower and fail more often, in all of their
requests), conversations grow and so do prompts, and there are four times as many sessions by day as by night. Times are
without load: that is added where the trace is played. Beside it lie two recordings of the demo models: which of 600
held-out questions each version answers right, and what damaged weights do to the scores of answers.
"""

import csv
import gzip
import io
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parent / "traces"
SEED = 20_261
SESSIONS_PER_HOUR = 120
MAX_REQUESTS = 100
ZIPF = 1.9
COLUMNS = (
    "hour",
    "session",
    "failing",
    "offset_s",
    "uncached",
    "cached",
    "first_token_ms",
    "token_ms",
    "tokens",
    "cut",
)


@dataclass(frozen=True, slots=True)
class Request:
    """One request of a session, on an idle warm worker."""

    offset_s: float
    num_uncached: int
    num_cached: int
    first_token_s: float
    seconds_per_token: float
    num_tokens: int
    cut_off: bool


@dataclass(frozen=True, slots=True)
class Session:
    """One session; ``failing``: how many times likelier than usual its requests fail."""

    failing: float
    requests: tuple[Request, ...]


@dataclass(frozen=True)
class Trace:
    """Sessions of each hour of a day, in order of their start."""

    hours: tuple[tuple[Session, ...], ...]

    def mean_requests(self) -> float:
        """Requests of a session."""
        sessions = [session for hour in self.hours for session in hour]
        return sum(len(session.requests) for session in sessions) / len(sessions)


def busyness(hour: float) -> float:
    """How many sessions begin at this hour of the day, relative to the day's mean."""
    return 1.0 + 0.6 * math.cos((hour - 14.0) / 24.0 * 2 * math.pi)


def read_trace() -> Trace:
    """The committed one."""
    hours: list[dict[str, tuple[float, list[Request]]]] = [{} for _ in range(24)]
    with gzip.open(FOLDER / "sessions.csv.gz", "rt", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            _, requests = hours[int(row["hour"])].setdefault(row["session"], (float(row["failing"]), []))
            requests.append(
                Request(
                    float(row["offset_s"]), int(row["uncached"]), int(row["cached"]),
                    float(row["first_token_ms"]) / 1e3, float(row["token_ms"]) / 1e3,
                    int(row["tokens"]), row["cut"] == "1",
                )
            )  # fmt: skip
    return Trace(tuple(tuple(Session(f, tuple(r)) for f, r in hour.values()) for hour in hours))


def read_recording(name: str) -> dict[str, list[list[float]]]:
    """A committed recording of the demo models: "golden" or "scores"."""
    recording: dict[str, list[list[float]]] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return recording


def main() -> None:
    """Write the trace."""
    rng = np.random.default_rng(SEED)
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for hour in range(24):
        for session in range(SESSIONS_PER_HOUR):
            for row in _session(rng):
                rows.writerow((hour, session, *row))
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "sessions.csv.gz").write_bytes(gzip.compress(text.getvalue().encode(), 9, mtime=0))


def _session(rng: np.random.Generator) -> list[tuple[object, ...]]:
    num_requests = min(int(rng.zipf(ZIPF)), MAX_REQUESTS)
    difficulty = rng.normal(0.0, 0.5)
    failing = rng.gamma(0.2, 5.0) * math.exp(0.5 * difficulty - 0.125)
    offset_s, context = 0.0, int(rng.lognormal(5.0, 1.0))
    rows: list[tuple[object, ...]] = []
    for _ in range(num_requests):
        question = max(4, int(rng.lognormal(3.5, 0.8)))
        is_cached = bool(rows) and rng.random() < 0.8
        uncached, cached = (question, context) if is_cached else (question + context, 0)
        first_token_ms = (12.0 + 0.25 * uncached) * rng.lognormal(0.15 * difficulty, 0.25)
        token_ms = 18.0 * rng.lognormal(0.05 * difficulty, 0.08)
        tokens = max(1, int(rng.lognormal(4.2 + 0.4 * difficulty, 0.6)))
        cut = tokens > 400
        tokens = min(tokens, 400)
        rows.append(
            (
                f"{failing:.3f}", f"{offset_s:.1f}", uncached, cached, f"{first_token_ms:.2f}", f"{token_ms:.3f}",
                tokens, int(cut),
            )
        )  # fmt: skip
        context = min(context + question + tokens, 8000)
        offset_s += tokens * token_ms / 1e3 + rng.lognormal(2.0, 1.0)
    return rows


if __name__ == "__main__":
    main()
