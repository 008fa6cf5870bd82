"""What a judge will need before it can decide: sessions, requests, seconds, and the smallest change they can show.

An equal version is cleared when the money bet against it has grown enough. How fast it grows on average, and how much
that varies, follows from the bets of :mod:`.bets` and from what is usual of a metric; the figures are those within
which 19 of 20 equal versions are cleared, and a fifth more for sessions that meet the new version and do not count
(during the warm-up, without their like on the old one). Knows nothing about rollouts, steps or what was observed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from serin_control.judge.bets import EFFECTS_DOWN, winnings
from serin_control.judge.blocks import OLD_PER_NEW
from serin_control.judge.metrics import METRICS
from serin_control.judge.settings import MAX_BURDEN, JudgeSettings, Subject

NINETEEN_OF_TWENTY = 1.645
MAX_SESSIONS = 10_000_000
MIN_BURDEN = 1e-5
HALVINGS = 13
NO_RATE = 1e-9
UNCOUNTED = 1.2
_SCORES = {0.0: 0.95, 0.02: 0.05}
_NORMAL = {-1.5: 0.15, -0.5: 0.35, 0.5: 0.35, 1.5: 0.15}


@dataclass(frozen=True, slots=True)
class Usual:
    """What sessions on the old version usually show; the defaults are guesses for a chat service.

    Attributes:
        error_share, cut_off_share: of requests.
        first_token_spread, per_token_spread, answer_length_spread: standard deviations of the logarithm, of sessions,
            after load and uncached tokens are accounted for.
        recall_error_share: of recalls.
        reused_share: of sessions whose prompts are reused as a whole, the others not at all: the worst case.
        stored_answer_share: of sessions that are answered from the store.
    """

    error_share: float = 0.002
    cut_off_share: float = 0.05
    first_token_spread: float = 0.5
    per_token_spread: float = 0.2
    answer_length_spread: float = 0.6
    recall_error_share: float = 0.002
    reused_share: float = 0.5
    stored_answer_share: float = 0.05


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is needed.

    Attributes:
        samples: requests on the new version until it can be promoted.
        sessions: sessions that make them.
        seconds: how long they take, at the rate and weight that were given.
        sessions_by_metric: sessions each metric needs at its tolerance.
        texts: texts that must be scored on both versions, and as many twice on the old one; they are the old version's,
            so they cost the new one's callers nothing. 0: scores are not judged.
        detectable: by metric, in its unit: the smallest tolerance that the sessions can show to be kept.
    """

    samples: int
    sessions: int
    seconds: float
    sessions_by_metric: Mapping[str, int]
    detectable: Mapping[str, float]
    texts: int = 0

    def too_fine(self, settings: JudgeSettings) -> Mapping[str, float]:
        """Metrics whose tolerance is smaller than what the sessions can show, and what they can show."""
        return {
            name: detectable
            for name, detectable in self.detectable.items()
            if settings.is_judged(name) and settings.tolerance(name) < detectable
        }


def forecast(
    settings: JudgeSettings,
    sessions_per_s: float,
    requests_per_session: float,
    weight: float,
    within_s: float | None = None,
    usual: Usual | None = None,
) -> Forecast:
    """Reckon one step.

    Args:
        settings: the judge's.
        sessions_per_s: new sessions of the model a second, on all versions together; 0: as good as never.
        requests_per_session: requests a session makes, on average; at least 1.
        weight: share of the sessions that meet the new version, above 0 and at most 1; at 1 there is nothing left to
            compare with, so nothing is needed and nothing can be seen.
        within_s: seconds in which ``detectable`` must be seen; None: in which the slowest metric is known.
        usual: what sessions show; None: guesses.
    """
    old_per_new = min(float(OLD_PER_NEW), (1.0 - weight) / weight)
    if old_per_new <= 0:
        return Forecast(0, 0, 0.0, {}, {})
    by_metric = _distributions(usual or Usual(), settings.subject)
    needed = {
        name: _sessions(units, old_per_new, METRICS[name].to_burden(settings.tolerance(name)), settings.error_rate)
        for name, units in by_metric.items()
        if settings.is_judged(name)
    }
    sessions = math.ceil(max(needed.values()) * UNCOUNTED)
    available = max(needed.values()) if within_s is None else int(within_s * sessions_per_s * weight / UNCOUNTED)
    detectable = {
        name: _smallest(name, units, old_per_new, available, settings.error_rate) for name, units in by_metric.items()
    }
    texts = 0
    if settings.is_judged("answers"):
        tolerated = METRICS["answers"].to_burden(settings.tolerance("answers"))
        texts = _sessions(_SCORES, 1.0, tolerated, settings.error_rate)
    seconds = sessions / (max(sessions_per_s, NO_RATE) * weight) + settings.warm_up_s + settings.session_s
    return Forecast(math.ceil(sessions * requests_per_session), sessions, seconds, needed, detectable, texts)


def sessions_to_clear(share: float, old_per_new: float, tolerance: float, error_rate: float) -> int:
    """Sessions within which 19 of 20 equal versions are cleared of a burden that this share of sessions has."""
    return _sessions({0.0: 1.0 - share, 1.0: share}, min(old_per_new, float(OLD_PER_NEW)), tolerance, error_rate)


def _distributions(usual: Usual, subject: Subject) -> dict[str, dict[float, float]]:
    """Burdens of a session and their likelihoods, by metric."""
    spreads = {
        "first_token": usual.first_token_spread,
        "per_token": usual.per_token_spread,
        "answer_length": usual.answer_length_spread,
    }
    shares = {
        "errors": usual.error_share,
        "finish_reasons": usual.cut_off_share,
    }
    if subject == "cache":
        shares = {
            "errors": usual.error_share,
            "recall_errors": usual.recall_error_share,
            "cache_hit_rate": 1.0 - usual.reused_share,
            "stored_answers": 1.0 - usual.stored_answer_share,
        }
        spreads = {"first_token": usual.first_token_spread}
    by_metric = {name: {0.0: 1.0 - share, 1.0: share} for name, share in shares.items()}
    for name, spread in spreads.items():
        width = spread / METRICS[name].span
        by_metric[name] = {min(max(0.5 + at * width, 0.0), 1.0): share for at, share in _NORMAL.items()}
    return by_metric


def _sessions(units: Mapping[float, float], old_per_new: float, tolerance: float, error_rate: float) -> int:
    """Sessions within which 19 of 20 equal versions are cleared."""
    burdens, shares = (np.array(list(part), dtype=np.float64) for part in (units.keys(), units.values()))
    level = float(burdens @ shares)
    turned = 1 - burdens
    difference = np.array([-tolerance])
    old = (turned, shares * old_per_new)
    growth = winnings(old, (turned, shares), 1 - level, difference, EFFECTS_DOWN)[0]
    # The variance of one session's and of its share of the old lane's winnings.
    parts = [
        winnings(old, (turned[[at]], np.ones(1)), 1 - level, difference, EFFECTS_DOWN)[0] for at in range(len(turned))
    ]
    variance = sum(share * (part - growth) ** 2 for share, part in zip(shares, parts, strict=True))
    needed = -math.log(error_rate) + math.log(len(EFFECTS_DOWN))
    fastest = MAX_SESSIONS
    for mean, spread in zip(growth, np.sqrt(variance), strict=True):
        if mean > 0:
            slack = NINETEEN_OF_TWENTY * spread
            root = (slack + math.sqrt(slack**2 + 4 * mean * needed)) / (2 * mean)
            fastest = min(fastest, math.ceil(root**2))
    return fastest


def _smallest(name: str, units: Mapping[float, float], old_per_new: float, sessions: int, error_rate: float) -> float:
    """The smallest tolerance, in the metric's unit, that so many sessions clear; by halving, to about a thousandth."""
    sessions = min(sessions, MAX_SESSIONS - 1)  # that many stands for more than can be reckoned
    low, high = math.log(MIN_BURDEN), math.log(MAX_BURDEN)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if _sessions(units, old_per_new, math.exp(middle), error_rate) <= sessions:
            high = middle
        else:
            low = middle
    return abs(METRICS[name].from_burden(math.exp(high) * METRICS[name].worse))
