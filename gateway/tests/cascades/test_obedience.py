"""JSON that obeys a schema, where both are strangers': right where it can be said, and in time."""

import json
import time

import pytest
from serin_gateway.cascades.obedience import fits

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "pattern": "^[A-Z]"}, "age": {"$ref": "#/$defs/age"}},
    "required": ["name"],
    "additionalProperties": False,
    "$defs": {"age": {"type": "integer", "minimum": 0}},
}


@pytest.mark.parametrize(
    ("schema", "text", "fit"),
    [
        (PERSON, '{"name": "Ada", "age": 36}', True),
        (PERSON, '{"name": "ada"}', False),
        (PERSON, '{"name": "Ada", "age": -1}', False),
        (PERSON, '{"name": "Ada", "x": 1}', False),
        (PERSON, '{"age": 1}', False),
        (PERSON, '{"name": "Ada"', False),
        (PERSON, "Ada", False),
        (PERSON, "[" * 100_000, False),
        ({"enum": ["a", "b"]}, '"a"', True),
        ({"enum": ["a", "b"]}, '"c"', False),
        ({"patternProperties": {"^n": {"type": "integer"}}}, '{"n1": "x"}', False),
        ({"type": "nothing"}, "1", True),  # no schema: not the answer's fault
        ({"$ref": "https://example.com/schema"}, "1", True),  # nothing is fetched
        ({"$ref": "#/$defs/none"}, "1", True),
        ({"pattern": "(["}, '"x"', True),
        ({"type": "integer"}, json.dumps("x" * 40_000), True),  # too long to check: it parses
    ],
)
def test_fits(schema, text, fit):
    """Right, wrong, and what cannot be said."""
    assert fits(json.dumps(schema), text) is fit


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"pattern": "(a|aa)+$"}, json.dumps("a" * 60 + "b")),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}]}}}, "1"),
        (
            {
                "$defs": {f"l{n}": {"anyOf": [{"$ref": f"#/$defs/l{n + 1}"}] * 8} for n in range(12)} | {"l12": False},
                "$ref": "#/$defs/l0",
            },
            "1",
        ),
        ({"uniqueItems": True}, json.dumps([{"a": n} for n in range(2500)])),
    ],
)
def test_checking_ends_in_time(schema, text):
    """Patterns, references in circles, schemas that unfold, items that cannot be sorted."""
    began_at = time.process_time()
    assert fits(json.dumps(schema), text) is True
    assert time.process_time() - began_at < 3.0
