"""The plan of one step: which tokens of which sequences are computed, and whose next token is drawn.

Knows nothing about why this work was chosen, or about tensors.
"""

from dataclasses import dataclass, field

from serin_worker.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Work:
    """Compute ``num_tokens`` tokens of a sequence from position ``start`` on.

    ``drawn`` are the sequences whose next token is drawn from the last of these positions: the sequence itself once
    all its tokens are computed, and the choices that fork from it here. A score needs the logits of its last
    ``num_scored`` positions instead.
    """

    sequence: Sequence
    start: int
    num_tokens: int
    drawn: tuple[Sequence, ...] = ()
    num_scored: int = 0


@dataclass(slots=True)
class StepPlan:
    """Work of one step. ``copies`` are (from, to) blocks to copy before anything is computed."""

    work: list[Work] = field(default_factory=list)
    copies: list[tuple[int, int]] = field(default_factory=list)
    num_preempted: int = 0

    @property
    def num_tokens(self) -> int:
        """Tokens computed in this step."""
        return sum(item.num_tokens for item in self.work)

    @property
    def is_decode(self) -> bool:
        """Whether it is one token for each sequence, and another drawn from each."""
        return self.is_drawn and all(item.num_tokens == 1 for item in self.work)

    @property
    def is_drawn(self) -> bool:
        """Whether a token is drawn behind every piece of work: nothing is scored, no prompt is left unfinished."""
        return all(item.drawn for item in self.work)

    @property
    def num_prefill_tokens(self) -> int:
        """Tokens of :attr:`num_tokens` that are part of a prompt's chunk."""
        return sum(item.num_tokens for item in self.work if item.num_tokens > 1)
