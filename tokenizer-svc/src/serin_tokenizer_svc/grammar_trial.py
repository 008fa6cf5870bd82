"""Whether a grammar can be followed at all, and fast enough: tried with the vocabulary it will be used with.

A grammar is opened and followed for some steps, at random but always the same. What it costs is counted in seconds of
this thread's processor time, which other work on the machine does not change. Runs in a process that may be killed.
"""

import random
import re
import time
from collections.abc import Iterable, Sequence
from typing import Any, cast

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from serin_tokenizer_svc.errors import GrammarError, GrammarLimit, GrammarRejected

OPENING_S = 1.0
"""Processor time that opening a grammar may take; the schemas of real tools take a few milliseconds."""
STEP_S = 0.03
"""Processor time that one step may take: of finding what may come next, or of taking a token."""
NUM_WALKS = 3
NUM_STEPS = 24
LIMITS = LLParserLimits(
    step_lexer_fuel=100_000,
    step_max_items=20_000,
    max_lexer_states=20_000,
    precompute_large_lexemes=False,
    verbose_errors=False,
)
"""No wider than the worker's own."""

_LIMIT = re.compile(r"too (big|large|many|long|complex|deep)|limit|max is", re.IGNORECASE)
_MAX_ERROR = 600
_OVERLAP = (
    "oneOf: its branches may overlap, which cannot be enforced; have each require a member with a constant of its own, "
    "or say anyOf"
)
_INTERNAL = (
    (re.compile(r"\n<non-verbose/>.*", re.DOTALL), ""),
    (re.compile(r"\n +\d+ \| .*", re.DOTALL), ""),
    (re.compile(r"^at \d+\(\d+\): failed to compile JSON schema: "), ""),
    (re.compile(r"\n +while processing .*"), ""),
    (re.compile(r"^Unimplemented keys: \[(.*)\]"), r"cannot be enforced: \1"),
    (re.compile(r"^oneOf constraints are not supported.*"), _OVERLAP),
)
"""What the library says about itself and the text that it was given, which is not the caller's."""


class Vocabulary:
    """What grammars are followed with.

    Args:
        tokens: bytes of each id; empty for an id that no text can have.
        special: ids that are never text.
    """

    def __init__(self, tokens: Sequence[bytes], special: Sequence[int]) -> None:
        self.tokens = [*tokens, b"<end>"]
        """With one id more, which ends a text."""
        self.end_id = len(tokens)
        never = set(special)
        self.longest = max((len(token) for at, token in enumerate(tokens) if at not in never), default=0) or 1
        """Bytes of the longest token that a text may have."""
        wrapper = _Wrapper(self.tokens, self.end_id, [*special, self.end_id])
        self.inner = LLTokenizer(cast(Any, wrapper), eos_token=[self.end_id])
        wrapper.tokenizer = self.inner


class _Wrapper:
    """A vocabulary as the library reads it; it asks for tokens of a text only where a grammar wants one spelling."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokens: Sequence[bytes], end_id: int, special: Sequence[int]) -> None:
        self.tokens = tokens
        self.eos_token_id = end_id
        self.special_token_ids = special
        self.tokenizer: Any = None

    def __call__(self, text: str) -> list[int]:
        return list(self.tokenizer.greedy_tokenize(text)) if self.tokenizer is not None else []


def attempt(grammar: str, vocabulary: Vocabulary) -> None:
    """Follow a grammar for some steps.

    Raises:
        GrammarRejected: it is damaged, asks for what cannot be enforced, or allows nothing.
        GrammarLimit: it is too large or too slow.
    """
    began = time.thread_time()
    opened = _opened(grammar, vocabulary)
    spent = time.thread_time() - began
    if spent > OPENING_S:
        raise GrammarLimit(f"the grammar takes {spent:.1f} s to open; accepted: {OPENING_S:g} s")
    for seed in range(NUM_WALKS):
        matcher = opened.deep_copy()
        choose = random.Random(seed)
        for _ in range(NUM_STEPS):
            token_id = _step(matcher, vocabulary, choose)
            if token_id is None:
                break


def first_with_fault(grammars: Iterable[tuple[str, str]], fault: str, vocabulary: Vocabulary) -> str:
    """The name of the first grammar that cannot be opened for this reason; empty: none, or it takes too long."""
    give_up_at = time.thread_time() + OPENING_S
    for name, grammar in grammars:
        try:
            _opened(grammar, vocabulary)
        except GrammarError as error:
            if str(error) == fault:
                return name
        if time.thread_time() > give_up_at:
            break
    return ""


def _opened(grammar: str, vocabulary: Vocabulary) -> LLMatcher:
    matcher = LLMatcher(vocabulary.inner, grammar, limits=LIMITS, log_level=0)
    _check(matcher)
    return matcher


def _step(matcher: LLMatcher, vocabulary: Vocabulary, choose: random.Random) -> int | None:
    """Take one of the tokens that may come next; None: the text is complete."""
    began = time.thread_time()
    mask = matcher.compute_bitmask()
    spent = time.thread_time() - began
    _check(matcher)
    allowed = [8 * at + bit for at, byte in enumerate(mask) if byte for bit in range(8) if byte >> bit & 1]
    token_id = choose.choice(allowed)
    if token_id == vocabulary.end_id:
        return None
    began = time.thread_time()
    matcher.consume_token(token_id)
    spent = max(spent, time.thread_time() - began)
    _check(matcher)
    if spent > STEP_S:
        raise GrammarLimit(
            f"one token of the grammar takes {1000 * spent:.0f} ms of computing; accepted: {1000 * STEP_S:.0f} ms"
        )
    return None if matcher.is_stopped() else token_id


def _check(matcher: LLMatcher) -> None:
    if not matcher.is_error():
        return
    error = matcher.get_error()
    for pattern, said in _INTERNAL:
        error = pattern.sub(said, error)
    error = error.strip()[:_MAX_ERROR]
    if error.startswith("NoExtension"):
        raise GrammarRejected("the grammar allows no text at all, or leads where nothing is allowed")
    raise GrammarLimit(error) if _LIMIT.search(error) else GrammarRejected(error)
