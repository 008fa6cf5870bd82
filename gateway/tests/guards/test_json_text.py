"""JSON stays JSON under guards, whatever is masked in it, and however it hides what it says."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serin_gateway.guards.decisions import Decisions
from serin_gateway.guards.desk import make_detector
from serin_gateway.guards.detector import DetectorName
from serin_gateway.guards.json_text import JsonScreen, screened_json
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


def in_pieces(pieces) -> str:
    """The same, in pieces."""
    looked = JsonScreen(Screen(RULES, Direction.OUTPUT, Decisions()))
    return "".join([looked.feed(piece) for piece in pieces]) + looked.end()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('{"to": "jane@example.com",  "n": 1}', '{"to": "[EMAIL_ADDRESS]",  "n": 1}'),
        ('{"card": 4111111111111111, "n": 1.50}', '{"card": "[CREDIT_CARD]", "n": 1.50}'),
        (r'{"to": "jane\u0040example.com"}', '{"to": "[EMAIL_ADDRESS]"}'),
        (r'{"to": "say \"hi\" to jane@example.com\n"}', r'{"to": "say \"hi\" to [EMAIL_ADDRESS]\n"}'),
        ('{"plum": ["plum", {"plum": "no"}]}', '{"[BLOCKED]": ["[BLOCKED]", {"[BLOCKED]": "no"}]}'),
        (
            r'{"a": "M\u00fcller\/\ud83d\ude42: jane@example.com"}',
            r'{"a": "M\u00fcller\/\ud83d\ude42: [EMAIL_ADDRESS]"}',
        ),
        (r'{"a": "\ud83d \x \u12 plum\"}', r'{"a": "\ud83d \x \u12 [BLOCKED]\"}'),
        ('{"ssn": "123-45-6788"}', '{"ssn": "[US_SSN]"}'),
        ('{"a":1,"b":[true,null]}', '{"a":1,"b":[true,null]}'),
        ("not json, jane@example.com", "not json, jane@example.com"),
        ("", ""),
    ],
)
def test_what_is_found_is_replaced_inside(text, wanted):
    """In strings, keys and numbers; the rest stays as it was written. What is no JSON has no strings."""
    assert masked(text) == wanted
    assert in_pieces(text) == wanted
    for at in range(len(text)):
        assert in_pieces([text[:at], text[at:]]) == wanted


def test_what_can_be_nothing_goes_on_at_once():
    """Inside of a string too; what may become something waits, and a refusal lets nothing more through."""
    looked = JsonScreen(Screen(RULES, Direction.OUTPUT, Decisions()))
    assert looked.feed('{"text": "Plain words keep\\nflowing ') == '{"text": "Plain words keep\\nflowing'
    blocked = [rule for rule in RULES if rule.name is DetectorName.BLOCKED]
    looked = JsonScreen(Screen(blocked, Direction.OUTPUT, Decisions()))
    pieces = ['{"text": "A pl', "um or \\u00", 'e9", "n": 12', "3}"]
    assert [looked.feed(piece) for piece in pieces] == ['{"text": "A ', "[BLOCKED] or ", '\\u00e9", "n": ', "123"]
    assert looked.end() == "}"
    refused = [Rule(one.name, one.detector, Action.REFUSE) for one in blocked]
    looked = JsonScreen(Screen(refused, Direction.OUTPUT, Decisions()))
    assert looked.feed('{"text": "A plum and') == '{"text": "A '
    assert looked.feed(' on"}') + looked.end() == ""


def test_numbers_of_a_schema_stay_numbers():
    """A schema whose maximum became a text would be none."""
    text = '{"maximum": 4111111111111111, "description": "like jane@example.com"}'
    assert masked(text, numbers=False) == '{"maximum": 4111111111111111, "description": "like [EMAIL_ADDRESS]"}'


_LEAVES = st.sampled_from(
    ["jane@example.com", 'a "plum" \\ b', "4111 1111 1111 1111", "ssn 123-45-6788", 4111111111111111, 7, None]
)


@settings(max_examples=40)
@given(
    st.recursive(
        _LEAVES, lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(max_size=5), one, max_size=3)
    ),
    st.booleans(),
)
def test_it_can_always_be_read_and_says_nothing_that_was_found(value, ascii_only):
    """However it is nested and escaped."""
    text = json.dumps(value, ensure_ascii=ascii_only)
    out = masked(text)
    assert in_pieces(text) == out
    read = json.dumps(json.loads(out))
    for secret in ("jane@example.com", "plum", "4111 1111", "4111111111111111", "123-45-6788"):
        assert secret not in read
