"""What a judge will need before it can decide: sessions, requests, seconds, and the smallest change they can show.

An equal version is cleared when the money bet against it has grown enough. How fast it grows on average, and how much
that varies, follows from the bets of :mod:`.bets` and from what is usual of a metric; the figures are those within
which 19 of 20 equal versions are cleared, and a fifth more for sessions that meet the new version and do not count
(during the warm-up, without their like on the old one). Knows nothing about rollouts, steps or what was observed.

Of opinions, schemas, refusals, agreement and golden questions nothing is usual. There the smallest change is a bound:
every session has one, no version ever fails one, so nobody who sees as much can show less.
"""

import bisect
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serin_control.judge.bets import EFFECTS_DOWN, winnings
from serin_control.judge.blocks import LEVELS, OLD_PER_NEW
from serin_control.judge.memory import PER_REQUESTS, WINDOW_REQUESTS, WINDOW_S, fewest_windows
from serin_control.judge.metrics import METRICS
from serin_control.judge.need import Beside, Forecast
from serin_control.judge.settings import MAX_BURDEN, JudgeSettings, Subject

NINETEEN_OF_TWENTY = 1.645
MAX_SESSIONS = 10_000_000
MIN_BURDEN = 1e-5
HALVINGS = 13
NO_RATE = 1e-9
UNCOUNTED = 1.2
PAGE_BYTES = 4096
# Scores of a text that differ by less than half a level count as one.
FINEST = 0.5 / LEVELS
_SCORES = {0.0: 0.95, 0.02: 0.05}
_FAULTLESS = {0.0: 1.0}
_ALIKE = {0.5: 1.0}
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


def forecast(
    settings: JudgeSettings,
    sessions_per_s: float,
    requests_per_session: float,
    weight: float,
    within_s: float | None = None,
    usual: Usual | None = None,
    beside: Beside | None = None,
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
        beside: what there is to compare beside requests; None: nothing.
    """
    old_per_new = min(float(OLD_PER_NEW), (1.0 - weight) / weight)
    if old_per_new <= 0:
        return Forecast(0, 0.0)
    by_metric = _distributions(usual or Usual(), settings.subject)
    needed = {
        name: _sessions(units, old_per_new, METRICS[name].to_burden(settings.tolerance(name)), settings.error_rate)
        for name, units in by_metric.items()
        if settings.is_judged(name) and not METRICS[name].rare
    }
    sessions = math.ceil(max(needed.values()) * UNCOUNTED)
    lasts_s = sessions / (max(sessions_per_s, NO_RATE) * weight)
    num_all = (lasts_s if within_s is None else within_s) * sessions_per_s
    available = max(needed.values()) if within_s is None else int(num_all * weight / UNCOUNTED)
    detectable = {
        name: _smallest(name, units, old_per_new, available, settings.error_rate) for name, units in by_metric.items()
    }
    detectable |= _beside(settings, beside or Beside(), num_all * (1.0 - weight), requests_per_session)
    if settings.is_judged("memory"):
        num_requests = num_all * weight * requests_per_session
        detectable["memory"] = _least_growth(num_requests, within_s or lasts_s, settings.error_rate)
    texts = 0
    if settings.is_judged("answers"):
        tolerated = METRICS["answers"].to_burden(settings.tolerance("answers"))
        texts = _sessions(_SCORES, 1.0, tolerated, settings.error_rate)
    seconds = lasts_s + settings.warm_up_s + settings.session_s
    return Forecast(math.ceil(sessions * requests_per_session), seconds, detectable, sessions, needed, texts)


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
    if subject == "lane":
        by_metric |= {name: dict(_FAULTLESS) for name, metric in METRICS.items() if metric.rare}
    for name, spread in spreads.items():
        width = spread / METRICS[name].span
        by_metric[name] = {min(max(0.5 + at * width, 0.0), 1.0): share for at, share in _NORMAL.items()}
    return by_metric


def _beside(settings: JudgeSettings, beside: Beside, num_old: float, requests_per_session: float) -> dict[str, float]:
    """The smallest tolerances of what is compared beside requests, where it is judged.

    A session of the old version, of which there are ``num_old``, is one text however many of its answers are scored.
    """
    found = {}
    compared = beside.text_rate * (1.0 - beside.calibration_rate)
    num_texts = int(num_old * min(1.0, compared * requests_per_session))
    per_text = beside.calibration_rate / (1.0 - beside.calibration_rate)
    for name, units in (("answers", _SCORES), ("agreement", _FAULTLESS)):
        if settings.is_judged(name):
            least = _smallest(name, units, per_text, num_texts, settings.error_rate) if per_text else math.inf
            found[name] = max(least, METRICS[name].change_of(FINEST))
    if settings.is_judged("golden"):
        found["golden"] = _smallest("golden", _ALIKE, None, beside.num_golden, settings.error_rate)
    return found


def _least_growth(num_requests: float, within_s: float, error_rate: float) -> float:
    """The smallest tolerance of growth, in bytes per 1,000 requests: one page in a window of one process.

    All requests are taken for one process's, which makes windows finest, and all windows for good.
    """
    if num_requests / WINDOW_REQUESTS < fewest_windows(error_rate):
        return math.inf
    return PAGE_BYTES * PER_REQUESTS / max(WINDOW_REQUESTS, num_requests / within_s * WINDOW_S)


def _sessions(units: Mapping[float, float], old_per_new: float | None, tolerance: float, error_rate: float) -> int:
    """Sessions within which 19 of 20 equal versions are cleared. ``old_per_new`` None: the old mean is known."""
    burdens, shares = (np.array(list(part), dtype=np.float64) for part in (units.keys(), units.values()))
    level = float(burdens @ shares)
    turned = 1 - burdens
    difference = np.array([-tolerance])
    old = None if old_per_new is None else (turned, shares * old_per_new)
    growth = winnings(old, (turned, shares), 1 - level, difference, EFFECTS_DOWN)[0]
    if len(units) == 1:
        return _certain(growth, -math.log(error_rate))
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


def _certain(growth: NDArray[np.float64], needed: float) -> int:
    """Units after which gamblers together have what is needed, who win this much by each, for certain."""
    best = float(growth.max())
    if best <= 0 or needed / best >= MAX_SESSIONS:
        return MAX_SESSIONS
    most = min(MAX_SESSIONS, math.ceil((needed + math.log(len(growth))) / best))
    return bisect.bisect_left(
        range(most), needed, key=lambda num: float(np.logaddexp.reduce(growth * num)) - math.log(len(growth))
    )


def _smallest(
    name: str, units: Mapping[float, float], old_per_new: float | None, sessions: int, error_rate: float
) -> float:
    """The smallest tolerance, in the metric's unit, that so many sessions clear; by halving, to about a thousandth.

    Infinite: they clear none.
    """
    sessions = min(sessions, MAX_SESSIONS - 1)  # that many stands for more than can be reckoned
    if _sessions(units, old_per_new, MAX_BURDEN, error_rate) > sessions:
        return math.inf
    low, high = math.log(MIN_BURDEN), math.log(MAX_BURDEN)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if _sessions(units, old_per_new, math.exp(middle), error_rate) <= sessions:
            high = middle
        else:
            low = middle
    return abs(METRICS[name].from_burden(math.exp(high) * METRICS[name].worse))
