"""How often something was found, since start. Knows nothing about how it is reported."""

from dataclasses import dataclass


@dataclass(slots=True)
class Tally:
    """Counts of recalls and answers."""

    num_answer_hits: int = 0
    num_answer_misses: int = 0
    num_prefix_hits: int = 0
    num_prefix_misses: int = 0
    num_stored: int = 0
    num_not_stored: int = 0
    num_purges: int = 0

    def answer(self, found: bool) -> None:
        """Note a recall that was allowed an answer."""
        if found:
            self.num_answer_hits += 1
        else:
            self.num_answer_misses += 1

    def prefix(self, found: bool) -> None:
        """Note a recall that looked for a prefix."""
        if found:
            self.num_prefix_hits += 1
        else:
            self.num_prefix_misses += 1

    def stored(self, stored: bool) -> None:
        """Note an answer that was offered."""
        if stored:
            self.num_stored += 1
        else:
            self.num_not_stored += 1
