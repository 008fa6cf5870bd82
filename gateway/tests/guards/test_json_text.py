"""JSON stays JSON under guards, whatever is masked in it, and however it hides what it says."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serin_gateway.guards.decisions import Decisions
from serin_gateway.guards.desk import make_detector
from serin_gateway.guards.detector import DetectorName
from serin_gateway.guards.json_text import screened_json
from serin_gateway.guards.policy import Action, Direction, GuardPolicy
from serin_gateway.guards.screen import Rule, Screen

POLICY = GuardPolicy("p", countries=("us",), terms=("plum",))
RULES = [
    Rule(name, make_detector(POLICY, name), Action.MASK)
    for name in (DetectorName.PII, DetectorName.SECRETS, DetectorName.BLOCKED)
]


def masked(text: str, **options) -> str:
    """The JSON as it goes on."""
    return screened_json(Screen(RULES, Direction.OUTPUT, Decisions()), text, **options)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('{"to": "jane@example.com",  "n": 1}', '{"to": "[EMAIL_ADDRESS]",  "n": 1}'),
        ('{"card": 4111111111111111, "n": 1.50}', '{"card": "[CREDIT_CARD]", "n": 1.50}'),
        (r'{"to": "jane\u0040example.com"}', '{"to": "[EMAIL_ADDRESS]"}'),
        (r'{"to": "say \"hi\" to jane@example.com\n"}', r'{"to": "say \"hi\" to [EMAIL_ADDRESS]\n"}'),
        ('{"plum": ["plum", {"plum": "no"}]}', '{"[BLOCKED]": ["[BLOCKED]", {"[BLOCKED]": "no"}]}'),
        ('{"ssn": "123-45-6788"}', '{"ssn": "[US_SSN]"}'),
        ('{"a":1,"b":[true,null]}', '{"a":1,"b":[true,null]}'),
        ("not json, jane@example.com", "not json, jane@example.com"),
        ("", ""),
    ],
)
def test_what_is_found_is_replaced_inside(text, wanted):
    """In strings, keys and numbers; the rest stays as it was written. What is no JSON has no strings."""
    assert masked(text) == wanted


def test_numbers_of_a_schema_stay_numbers():
    """A schema whose maximum became a text would be none."""
    text = '{"maximum": 4111111111111111, "description": "like jane@example.com"}'
    assert masked(text, numbers=False) == '{"maximum": 4111111111111111, "description": "like [EMAIL_ADDRESS]"}'


_LEAVES = st.sampled_from(
    ["jane@example.com", 'a "plum" \\ b', "4111 1111 1111 1111", "ssn 123-45-6788", 4111111111111111, 7, None]
)


@settings(max_examples=40, deadline=None)
@given(
    st.recursive(
        _LEAVES, lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(max_size=5), one, max_size=3)
    ),
    st.booleans(),
)
def test_it_can_always_be_read_and_says_nothing_that_was_found(value, ascii_only):
    """However it is nested and escaped."""
    out = masked(json.dumps(value, ensure_ascii=ascii_only))
    read = json.dumps(json.loads(out))
    for secret in ("jane@example.com", "plum", "4111 1111", "4111111111111111", "123-45-6788"):
        assert secret not in read
