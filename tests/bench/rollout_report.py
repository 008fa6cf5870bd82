"""Tables and plots of simulated rollouts, as Markdown and SVG. Knows outcomes, nothing about how they came about."""

import math
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rollout_cases import CASES, GOOD
from rollout_plot import Curve, chart
from rollout_simulated import STEPS
from rollout_traffic import CANARY, SESSIONS_PER_S, STABLE
from serin_control.judge.forecast import Usual, forecast
from serin_control.judge.settings import JudgeSettings

OURS = "serin"
WHOLE_RUN = 1000
PLOTS = (
    (
        "exposed.svg",
        "Requests that met a bad version before it was taken back",
        "canary requests",
        "num_requests",
        1.0,
        False,
    ),
    ("promoted.svg", "Time until a good version had everything", "hours", "seconds", 1 / 3600, True),
)
Outcomes = Sequence[Mapping[str, Any]]
Results = Mapping[str, Mapping[str, Outcomes]]


HEAD = """# Simulated rollouts: what was measured

Written by `make bench-rollout`; the method is in [judge.md](judge.md); real rollouts, some twenty, are in
[real.md](real.md). Seeds from {seed:,} on: nothing
was tuned with them.

"""
Z = 1.645
"""Of Wilson's interval: 95 %, one-sided."""

SHORT = """**This run was stopped before it had 1,000 rollouts of each case**; the tables say how many there were.
`make bench-rollout` simulates the rest.

"""
READING = """
*right*: ended with the right verdict, with the lower end of its 95 % interval (Wilson). *Canary requests to verdict*
counts all requests that met the new version, whatever the judge used of them.

![exposed](exposed.svg)

![promoted](promoted.svg)

## Against judges by thresholds

As Argo Rollouts' analysis and Flagger's checks work: a measurement a minute, taken back after more failed ones than
are borne, promoted after so many in all ("more than 4 of 120": taken back at the fifth failed one, promoted after 120).
They see errors, time per token (more than 20 % above the old version's in the same minute is a failed measurement) and,
where there is one, the golden set; nothing of scores or memory. The same traffic, by seed.

Each cell: share of good versions taken back, or share of bad ones missed and the canary requests (p50) until the others
were found.
"""


def write(folder: Path, results: Results, first_seed: int) -> None:
    """Write results.md and the plots; print the tables."""
    verdicts, costs, thresholds = _verdicts(results), _costs(results), _thresholds(results)
    print("\n\n".join((verdicts, costs, thresholds)))
    ours = {case: len(by_judge[OURS]) for case, by_judge in results.items() if OURS in by_judge}
    whole = all(number >= WHOLE_RUN * CASES[case].num_runs for case, number in ours.items())
    head = HEAD.format(seed=first_seed) + ("" if whole else SHORT)
    others = (len(outcomes) for by_judge in results.values() for judge, outcomes in by_judge.items() if judge != OURS)
    parts = (head, verdicts, "\n\n", costs, "\n\n", _stated(results), READING, counted(ours, others))
    parts += ("\n", thresholds, "\n")
    text = "".join(parts)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.md").write_text(text, encoding="utf-8")
    for name, title, axis, key, scale, wanted_good in PLOTS:
        curves = [
            Curve(f"{case}: {CASES[case].title}", sorted(_of(by_judge[OURS], key, CASES[case].wanted)))
            for case, by_judge in results.items()
            if OURS in by_judge and (CASES[case].wanted == GOOD) == wanted_good
        ]
        curves = [curve for curve in curves if curve.values]
        if curves:
            (folder / name).write_text(chart(title, axis, curves, scale), encoding="utf-8")


def counted(ours: Mapping[str, int], others: Iterable[int]) -> str:
    """How many rollouts the figures are of, and why not of more.

    Args:
        ours: those of our judge, by case.
        others: those of each other judge and case.
    """
    most = max(ours.values(), default=0)
    fewer = "".join(
        f", but {number:,} of {case}" + (f", since {CASES[case].why_fewer}" if CASES[case].why_fewer else "")
        for case, number in ours.items()
        if number < most
    )
    text = f"Rollouts of serin's judge: {most:,} of each case{fewer}."
    if numbers := sorted(set(others)):
        least, number = numbers[0], numbers[-1]
        bounds = f"{number:,}" if least == number else f"{least:,} to {number:,}"
        text += (
            f" Rollouts of each judge by thresholds: {bounds} of each case, those of the first seeds. They show how "
            f"coarse such judges are, not how far below a per cent they fall: 0 of {number:,} means at most "
            f"{_percent(Z * Z / (number + Z * Z))}."
        )
    return "\n" + textwrap.fill(text, 120) + "\n"


def _verdicts(results: Results) -> str:
    rows = ["| case | rollouts | right | promoted | taken back | undecided |", "|---|---:|---:|---:|---:|---:|"]
    for case, by_judge in results.items():
        if OURS not in by_judge:
            continue
        outcomes = by_judge[OURS]
        shares = {verdict: _share(outcomes, verdict) for verdict in ("promote", "abort", "wait")}
        rows.append(
            f"| {case}: {CASES[case].title} | {len(outcomes):,} | **{_percent(shares[CASES[case].wanted])}** "
            f"({_at_least(outcomes, CASES[case].wanted)}) | {_percent(shares['promote'])} | "
            f"{_percent(shares['abort'])} | {_percent(shares['wait'])} |"
        )
    return "\n".join(rows)


def _costs(results: Results) -> str:
    rows = [
        "| case | canary requests to verdict, p50 / p95 | sessions exposed, p50 / p95 | time, p50 / p95 |",
        "|---|---:|---:|---:|",
    ]
    for case, by_judge in results.items():
        if OURS not in by_judge:
            continue
        wanted = CASES[case].wanted
        cells = [
            _quantiles(_of(by_judge[OURS], key, wanted), shown)
            for key, shown in (("num_requests", _whole), ("num_sessions", _whole), ("seconds", _duration))
        ]
        rows.append(f"| {case}: {CASES[case].title} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _stated(results: Results) -> str:
    """How often good versions were promoted within the sessions that the forecast states."""
    parts = []
    for case, by_judge in results.items():
        if OURS not in by_judge or CASES[case].wanted != GOOD:
            continue
        settings = JudgeSettings(STABLE, CANARY, CASES[case].intent)
        usual = Usual(error_share=CASES[case].stable_errors)
        stated = forecast(settings, SESSIONS_PER_S, 1.0, STEPS[-1][0], usual=usual).sessions
        outcomes = by_judge[OURS]
        within = sum(o["verdict"] == GOOD and o["num_sessions"] <= stated for o in outcomes) / len(outcomes)
        parts.append(f"{case}: {_percent(within)} within {stated:,} sessions")
    return f"Promoted within what the forecast states: {'; '.join(parts)}.\n"


def _thresholds(results: Results) -> str:
    """Each judge: how often it is wrong, and what it exposes in the cases that all of them can see."""
    judges = sorted({judge for by_judge in results.values() for judge in by_judge}, key=lambda judge: judge != OURS)
    good = [case for case in results if CASES[case].wanted == GOOD]
    bad = [case for case in results if CASES[case].wanted != GOOD]
    heads = [f"{case} taken back" for case in good] + [f"{case} missed; requests p50" for case in bad]
    rows = [f"| judge | {' | '.join(heads)} |", "|---|" + "---:|" * len(heads)]
    for judge in judges:
        cells = [_taken_back(results[case][judge]) if judge in results[case] else "" for case in good]
        cells += [_missed(results[case][judge]) if judge in results[case] else "" for case in bad]
        rows.append(f"| {judge} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _taken_back(outcomes: Outcomes) -> str:
    return f"{_percent(_share(outcomes, 'abort'))} of {len(outcomes)}"


def _missed(outcomes: Outcomes) -> str:
    found = _of(outcomes, "num_requests", "abort")
    missed = f"{_percent(1 - len(found) / len(outcomes))} of {len(outcomes)}"
    return f"{missed}; {_whole(_quantile(sorted(found), 0.5))}" if found else f"{missed}; -"


def _of(outcomes: Outcomes, key: str, verdict: str) -> list[float]:
    return [float(outcome[key]) for outcome in outcomes if outcome["verdict"] == verdict]


def _share(outcomes: Outcomes, verdict: str) -> float:
    return sum(outcome["verdict"] == verdict for outcome in outcomes) / len(outcomes)


def _at_least(outcomes: Outcomes, verdict: str) -> str:
    """Lower end of Wilson's interval (95 %, one-sided) of the share."""
    number, share = len(outcomes), _share(outcomes, verdict)
    middle = share + Z * Z / (2 * number)
    width = Z * math.sqrt(share * (1 - share) / number + Z * Z / (4 * number * number))
    return f"at least {(middle - width) / (1 + Z * Z / number) * 100:.1f} %"


def _quantiles(values: Sequence[float], shown: Callable[[float], str]) -> str:
    ordered = sorted(values)
    return f"{shown(_quantile(ordered, 0.5))} / {shown(_quantile(ordered, 0.95))}" if ordered else "-"


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _percent(share: float) -> str:
    return f"{share * 100:.1f} %"


def _whole(value: float) -> str:
    return f"{value:,.0f}"


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
