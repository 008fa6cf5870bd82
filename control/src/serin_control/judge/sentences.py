"""What was found, in words for the person who was woken by it. Knows figures and units, decides nothing."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from serin_control.judge.bets import Bets
from serin_control.judge.forecast import sessions_to_clear
from serin_control.judge.metrics import METRICS
from serin_control.judge.verdict import MetricVerdict

MEBIBYTE = 2.0**20
# Below this share of the evidence that is needed, nothing can be said about how long the rest will take.
LEAST_PROGRESS = 0.2


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
    """What is waited for, most missing first, and about how much of it is needed."""
    shares = {verdict.metric: _progress(verdict, bets, error_rate) for verdict in waiting}
    worst = min(waiting, key=lambda verdict: shares[verdict.metric])
    others = [METRICS[verdict.metric].title for verdict in waiting if verdict is not worst]
    parts = [f"not known well enough yet: {comparison(worst, bets)}, tolerated {_tolerance(worst)}"]
    if needed := _needed(worst, bets.get(worst.metric), shares[worst.metric], error_rate):
        parts.append(f"about {_rounded(needed)} {_noun(worst)} are needed")
    if others:
        parts.append(f"also {', '.join(others)}")
    return "; ".join(parts)


def no_quality(intent: str, subject: str) -> str:
    """Why nothing promotes by itself."""
    if subject == "cache":
        return "quality: not judged (of no request it is known what was reused); a person can promote"
    how = (
        "no answer was scored on both versions"
        if intent == "same"
        else "there is no golden set, no feedback and no answer with a schema"
    )
    return f"quality: not judged ({how}); a person can promote"


def classes(counts: Counter[str], without: str = "") -> str:
    """For example "INTERNAL 9, NOT_READY 1", the most frequent first."""
    return ", ".join(f"{reason} {count}" for reason, count in counts.most_common() if reason != without)


def left_out(seconds: float) -> str:
    """What is not compared; empty: everything is."""
    return f"{seconds:.0f} s left out: the old version took no calls, or just before or after" if seconds else ""


def _progress(verdict: MetricVerdict, bets: Mapping[str, Bets], error_rate: float) -> float:
    known = bets.get(verdict.metric)
    evidence = known.evidence_below(1) if known is not None else 0.0
    return evidence / -math.log(error_rate)


def _needed(verdict: MetricVerdict, known: Bets | None, progress: float, error_rate: float) -> float:
    """Samples that are needed in all, as far as the evidence goes; else what a share like this usually takes."""
    if progress > LEAST_PROGRESS:
        return verdict.num_samples / min(progress, 1.0)
    if known is None or verdict.unit != "share" or not known.num_new or not known.num_old:
        return 0.0
    return sessions_to_clear(known.means[0], known.num_old / known.num_new, known.tolerance, error_rate)


def _samples(verdict: MetricVerdict) -> str:
    return f"{verdict.num_samples:,} {_noun(verdict)}"


def _noun(verdict: MetricVerdict) -> str:
    return {"memory": "windows", "golden": "questions"}.get(verdict.metric, "sessions")


def _rounded(number: float) -> str:
    """To two digits: no more is known."""
    magnitude = 10 ** max(0, math.floor(math.log10(max(number, 1.0))) - 1)
    return f"{math.ceil(number / magnitude) * magnitude:,}"


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
