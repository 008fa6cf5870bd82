"""What a prompt alone decides, before the first model is asked.

Looked at is the last turn: what the user said last, and what tools replied since. Prompts of ids have no text: only
their length counts. Whatever a pattern and a text are, looking takes bounded time.
"""

import time
from collections.abc import Sequence

import regex

from serin_gateway.ask import Ask, Input, TokenPrompt
from serin_gateway.cascades.cascade import EscalationRules, Rule
from serin_gateway.conversation import Conversation

MAX_CHARACTERS = 16_384
"""Of a longer last turn, its beginning."""
PATTERNS_TIMEOUT_S = 0.02
"""For all patterns together; one that takes longer counts as found: the larger model is the safe side."""


def prompt_rule(rules: EscalationRules, ask: Ask) -> Rule | None:
    """The rule by which some prompt of the ask is not for the first model; None: none holds."""
    for one in ask.inputs:
        rule = _rule(rules, one)
        if rule is not None:
            return rule
    return None


def last_turn(one: Input) -> str:
    """The text that rules look at; empty for a prompt of ids."""
    if isinstance(one, str):
        return one[:MAX_CHARACTERS]
    if isinstance(one, TokenPrompt):
        return ""
    asked_at = max((at for at, message in enumerate(one.messages) if message.role == "user"), default=-1)
    texts = [text for message in one.messages[asked_at:] for text in message.texts]
    return "\n".join(texts)[:MAX_CHARACTERS]


def _rule(rules: EscalationRules, one: Input) -> Rule | None:
    if rules.prompt_longer_than and _length(one) > rules.prompt_longer_than:
        return Rule.PROMPT_LONGER
    if not rules.prompt_patterns and rules.classifier is None:
        return None
    text = last_turn(one)
    if not text:
        return None
    if _is_found(rules.prompt_patterns, text):
        return Rule.PROMPT_MATCHES
    if rules.classifier is not None and rules.classifier.probability(text) > rules.classifier_above:
        return Rule.CLASSIFIER
    return None


def _length(one: Input) -> int:
    if isinstance(one, str):
        return len(one)
    if isinstance(one, Conversation):
        return sum(len(text) for message in one.messages for text in message.texts)
    return len(one.token_ids)


def _is_found(patterns: Sequence[str], text: str) -> bool:
    end = time.monotonic() + PATTERNS_TIMEOUT_S
    try:
        return any(
            # `regex` keeps what it has compiled; a timeout of 0 would mean none.
            regex.search(pattern, text, timeout=max(0.001, end - time.monotonic()))  # type: ignore[no-untyped-call]
            for pattern in patterns
        )
    except TimeoutError:
        return True
    except regex.error:  # the control plane's version knew it, ours does not
        return False
