"""From what is known of each metric to a verdict of each and of all.

A metric *promotes* when the upper end of its interval is below the tolerance. It *aborts* when the lower end is above
zero (it is worse, whatever the tolerance) and the odds are ten to one that it is worse than tolerated. So a version no
worse than the old one is taken back in at most ``error_rate`` of rollouts (over all metrics and looks: Bonferroni), one
that is worse but within a tolerance in at most a tenth; one worse than tolerated is promoted in at most ``error_rate``
(no correction is needed where every metric must agree: Berger, Multiparameter hypothesis testing, 1982).
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from serin_control.judge import sentences
from serin_control.judge.bets import Bets
from serin_control.judge.memory import Growth
from serin_control.judge.metrics import METRICS, Metric
from serin_control.judge.settings import JudgeSettings
from serin_control.judge.verdict import Decision, MetricVerdict, Verdict

ODDS_BEYOND_TOLERANCE = 10.0
RARE_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Known:
    """What a judge has gathered; pairs are (stable, canary).

    Attributes:
        bets: by metric; absent where nothing was seen.
        memory: growth of the processes.
        reasons, endings: the canary's requests by outcome, its answers by finish reason.
        golden_scores: sums of the golden set's scores.
        num_exposed_requests, num_exposed_sessions: what met the canary, judged or not.
        num_running: of the exposed requests, those of which no end is known.
        left_out_s: seconds that were left out because the old version could take no calls.
    """

    bets: Mapping[str, Bets]
    memory: tuple[Growth, Growth]
    reasons: Counter[str]
    endings: Counter[str]
    golden_scores: tuple[float, float]
    num_exposed_requests: int
    num_exposed_sessions: int
    num_running: int = 0
    left_out_s: float = 0.0


def decide(settings: JudgeSettings, known: Known) -> Decision:
    """Judge every metric of which something is known, then all together."""
    verdicts = tuple(verdict for name in METRICS if (verdict := _judge(settings, name, known)) is not None)
    quality = [v for v in verdicts if v.metric in settings.quality_metrics and v.num_samples]
    needed = _needed(settings, known, verdicts, quality)
    overall, reason = _together(settings, known, needed, bool(quality))
    return Decision(
        overall,
        reason,
        verdicts,
        known.num_exposed_requests,
        known.num_exposed_sessions,
        bool(quality),
        known.num_running,
    )


def _judge(settings: JudgeSettings, name: str, known: Known) -> MetricVerdict | None:
    if name == "memory":
        return _of_memory(settings, known.memory)
    bets = known.bets.get(name)
    return None if bets is None else _of_bets(settings, METRICS[name], bets, known)


def _of_bets(settings: JudgeSettings, metric: Metric, bets: Bets, known: Known) -> MetricVerdict:
    strict = settings.abort_error_rate(metric.name)
    both = settings.is_two_sided(metric.name)
    low, high = bets.interval(strict, strict if both else settings.error_rate)
    ends = sorted((metric.from_burden(low), metric.from_burden(high)))
    stable, canary = _values(metric, bets, known)
    verdict = _verdict_of(
        (bets.evidence_above(0), bets.evidence_above(1), bets.evidence_below(1)),
        (bets.evidence_below(0), bets.evidence_below(-1), bets.evidence_above(-1)) if both else None,
        strict,
        settings.error_rate,
    )
    return MetricVerdict(
        metric=metric.name,
        verdict=verdict if settings.is_judged(metric.name) else Verdict.WAIT,
        difference=metric.from_burden(bets.difference),
        low=_possible(metric, ends[0]),
        high=_possible(metric, ends[1]),
        num_samples=bets.num_new,
        stable_value=stable,
        canary_value=canary,
        tolerance=settings.tolerance(metric.name),
        note=_note(settings, metric, bets, known),
        unit=metric.unit,
    )


def _possible(metric: Metric, end: float) -> float:
    """An interval's end that is a number, no further off than its metric can be: shares differ by 1 at most."""
    return max(-1.0, min(1.0, end)) if metric.unit == "share" and math.isfinite(end) else end


def _verdict_of(
    worse: tuple[float, float, float], changed: tuple[float, float, float] | None, strict: float, error_rate: float
) -> Verdict:
    """From evidence for: worse at all, worse than tolerated, not worse than tolerated; for one or both directions."""
    directions = [worse] if changed is None else [worse, changed]
    if any(
        at_all >= -math.log(strict) and beyond >= math.log(ODDS_BEYOND_TOLERANCE) for at_all, beyond, _ in directions
    ):
        return Verdict.ABORT
    return Verdict.PROMOTE if all(within >= -math.log(error_rate) for _, _, within in directions) else Verdict.WAIT


def _values(metric: Metric, bets: Bets, known: Known) -> tuple[float, float]:
    if metric.name == "golden":
        return known.golden_scores[0] / bets.num_new, known.golden_scores[1] / bets.num_new
    if metric.unit == "ratio":
        return 1.0, 1.0 + metric.from_burden(bets.difference)
    stable, canary = (metric.span * (burden if metric.worse > 0 else 1.0 - burden) for burden in bets.means)
    return stable, canary


def _note(settings: JudgeSettings, metric: Metric, bets: Bets, known: Known) -> str:
    notes = []
    if not settings.is_judged(metric.name):
        notes.append("shown, not judged")
    if not bets.num_new:
        notes.append("nothing of the new version yet")
    elif not bets.num_old and metric.name == "answers":
        notes.append("no text was scored twice on the old version yet, so nothing says how much scores differ anyway")
    if metric.name == "errors":
        notes.append(sentences.classes(known.reasons, without="ok"))
        notes.append(sentences.left_out(known.left_out_s))
    if metric.name == "finish_reasons":
        notes.append(sentences.classes(known.endings))
    return "; ".join(note for note in notes if note)


def _of_memory(settings: JudgeSettings, memory: tuple[Growth, Growth]) -> MetricVerdict | None:
    old, new = memory
    if not old.num_processes and not new.num_processes:
        return None
    tolerance = settings.tolerance("memory")
    normal = max(0.0, old.median)
    strict = settings.abort_error_rate("memory")
    low, high = new.interval(strict, settings.error_rate)
    verdict = _verdict_of(
        (
            new.evidence_above(normal),
            new.evidence_above(normal + tolerance),
            new.evidence_below(normal + tolerance),
        ),
        None,
        strict,
        settings.error_rate,
    )
    return MetricVerdict(
        metric="memory",
        verdict=verdict if settings.is_judged("memory") else Verdict.WAIT,
        difference=new.median - normal,
        low=low - normal,
        high=high - normal,
        num_samples=new.num_windows,
        stable_value=normal,
        canary_value=new.median,
        tolerance=tolerance,
        note=f"bytes per 1,000 requests; {new.num_windows} windows of {new.num_processes} processes",
        unit="bytes",
    )


def _needed(
    settings: JudgeSettings, known: Known, verdicts: Sequence[MetricVerdict], quality: Sequence[MetricVerdict]
) -> list[MetricVerdict]:
    """The verdicts that count: what few requests can show counts only where enough of them do."""
    total = known.bets["errors"].num_old + known.bets["errors"].num_new if "errors" in known.bets else 0
    needed = []
    for verdict in verdicts:
        if not settings.is_judged(verdict.metric):
            continue
        bets = known.bets.get(verdict.metric)
        scarce = bets is not None and METRICS[verdict.metric].rare and bets.num_old + bets.num_new < RARE_SHARE * total
        only_quality = [v.metric for v in quality] == [verdict.metric]
        if not scarce or only_quality or verdict.verdict is Verdict.ABORT:
            needed.append(verdict)
    return needed


def _together(
    settings: JudgeSettings, known: Known, needed: Sequence[MetricVerdict], quality_judged: bool
) -> tuple[Verdict, str]:
    aborting = [verdict for verdict in needed if verdict.verdict is Verdict.ABORT]
    if aborting:
        return Verdict.ABORT, "; ".join(sentences.comparison(verdict, known.bets) for verdict in aborting)
    waiting = [verdict for verdict in needed if verdict.verdict is Verdict.WAIT]
    if settings.intent == "experiment":
        return Verdict.WAIT, "an experiment is reported, never promoted"
    if "errors" not in known.bets:
        return Verdict.WAIT, "no request has been compared yet"
    if waiting:
        return Verdict.WAIT, sentences.missing(waiting, known.bets, settings.error_rate)
    if not quality_judged:
        return Verdict.WAIT, sentences.no_quality(settings.intent, settings.subject)
    return Verdict.PROMOTE, "nothing is worse than tolerated: " + "; ".join(
        sentences.comparison(verdict, known.bets) for verdict in needed
    )
