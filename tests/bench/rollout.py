"""How safe the judge is: `make bench-rollout`.

    python tests/bench/rollout.py [--runs 1000] [--cases a1,b,…] [--minutes M] [--out DIR] [--docs docs/rollouts]

Thousands of simulated rollouts, by case: our judge against judges by thresholds on the same traffic. Writes
results.json, goes on with one that it finds, and writes results.md with the plots. The seeds of development begin at
0, those of the published run at 900,000.
"""

import argparse
import functools
import json
import math
import multiprocessing
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from rollout_cases import CASES, Case
from rollout_report import write
from rollout_simulated import Outcome, judged, measured
from rollout_threshold import LIMITS
from rollout_traces import Trace, read_recording, read_trace

DEFAULT_OUT = Path(__file__).resolve().parents[2] / "build" / "bench" / "rollout"
OURS = "serin"
ROUND = 10
MAX_THRESHOLD_RUNS = 100
Results = dict[str, dict[str, list[dict[str, object]]]]


def main(argv: Sequence[str] | None = None) -> int:
    """Simulate what is missing, print, keep."""
    parser = argparse.ArgumentParser(description="Simulate rollouts and count right and wrong verdicts.")
    parser.add_argument("--runs", type=int, default=1000, help="rollouts of each case and judge (default: 1000)")
    parser.add_argument("--cases", default=",".join(CASES), help="which cases (default: all)")
    parser.add_argument("--judges", default=",".join((OURS, *LIMITS)), help="which judges (default: all)")
    parser.add_argument("--seed", type=int, default=900_000, help="first seed (default: 900000)")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin nothing after so long (default: no end)")
    parser.add_argument("--processes", type=int, default=multiprocessing.cpu_count(), help="at once (default: cores)")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="folder; what lies there already is gone on with")
    parser.add_argument("--docs", type=Path, help="folder for results.md and the plots (default: as --out)")
    arguments = parser.parse_args(argv)
    arguments.out.mkdir(parents=True, exist_ok=True)
    results = arguments.out / "results.json"
    kept: Results = json.loads(results.read_text(encoding="utf-8")) if results.exists() else {}
    began = time.monotonic()
    # Spawned, not forked: a fork of a process that has threads, of gRPC for one, may never run.
    with multiprocessing.get_context("spawn").Pool(arguments.processes) as pool:
        for name, judge, seeds in _rounds(arguments, kept):
            if time.monotonic() - began > arguments.minutes * 60:
                break
            outcomes = pool.map(functools.partial(_run, name, judge), seeds, 1)
            kept.setdefault(name, {}).setdefault(judge, []).extend(asdict(outcome) for outcome in outcomes)
            print(
                f"{name} {judge}: {len(kept[name][judge])} rollouts after {time.monotonic() - began:.0f} s", flush=True
            )
            results.write_text(json.dumps(kept), encoding="utf-8")
    write(arguments.docs or arguments.out, kept, arguments.seed)
    return 0


def _rounds(arguments: argparse.Namespace, kept: Results) -> Iterator[tuple[str, str, range]]:
    """Seeds that are missing, some of each case in turn, so that all cases have about as many."""
    for first in range(0, arguments.runs, ROUND):
        for name in arguments.cases.split(","):
            for judge in arguments.judges.split(","):
                done = len(kept.get(name, {}).get(judge, ()))
                num_runs = round(arguments.runs * CASES[name].num_runs)
                if judge != OURS:
                    num_runs = min(num_runs, MAX_THRESHOLD_RUNS)
                last = min(first + ROUND, num_runs)
                if done < last:
                    yield name, judge, range(arguments.seed + done, arguments.seed + last)


@functools.cache
def _trace() -> Trace:
    return read_trace()


@functools.cache
def _recordings() -> dict[str, dict[str, list]]:
    return {name: read_recording(name) for name in ("golden", "scores")}


def _run(name: str, judge: str, seed: int) -> Outcome:
    case: Case = CASES[name]
    if judge == OURS:
        return judged(_trace(), _recordings(), case, seed)
    return measured(_trace(), _recordings(), case, seed, LIMITS[judge])


if __name__ == "__main__":
    sys.exit(main())
