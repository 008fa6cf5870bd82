"""Rules about prompts: what they look at, and that looking ends in time whatever the pattern and the text are."""

import time

import pytest
from serin_gateway.ask import Ask, TokenPrompt
from serin_gateway.cascades.cascade import EscalationRules, Rule
from serin_gateway.cascades.prompt_rules import MAX_CHARACTERS, last_turn, prompt_rule
from serin_gateway.conversation import Conversation, Message, ToolCall
from serin_mesh.prompt_classifier import PromptClassifier, buckets_of

TALK = Conversation(
    [
        Message("system", ["prove everything"]),
        Message("user", ["an older question"]),
        Message("assistant", ["an answer"], tool_calls=[ToolCall("1", "f", "{}")]),
        Message("user", ["the ", "question"]),
        Message("assistant", (), tool_calls=[ToolCall("2", "f", "{}")]),
        Message("tool", ["42"], tool_call_id="2"),
    ]
)


def test_the_last_turn_is_what_the_user_said_last_and_what_came_of_it():
    """Older turns and system prompts do not count; a plain prompt is all turn; ids have no text."""
    assert last_turn(TALK) == "the \nquestion\n42"
    assert last_turn("plain") == "plain"
    assert last_turn(TokenPrompt([1, 2])) == ""
    assert len(last_turn("x" * 100_000)) == MAX_CHARACTERS


@pytest.mark.parametrize(
    ("rules", "one", "rule"),
    [
        (EscalationRules(prompt_patterns=("question$", "42")), TALK, Rule.PROMPT_MATCHES),
        (EscalationRules(prompt_patterns=("prove", "older")), TALK, None),
        (EscalationRules(prompt_patterns=("(?i)THE",)), TALK, Rule.PROMPT_MATCHES),
        (EscalationRules(prompt_longer_than=55), TALK, Rule.PROMPT_LONGER),
        (EscalationRules(prompt_longer_than=56), TALK, None),
        (EscalationRules(prompt_longer_than=1), TokenPrompt([1, 2]), Rule.PROMPT_LONGER),
        (EscalationRules(prompt_patterns=(".",)), TokenPrompt([1, 2]), None),
        (EscalationRules(prompt_patterns=("([",)), "x", None),  # of a newer control plane
        (EscalationRules(), "x" * 1000, None),
    ],
)
def test_rules(rules, one, rule):
    """Each by itself; one prompt of several is enough."""
    assert prompt_rule(rules, Ask("m", [one])) is rule
    assert prompt_rule(rules, Ask("m", ["", one])) is rule


def test_a_pattern_that_would_take_for_ever_counts_as_found():
    """The larger model is the safe side, and the gateway goes on after 20 ms."""
    began_at = time.process_time()
    rules = EscalationRules(prompt_patterns=("(a|aa)+$",) * 16)
    assert prompt_rule(rules, Ask("m", ["a" * 60 + "b"])) is Rule.PROMPT_MATCHES
    assert time.process_time() - began_at < 2.0


def test_a_classifier_decides_by_its_probability():
    """Above its threshold; the classifier itself is tested where it lives."""
    buckets = set(buckets_of("count", 8, 1, 2))
    weights = bytearray(100 if at in buckets else 0 for at in range(256))
    found = PromptClassifier.from_text(PromptClassifier(8, 1, 2, -3.0, 0.02, memoryview(weights).cast("b")).to_text())
    for above, rule in ((0.5, Rule.CLASSIFIER), (0.999999, None)):
        rules = EscalationRules(classifier=found, classifier_above=above)
        assert prompt_rule(rules, Ask("m", ["count"])) is rule
        assert prompt_rule(rules, Ask("m", ["zzz"])) is None
