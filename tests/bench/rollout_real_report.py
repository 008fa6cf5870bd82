"""What real rollouts came to, as Markdown. Knows outcomes, nothing about how they came about."""

import os
import platform
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rollout_real_cases import COARSER, MAX_DURATION, MIN_SAMPLES, REAL_CASES, STEPS

Outcome = Mapping[str, Any]
HEAD = """# Real rollouts: what was measured

Written by `make bench-rollout-real`. {num} rollouts in real meshes, beside the simulated ones of
[results.md](results.md): `serin up` with a process for every service, the demo models on the real worker, versions
added by `serin add`, each rollout started by `serin rollout start` and ended by the judge. Nothing is a mock; what is
wrong with a version really is wrong with it. Measured on {machines}; {dates}.

**{right} of {num} ended as they should; {lost} of {requests} requests were lost** (failed or broke off, other than
those that a case fails itself).

"""
READING = """
*Canary requests* and *sessions exposed* are all that met the new version until the verdict, *seconds* the time from
`serin rollout start` until then: smallest to largest. *Lost*: requests that callers did not get a whole answer to,
during the rollout, some seconds before and after it, other than those that a case fails itself; of all that they made.

## How

- **Traffic** is over REST, half of it streamed. For each rollout some callers (`--callers`) have one session after the
  other, each of one to three requests (mean 1.35): held-out questions of the demo's corpus with answers of at most 16
  tokens. No session was ever seen by an earlier rollout. Callers go on for some seconds after a verdict, and every
  request that had begun is waited for.
- **Steps**: one, {steps} of new sessions, at least {min_samples} canary requests, at most {max_duration}; then
  everything. Two rollouts at a time, of models of their own, share one mesh, its gateway and the machine's cores.
- **The machine had other work** all the while, so latencies are noisy, and so are the seconds that verdicts took.
- **Bad versions** are judged at the default tolerances. **Good ones** (g, h) are not: at some three canary sessions a
  second the default of 0.5 points of errors takes more than half an hour to clear, and scores of one text in five as
  long. They are let through with coarser ones, so that g and h show that the way to a promotion works, and not how fine
  it can be: {coarser}. All else is the default.
- Warm-up and watching are the judge's own, two minutes and half a minute, and are in the seconds. Golden questions are
  asked at once, so that i ends before that.
- Before a2 a person promotes a build that fails 1 % of its requests; that is not counted.
- d and f get no traffic; it flows on the old version all the while.

"""


def machine() -> str:
    """The machine's processor and cores."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def write_report(folder: Path, rollouts: Sequence[Outcome]) -> None:
    """Write real.md."""
    folder.mkdir(parents=True, exist_ok=True)
    head = HEAD.format(
        num=len(rollouts),
        machines="; ".join(sorted({str(one["machine"]) for one in rollouts})),
        dates=_span(sorted({str(one["at"])[:10] for one in rollouts})),
        right=sum(map(_is_right, rollouts)),
        lost=sum(one["callers"]["num_lost"] for one in rollouts),
        requests=f"{sum(one['callers']['num_requests'] for one in rollouts):,}",
    )
    coarser = ", ".join(f"`{metric}={most:g}`" for metric, most in COARSER.items())
    reading = READING.format(steps=STEPS, min_samples=MIN_SAMPLES, max_duration=MAX_DURATION, coarser=coarser)
    (folder / "real.md").write_text(head + _by_case(rollouts) + reading + _each(rollouts), encoding="utf-8")


def _by_case(rollouts: Sequence[Outcome]) -> str:
    rows = [
        "| case | what was done | rollouts | right | others | canary requests | sessions exposed | seconds | lost |",
        "|---|---|---:|---:|---|---:|---:|---:|---:|",
    ]
    for name, case in REAL_CASES.items():
        mine = [one for one in rollouts if one["case"] == name]
        if not mine:
            continue
        cells = [_range([one[key] for one in mine]) for key in ("requests", "sessions", "seconds")]
        lost = sum(one["callers"]["num_lost"] for one in mine)
        made = sum(one["callers"]["num_requests"] for one in mine)
        right = sum(map(_is_right, mine))
        others = ", ".join(_others(mine))
        rows.append(
            f"| {name}: {case.title} | {case.done} | {len(mine)} | {right} | {others} | {' | '.join(cells)} | "
            f"{lost} of {made:,} |"
        )
    return "\n".join(rows) + "\n"


def _each(rollouts: Sequence[Outcome]) -> str:
    rows = [
        "## Each of them",
        "",
        "| case | began | end | seconds | why, as the rollout says |",
        "|---|---|---|---:|---|",
    ]
    for one in sorted(rollouts, key=lambda one: str(one["case"])):
        end = one["end"] if _is_right(one) else f"**{one['end']}**"
        reason = " ".join(str(one["reason"]).replace("|", "/").split())
        rows.append(f"| {one['case']} | {one['at']} | {end} | {one['seconds']:.0f} | {reason} |")
    return "\n".join(rows) + "\n"


def _is_right(one: Outcome) -> bool:
    return one["end"] in REAL_CASES[one["case"]].wanted


def _others(rollouts: Sequence[Outcome]) -> Iterator[str]:
    """Wrong ends and how often there was each."""
    for end, number in Counter(str(one["end"]) for one in rollouts if not _is_right(one)).items():
        yield f"{number} {end}"


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):,.0f}", f"{max(values):,.0f}"
    return low if low == high else f"{low} to {high}"


def _span(dates: Sequence[str]) -> str:
    return dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
