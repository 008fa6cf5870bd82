"""What one choice may still say: a grammar, and how far the choice has followed it.

Knows nothing about requests, steps or tensors.
"""

from collections.abc import Sequence

import numpy
from llguidance import LLMatcher, LLParserLimits
from numpy.typing import NDArray

from serin_worker.errors import GrammarOverrun, GrammarRefused
from serin_worker.grammars.vocabulary import GrammarVocabulary

LIMITS = LLParserLimits(
    step_lexer_fuel=100_000,
    step_max_items=20_000,
    max_lexer_states=20_000,
    precompute_large_lexemes=False,
    verbose_errors=False,
)
"""What a grammar may need in a step and in all; a lexer state takes 1 to 2 kB."""
_MAX_ERROR = 300


class Constraint:
    """Follows one choice. Opening one takes milliseconds; a step takes microseconds, and no lock of Python's.

    Args:
        grammar: in the library's own language.
        vocabulary: bytes of the ids.

    Raises:
        GrammarRefused: no text can follow it, or it is none.
    """

    def __init__(self, grammar: str, vocabulary: GrammarVocabulary) -> None:
        self._num_ids = vocabulary.num_ids
        self._matcher = LLMatcher(vocabulary.inner, grammar, limits=LIMITS, log_level=0)
        if self._matcher.is_error():
            raise GrammarRefused(f"the grammar cannot be followed: {self._error()}")

    @property
    def is_complete(self) -> bool:
        """Whether nothing can follow any more."""
        return self._matcher.is_stopped()

    def fork(self) -> "Constraint":
        """Another choice that has come equally far."""
        twin = object.__new__(Constraint)
        twin._num_ids = self._num_ids
        twin._matcher = self._matcher.deep_copy()
        return twin

    def take(self, token_ids: Sequence[int]) -> None:
        """Follow the choice: it has these tokens next.

        Raises:
            GrammarOverrun: the grammar does not allow them, or needs more than a step may.
        """
        if not self._matcher.consume_tokens(list(token_ids)):
            raise GrammarOverrun(self._error() or "tokens that it does not allow")

    def allowed(self) -> NDArray[numpy.bool_]:
        """Which ids may come next [ids]; end ids where the choice may end here.

        Raises:
            GrammarOverrun: the grammar needs more than a step may.
        """
        mask = numpy.frombuffer(self._matcher.compute_bitmask(), dtype=numpy.uint8)
        if self._matcher.is_error():
            raise GrammarOverrun(self._error())
        return numpy.unpackbits(mask, count=self._num_ids, bitorder="little").view(numpy.bool_)

    def _error(self) -> str:
        return self._matcher.get_error().partition("\n<non-verbose/>")[0].strip()[:_MAX_ERROR]
