"""Finds a key that a JSON text has twice in one object: parsers keep one of them, and which one is a matter of taste.

A text without such a key is told by counting, without parsing it again. Knows nothing about what keys mean.
"""

import json
from typing import Any


def repeated_key(text: bytes, parsed: Any) -> str | None:
    """A key that one of the text's objects has more than once; None: there is none.

    Args:
        text: valid JSON.
        parsed: what a parser made of it.
    """
    # Each key has one colon behind it. With as many colons as keys and colons inside strings, none was dropped.
    if b"\\u00" not in text and text.count(b":") == _num_colons(parsed):
        return None
    try:
        json.loads(text, object_pairs_hook=_unique)
    except _Repeated as found:
        return found.key
    return None


class _Repeated(Exception):
    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def _unique(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise _Repeated(key)
        seen.add(key)


def _num_colons(parsed: Any) -> int:
    count, waiting = 0, [parsed]
    while waiting:
        value = waiting.pop()
        if type(value) is dict:
            count += len(value) + sum(key.count(":") for key in value)
            value = value.values()
        for one in value:
            if type(one) is str:
                count += one.count(":")
            elif type(one) is dict or type(one) is list:
                waiting.append(one)
    return count
