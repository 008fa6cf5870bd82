"""How rollouts end in a real mesh: `make bench-rollout-real`.

    python tests/bench/rollout_real.py [--runs 2] [--cases a1,b,…] [--minutes M] [--out DIR] [--docs docs/rollouts]

`serin up` with real processes, real traffic, versions that are worse or not, and `serin rollout start` for each. Writes
results.json after every rollout, goes on with one that it finds, and writes real.md. An hour on two cores.
"""

import argparse
import asyncio
import json
import math
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.running_mesh import MeshFailed, RunningMesh
from rollout_real_builds import MODELS
from rollout_real_cases import REAL_CASES
from rollout_real_load import questions
from rollout_real_report import machine, write_report
from rollout_real_run import Bench, model_name, real_rollout
from serin_worker.demo.corpus import held_out_items

DEFAULT_OUT = Path(__file__).resolve().parents[2] / "build" / "bench" / "rollout-real"
NUM_GOLDEN = 240
GOLDEN_TOKENS = 64


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing, print, keep."""
    parser = argparse.ArgumentParser(description="Run real rollouts in a real mesh and write down how they end.")
    parser.add_argument("--runs", type=int, default=2, help="rollouts of each case; d, f, i: twice (default: 2)")
    parser.add_argument("--cases", default=",".join(REAL_CASES), help="which cases, in which order (default: all)")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin nothing after so long (default: no end)")
    parser.add_argument("--at-once", type=int, default=2, help="rollouts at the same time, of as many models (2)")
    parser.add_argument("--callers", type=int, default=8, help="callers of each model at the same time (default: 8)")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="folder; what lies there already is gone on with")
    parser.add_argument("--docs", type=Path, help="folder for real.md (default: as --out)")
    arguments = parser.parse_args(argv)
    arguments.out.mkdir(parents=True, exist_ok=True)
    book = Book(arguments.out / "results.json", arguments.docs or arguments.out)
    with tempfile.TemporaryDirectory(prefix="serin-bench-") as folder:
        asyncio.run(_run(arguments, book, Path(folder)))
    book.keep()
    return 0


class Book:
    """What is known of rollouts so far, kept in a file."""

    def __init__(self, path: Path, docs: Path) -> None:
        self._path, self._docs = path, docs
        self.rollouts: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []

    def add(self, outcome: dict[str, Any]) -> None:
        """One more."""
        self.rollouts.append({**outcome, "machine": machine()})
        self.keep()

    def keep(self) -> None:
        """Write the results and the page."""
        self._path.write_text(json.dumps(self.rollouts, indent=1) + "\n", encoding="utf-8")
        if self.rollouts:
            write_report(self._docs, self.rollouts)

    def missing(self, cases: Sequence[str], num_runs: int) -> Iterator[str]:
        """Cases that have fewer rollouts, some of each in turn."""
        done = Counter(str(outcome["case"]) for outcome in self.rollouts)
        for number in range(num_runs):
            for case in cases:
                times = REAL_CASES[case].times
                yield from (case for place in range(number * times, (number + 1) * times) if done[case] <= place)


async def _run(arguments: argparse.Namespace, book: Book, folder: Path) -> None:
    cases = arguments.cases.split(",")
    missing = book.missing(cases, arguments.runs)
    began = time.monotonic()
    mesh = RunningMesh(folder / "state", _declaration(cases, arguments.at_once))
    asked = questions()
    golden = _write_golden(folder / "golden.jsonl")

    async def work(number: int) -> None:
        own = folder / f"bench-{number}"
        own.mkdir()
        bench = Bench(mesh, number, own, golden, arguments.callers, asked)
        for tag, name in enumerate(missing):
            if time.monotonic() - began > arguments.minutes * 60:
                return
            try:
                outcome = await real_rollout(bench, REAL_CASES[name], f"{number}-{tag}")
            except MeshFailed as problem:
                print(f"{name}: not run: {problem}", flush=True)
                continue
            book.add(outcome)
            print(_line(outcome, time.monotonic() - began), flush=True)

    await asyncio.to_thread(mesh.start)
    try:
        await asyncio.gather(*(work(number) for number in range(arguments.at_once)))
    finally:
        await asyncio.to_thread(mesh.stop)


def _declaration(cases: Sequence[str], at_once: int) -> str:
    """A model for each demo version that has the traffic in one of the cases, for each rollout at a time."""
    stables = sorted({REAL_CASES[name].stable for name in cases})
    models = [
        f"  {model_name(stable, number)}: {{precision: float32, numerics: invariant, "
        f"versions: {{{stable}: {{path: {MODELS / stable}}}}}}}"
        for number in range(at_once)
        for stable in stables
    ]
    return "models:\n" + "\n".join(models) + "\n"


def _write_golden(path: Path) -> Path:
    """Held-out questions of the demo's corpus that have no functions on offer."""
    cases = [
        {
            "id": f"{item.kind}-{number}",
            "messages": [dict(message) for message in item.messages],
            "expect": {"exact": item.answer},
            "max_tokens": GOLDEN_TOKENS,
        }
        for number, item in enumerate(held_out_items(NUM_GOLDEN))
        if item.kind != "tools"
    ]
    path.write_text("\n".join(map(json.dumps, cases)), encoding="utf-8")
    return path


def _line(outcome: dict[str, Any], after_s: float) -> str:
    seen = outcome["callers"]
    lost = f"{seen['num_lost']} lost of {seen['num_requests']}"
    return (
        f"{after_s / 60:5.1f} min  {outcome['case']}: {outcome['end']} after {outcome['seconds']:.0f} s, "
        f"{outcome['sessions']} sessions, {outcome['requests']} requests, {lost}: {outcome['reason']}"
    )


if __name__ == "__main__":
    sys.exit(main())
