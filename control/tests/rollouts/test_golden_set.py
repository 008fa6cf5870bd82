"""Golden sets: every line is checked before anything starts, and what is wrong is said with file, line and key."""

import json

import pytest
from serin_control.rollouts.golden_set import GoldenInvalid, parse_golden

GOOD = """\
{"id": "sum", "prompt": "2+2=", "expect": {"exact": "4"}, "max_tokens": 8}

{"id": "chat", "messages": [{"role": "user", "content": "hi"}], "expect": {"regex": "^h"}}
{"id": "json", "prompt": "x", "expect": {"schema": {"type": "object"}}}
{"id": "hook", "prompt": "x", "expect": {"webhook": "http://127.0.0.1:1/score"}}
"""


def test_good_lines_become_cases():
    """Each scorer, prompts and chats, defaults; empty lines are passed over."""
    total, chat, schema, hook = parse_golden(GOOD)
    assert (total.id, total.prompt, total.scorer, total.expected, total.max_tokens) == ("sum", "2+2=", "exact", "4", 8)
    assert (chat.prompt, chat.messages, chat.max_tokens) == (None, (("user", "hi"),), 64)
    assert (schema.scorer, schema.expected) == ("schema", {"type": "object"})
    assert (hook.scorer, hook.expected) == ("webhook", "http://127.0.0.1:1/score")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "g.jsonl:2: not JSON: "),
        ("[" * 100_000, "g.jsonl:2: not JSON: "),
        ("[]", "g.jsonl:2: list instead of an object; accepted: an object with id, prompt"),
        ({"promt": "x"}, "g.jsonl:2: promt: unknown key; accepted: id, prompt, messages, expect, max_tokens"),
        ({"id": ""}, "g.jsonl:2: id: '' is not accepted"),
        ({"id": "sum"}, "g.jsonl:2: id: 'sum' is already on line 1"),
        ({"id": "a\nb"}, "g.jsonl:2: id: "),
        ({"max_tokens": 0}, "g.jsonl:2: max_tokens: 0 is not accepted; accepted: an integer 1..4096"),
        ({"max_tokens": True}, "g.jsonl:2: max_tokens: True"),
        ({"messages": []}, "g.jsonl:2: prompt: both 'prompt' and 'messages'"),
        ({"prompt": None}, "g.jsonl:2: prompt: None is not accepted"),
        ({"prompt": "DEL"}, "g.jsonl:2: prompt: neither 'prompt' nor 'messages'"),
        ({"prompt": "DEL", "messages": ["x"]}, "g.jsonl:2: messages.0: not a message"),
        ({"prompt": "DEL", "messages": [{"role": "tool", "content": ""}]}, "g.jsonl:2: messages.0.role: 'tool'"),
        ({"prompt": "DEL", "messages": [{"role": "user", "content": 1}]}, "g.jsonl:2: messages.0.content: int"),
        ({"expect": "4"}, 'g.jsonl:2: expect: "4" is not accepted; accepted: an object with one of exact, regex'),
        ({"expect": {"exact": "a", "regex": "b"}}, "g.jsonl:2: expect: "),
        ({"expect": {"regex": "("}}, "g.jsonl:2: expect.regex: '(' is no regular expression"),
        ({"expect": {"schema": "x"}}, "g.jsonl:2: expect.schema: str is not accepted"),
        ({"expect": {"schema": {"type": "nonsense"}}}, "g.jsonl:2: expect.schema: no JSON Schema: type: 'nonsense'"),
        (
            {"expect": {"schema": {"properties": {"a": {"$ref": "http://x/y"}}}}},
            "g.jsonl:2: expect.schema: the schema cannot be used: $ref 'http://x/y' leads outside of it",
        ),
        ({"expect": {"webhook": "file:///etc/passwd"}}, "g.jsonl:2: expect.webhook: "),
        ({"expect": {"webhook": "http://"}}, "g.jsonl:2: expect.webhook: "),
        ('{"id": "b", "prompt": "x", "prompt": "y", "expect": {"exact": "y"}}', "g.jsonl:2: prompt: is there twice"),
        ('{"id": "b", "prompt": "x", "expect": {"exact": "y", "exact": "z"}}', "g.jsonl:2: exact: is there twice"),
    ],
)
def test_a_broken_line_is_named(line, said):
    """File, line, key, what is wrong, what is accepted."""
    if isinstance(line, dict):
        case = {"id": "b", "prompt": "x", "expect": {"exact": "y"}} | line
        line = json.dumps({key: value for key, value in case.items() if value != "DEL"})
    first = '{"id": "sum", "prompt": "2+2=", "expect": {"exact": "4"}}\n'
    with pytest.raises(GoldenInvalid) as refused:
        parse_golden(first + line, "g.jsonl")
    assert str(refused.value).startswith(said)
    assert "; accepted: " in str(refused.value)


def test_every_broken_line_is_listed():
    """A person mends the file once."""
    with pytest.raises(GoldenInvalid) as refused:
        parse_golden("{\n{}\n", "g.jsonl")
    assert [problem.line for problem in refused.value.problems] == [1, 2]


def test_an_empty_set_is_refused():
    """It would judge nothing."""
    with pytest.raises(GoldenInvalid, match="g: no cases"):
        parse_golden("\n", "g")
