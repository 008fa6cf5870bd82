"""What is usual lately: a mean and a mean deviation, as TCP estimates round trips (Jacobson 1988).

Knows nothing about what is measured.
"""

SHARE = 0.05
"""Of the last number in the mean, and of its distance in the deviation."""
DEVIATIONS = 2.0
"""Above the mean, that few numbers exceed."""


class Usual:
    """Numbers above 0 that come one by one; ``before``: usual before any has come, and counts as one; 0: none."""

    def __init__(self, before: float = 0.0) -> None:
        self.mean = before
        self._deviation = 0.0
        self.is_known = before > 0
        """Whether one has come, or was assumed."""

    @property
    def most(self) -> float:
        """What most are at most."""
        return self.mean + DEVIATIONS * self._deviation

    def note(self, number: float) -> None:
        """One more."""
        if not self.is_known:
            self.mean, self.is_known = number, True
            return
        distance = number - self.mean
        self.mean += SHARE * distance
        self._deviation += SHARE * (abs(distance) - self._deviation)

    def scale(self, part: float) -> None:
        """From now on numbers are expected to be this part of what they were."""
        self.mean *= part
        self._deviation *= part

    def note_at_least(self, number: float) -> None:
        """One that would have become larger had it not been cut off: it counts where that is more than usual.

        Before one has come whole, it only says that they are not smaller.
        """
        if number > self.mean and self.is_known:
            self.note(number)
        else:
            self.mean = max(self.mean, number)
