"""What was found, in words for the person who was woken by it. Knows figures and units, decides nothing."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from serin_control.judge.bets import Bets
from serin_control.judge.metrics import METRICS
from serin_control.judge.verdict import MetricVerdict

MEBIBYTE = 2.0**20


def comparison(verdict: MetricVerdict, bets: Mapping[str, Bets]) -> str:
    """For example "errors 2.3 % against 0.1 % (+1.4..+3.1 points, 412 sessions)"."""
    metric = METRICS[verdict.metric]
    samples = _samples(verdict)
    low, high = _signed(verdict, verdict.low), _signed(verdict, verdict.high)
    match verdict.unit:
        case "share":
            values = f"{_percent(verdict.canary_value)} % against {_percent(verdict.stable_value)} %"
            return f"{metric.title} {values} ({low}..{high} points, {samples})"
        case "ratio":
            return f"{metric.title} {_signed(verdict, verdict.difference)} % ({low}..{high} %, {samples})"
        case "bytes":
            values = f"{verdict.canary_value / MEBIBYTE:.1f} MiB against {verdict.stable_value / MEBIBYTE:.1f} MiB"
            return f"{metric.title} {values} per 1,000 requests ({low}..{high} MiB, {samples})"
        case _:
            values = f"{verdict.canary_value:.4f} {verdict.unit} against {verdict.stable_value:.4f}"
            return f"{metric.title} {values} ({low}..{high}, {samples})"


def missing(waiting: Sequence[MetricVerdict], bets: Mapping[str, Bets], error_rate: float) -> str:
    """What is waited for, most missing first."""
    needed = {verdict.metric: _progress(verdict, bets, error_rate) for verdict in waiting}
    worst = min(waiting, key=lambda verdict: needed[verdict.metric])
    others = [METRICS[verdict.metric].title for verdict in waiting if verdict is not worst]
    parts = [f"not known well enough yet: {comparison(worst, bets)}, tolerated {_tolerance(worst)}"]
    if others:
        parts.append(f"also {', '.join(others)}")
    return "; ".join(parts)


def no_quality(intent: str) -> str:
    """Why nothing promotes by itself."""
    how = (
        "no answer was scored on both versions"
        if intent == "same"
        else "there is no golden set, no feedback and no answer with a schema"
    )
    return f"quality: not judged ({how}); a person can promote"


def classes(counts: Counter[str], without: str = "") -> str:
    """For example "INTERNAL 9, NOT_READY 1", the most frequent first."""
    return ", ".join(f"{reason} {count}" for reason, count in counts.most_common() if reason != without)


def _progress(verdict: MetricVerdict, bets: Mapping[str, Bets], error_rate: float) -> float:
    known = bets.get(verdict.metric)
    evidence = known.evidence_below(1) if known is not None else 0.0
    return evidence / -math.log(error_rate)


def _samples(verdict: MetricVerdict) -> str:
    noun = {"memory": "windows", "golden": "questions"}.get(verdict.metric, "sessions")
    return f"{verdict.num_samples:,} {noun}"


def _tolerance(verdict: MetricVerdict) -> str:
    match verdict.unit:
        case "share":
            return f"{_percent(verdict.tolerance)} points"
        case "ratio":
            return f"{_percent(verdict.tolerance)} %"
        case "bytes":
            return f"{verdict.tolerance / MEBIBYTE:.1f} MiB"
        case _:
            return f"{verdict.tolerance:.4f} {verdict.unit}"


def _signed(verdict: MetricVerdict, value: float) -> str:
    if math.isinf(value):
        return "?"
    match verdict.unit:
        case "share" | "ratio":
            return f"{value * 100:+.1f}"
        case "bytes":
            return f"{value / MEBIBYTE:+.1f}"
        case _:
            return f"{value:+.4f}"


def _percent(share: float) -> str:
    return f"{share * 100:.1f}" if abs(share) < 0.1 or share * 100 % 1 else f"{share * 100:.0f}"
