"""A test of two arms that may be looked at any time: play money, bet against "the new arm is no worse".

Burdens are numbers from 0 to 1. Against every possible difference between the arms' means a gambler bets twice, that
the new arm's is larger and that it is smaller. Under the difference that is true no gambler can expect to gain, so by
Ville's inequality one ever has 1/a times the stake with a probability of at most a: at *any* look. The differences
against which nobody has won that much are the interval.

The bet is Turner, Ly and Grünwald's block e-variable (Generic E-variables for exact sequential k-sample tests that
allow for optional stopping, 2021; Turner and Grünwald, Exact anytime-valid confidence intervals for contingency
tables, 2023) with the betting of Waudby-Smith and Ramdas (Estimating means of bounded random variables by betting,
2024), which makes it valid for any burden from 0 to 1. In a block of n old and m new units, for any x fixed before:

    E = prod_new (1 + b (y - x - d)) * prod_old (1 - b m / n (y - x))

Its mean is at most (1 + b m (mean_new - mean_old - d) / (n + m))^(n + m) by the inequality of arithmetic and
geometric means: at most 1 if the true difference is at most d, whatever the arms' level is. The level may differ from
block to block, so load, time of day and changing weights cannot be mistaken for a difference. How much is bet is a
mixture over sizes of the effect, so nothing needs to be guessed.

Knows nothing about metrics, lanes, sessions or time.
"""

import base64
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Effects that are bet on, as shares of the room above the level under test.
EFFECTS_UP = np.array([0.8, 0.4, 0.2, 0.1, 0.05, 0.025, 0.0125, 0.006, 0.003])
EFFECTS_DOWN = np.array([0.9, 0.6, 0.4, 0.25, 0.12, 0.06, 0.03])
# No bet risks more than this share of the money on one unit.
MOST_AT_RISK = 0.95
MULTIPLES = (0.25, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 25.0, 60.0)
MAX_DIFFERENCE = 0.95
_EDGE = 1e-6

Units = Mapping[float, int]


class Bets:
    """The gamblers' money after all blocks so far.

    Args:
        tolerance: difference of burdens around which the interval is finest; above 0.
    """

    def __init__(self, tolerance: float) -> None:
        ahead = [multiple * tolerance for multiple in MULTIPLES if multiple * tolerance < MAX_DIFFERENCE]
        self.tolerance = tolerance
        self.differences = np.array([-d for d in reversed(ahead)] + [0.0] + ahead)
        self._zero = len(ahead)
        self._one = ahead.index(tolerance) + 1
        self._up = np.zeros((len(self.differences), len(EFFECTS_UP)))
        self._down = np.zeros((len(self.differences), len(EFFECTS_DOWN)))
        self.num_old = 0
        self.num_new = 0
        self.sum_old = 0.0
        self.sum_new = 0.0
        self._matched_weight = 0.0
        self._matched_sum = 0.0

    def settle(self, old: Units, new: Units) -> None:
        """Play one block: how many units of each arm had which burden. An arm alone teaches its level only."""
        if old and new:
            self._play(_arrays(old), _arrays(new), self._level())
        self._count(old, new)

    def settle_known(self, old_level: float, new: Units) -> None:
        """Play one block against an old arm whose mean is known exactly."""
        self._play(None, _arrays(new), old_level)
        self._count({}, new)

    @property
    def difference(self) -> float:
        """New minus old, of burdens that met in one block."""
        return self._matched_sum / self._matched_weight if self._matched_weight else 0.0

    @property
    def new_mean(self) -> float:
        """Mean burden of the new arm's units."""
        return self.sum_new / self.num_new if self.num_new else 0.0

    def evidence_above(self, multiple: int) -> float:
        """Logarithm of the evidence that the difference is above ``multiple`` (-1, 0 or 1) tolerances."""
        return float(_mixture(self._up[self._at(multiple)]))

    def evidence_below(self, multiple: int) -> float:
        """Logarithm of the evidence that the difference is below ``multiple`` (-1, 0 or 1) tolerances."""
        return float(_mixture(self._down[self._at(multiple)]))

    def interval(self, low_error: float, high_error: float) -> tuple[float, float]:
        """The differences that stand; each end is ever on the wrong side with its own probability at most."""
        low = _crossing(self.differences, _mixture(self._up), math.log(1 / low_error))
        high = -_crossing(-self.differences[::-1], _mixture(self._down)[::-1], math.log(1 / high_error))
        return low, max(low, high)

    def dump(self) -> dict[str, Any]:
        """As JSON, exactly."""
        return {
            "up": _packed(self._up),
            "down": _packed(self._down),
            "counts": [self.num_old, self.num_new],
            "sums": [self.sum_old, self.sum_new, self._matched_weight, self._matched_sum],
        }

    @classmethod
    def load(cls, tolerance: float, dumped: dict[str, Any]) -> "Bets":
        """What :meth:`dump` gave, for the same tolerance."""
        bets = cls(tolerance)
        bets._up = _unpacked(dumped["up"], bets._up.shape)
        bets._down = _unpacked(dumped["down"], bets._down.shape)
        bets.num_old, bets.num_new = dumped["counts"]
        bets.sum_old, bets.sum_new, bets._matched_weight, bets._matched_sum = dumped["sums"]
        return bets

    def _at(self, multiple: int) -> int:
        return {-1: self._zero - self._one, 0: self._zero, 1: self._zero + self._one}[multiple]

    def _level(self) -> float:
        return (self.sum_old + 0.1) / (self.num_old + 4.0)

    def _play(self, old: tuple[Array, Array] | None, new: tuple[Array, Array], level: float) -> None:
        self._up += winnings(old, new, level, self.differences, EFFECTS_UP)
        turned = None if old is None else (1 - old[0], old[1])
        self._down += winnings(turned, (1 - new[0], new[1]), 1 - level, -self.differences, EFFECTS_DOWN)

    def _count(self, old: Units, new: Units) -> None:
        num_old, num_new = sum(old.values()), sum(new.values())
        sum_old = sum(value * count for value, count in old.items())
        sum_new = sum(value * count for value, count in new.items())
        if num_new and num_old:
            weight = num_old * num_new / (num_old + num_new)
            self._matched_weight += weight
            self._matched_sum += weight * (sum_new / num_new - sum_old / num_old)
        self.num_old, self.num_new = self.num_old + num_old, self.num_new + num_new
        self.sum_old, self.sum_new = self.sum_old + sum_old, self.sum_new + sum_new


def winnings(
    old: tuple[Array, Array] | None, new: tuple[Array, Array], level: float, differences: Array, effects: Array
) -> Array:
    """Logarithms of what a block multiplies each gambler's money by, [differences, effects].

    Args:
        old: burdens of the old arm's units and how many had each; None: their mean is ``level``, exactly.
        new: the same of the new arm's.
        level: what the old arm's mean is thought to be, between 0 and 1.
        differences: that are bet against.
        effects: how much larger the new arm's mean is thought to be, as shares of the room above.
    """
    values_new, counts_new = new
    num_new = float(counts_new.sum())
    num_old = math.inf if old is None else float(old[1].sum())
    old_share = 1.0 if old is None else num_old / (num_old + num_new)
    d = differences[:, None]
    room = np.clip(1 - level - d, _EDGE, 1.0)
    effect = effects[None, :] * room
    x = np.clip(level + (1 - old_share) * effect, np.maximum(_EDGE, _EDGE - d), np.minimum(1 - _EDGE, 1 - _EDGE - d))
    tested = x + d
    bet = old_share * effect / (tested * (1 - tested))
    bet = np.minimum(bet, MOST_AT_RISK / tested)
    if old is not None:
        # Nor does the old arm's part suppose a level far below what it has shown.
        at_most = np.minimum(MOST_AT_RISK / (1 - x), np.maximum(x - 0.8 * level, 0) / (x * (1 - x)))
        bet = np.minimum(bet, at_most * (num_old / num_new))
    won = np.log1p(bet[..., None] * (values_new - tested[..., None])) @ counts_new
    if old is not None:
        values_old, counts_old = old
        against = bet * (num_new / num_old)
        won = won + np.log1p(-against[..., None] * (values_old - x[..., None])) @ counts_old
    return np.asarray(won, dtype=np.float64)


def _mixture(log_money: Array) -> Array:
    top = log_money.max(axis=-1)
    return np.asarray(top + np.log(np.exp(log_money - top[..., None]).mean(axis=-1)))


def _crossing(differences: Array, evidence: Array, needed: float) -> float:
    """The largest difference up to which all are beaten, between grid points by their evidence."""
    standing = np.flatnonzero(evidence < needed)
    if not len(standing):
        return float(differences[-1])
    first = int(standing[0])
    if first == 0:
        return -1.0
    before, after = evidence[first - 1], evidence[first]
    share = (before - needed) / (before - after)
    return float(differences[first - 1] + share * (differences[first] - differences[first - 1]))


def _arrays(units: Units) -> tuple[Array, Array]:
    return np.array(list(units.keys()), dtype=np.float64), np.array(list(units.values()), dtype=np.float64)


def _packed(money: Array) -> str:
    return base64.b64encode(money.astype("<f8").tobytes()).decode()


def _unpacked(text: str, shape: tuple[int, ...]) -> Array:
    return np.frombuffer(base64.b64decode(text), dtype="<f8").astype(np.float64).reshape(shape)
