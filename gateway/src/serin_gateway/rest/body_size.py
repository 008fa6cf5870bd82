"""How deep a JSON body may be, and of how many parts: what looks at each of them takes microseconds for every one.

A body that is within bounds is told by counting marks in its text. Knows nothing about what bodies mean.
"""

from typing import Any

MAX_DEPTH = 64
MAX_VALUES = 100_000
"""Objects, lists, strings and names of a whole body; numbers cost little and do not count."""
MAX_MEMBERS = 10_000
"""Of one object."""


def size_fault(text: bytes, parsed: dict[str, Any]) -> str:
    """What is too much about a body; empty: nothing is.

    Args:
        text: valid JSON.
        parsed: what a parser made of it.
    """
    num_opened = text.count(b"{") + text.count(b"[")
    if num_opened + text.count(b'"') // 2 > MAX_VALUES or text.count(b":") > MAX_MEMBERS:
        fault = _parts_fault(parsed)
        if fault:
            return fault
    if num_opened > MAX_DEPTH and _is_deeper(parsed, MAX_DEPTH):
        return f"the body is nested deeper than {MAX_DEPTH} levels"
    return ""


def _parts_fault(parsed: dict[str, Any]) -> str:
    count, waiting = 0, [parsed]
    while waiting and count <= MAX_VALUES:
        value: Any = waiting.pop()
        if type(value) is dict:
            if len(value) > MAX_MEMBERS:
                return f"an object of the body has {len(value)} members; accepted: at most {MAX_MEMBERS}"
            count += len(value)
            value = value.values()
        for one in value:
            kind = type(one)
            if kind is dict or kind is list:
                waiting.append(one)
            elif kind is not str:
                continue
            count += 1
            if count > MAX_VALUES:
                break
    if count > MAX_VALUES:
        return f"the body has more than {MAX_VALUES} objects, lists, strings and names of members"
    return ""


def _is_deeper(value: Any, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels == 0 or any(_is_deeper(one, levels - 1) for one in inner if isinstance(one, dict | list))
