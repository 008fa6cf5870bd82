"""A key that an object has twice is found; texts without one are let through without a second parse."""

import json

import orjson
import pytest
from serin_gateway.repeats import repeated_key
from serin_gateway.rest.parameters import parse_object
from serin_mesh.errors import MeshError, Reason


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('{"a":1,"b":{"a":1}}', None),
        ('{"a":"x:y","b:c":[{"a":":"},{"a":"\\u003a"}]}', None),
        ('{"a":1,"a":2}', "a"),
        ('{"a" : 1, "a" : ":"}', "a"),
        ('{"m":[{"r":1},{"r":1,"r":"\\u003a"}]}', "r"),
        ('{"a":"\\u003a","b":1,"\\u0062":2}', "b"),
    ],
)
def test_a_key_that_comes_twice(text, key):
    """Wherever it is and however it is written; colons in strings mislead nobody."""
    assert repeated_key(text.encode(), orjson.loads(text)) == key


def test_it_is_refused_by_name():
    """Nobody guesses which of the two was meant."""
    with pytest.raises(MeshError, match="has 'model' twice") as refusal:
        parse_object(b'{"model":"a","model":"b"}')
    assert refusal.value.reason is Reason.MALFORMED_BODY
    assert parse_object(json.dumps({"model": "a"}).encode()) == {"model": "a"}
