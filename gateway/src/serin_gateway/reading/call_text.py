"""What a JSON text calls: the tool, and the arguments as they were written.

Arguments are cut out of the text rather than written anew, so that numbers, order and escapes stay the model's. Knows
nothing about marks around it.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from serin_gateway.tools import HALF_CHARACTER, names_half_character

_ARGUMENTS = ("arguments", "parameters")
_SPACE = " \t\n\r"


@dataclass(frozen=True, slots=True)
class Called:
    """A whole call: the name of a tool that is offered, and a JSON object as the model wrote it."""

    name: str
    arguments_json: str


def calls_in(text: str, tools: Collection[str], *, bare: bool) -> list[Called] | None:
    """The calls that an object, or a list of objects, makes; None where it is no call of one of the tools.

    Args:
        text: the JSON text.
        tools: names that may be called.
        bare: no mark says that this is a call: arguments must be there then.
    """
    try:
        value = _load(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, dict):
        call = _call(text, value, tools, bare=bare)
        return None if call is None else [call]
    found = [call for member in _members(text) if (call := _element(member, tools, bare=bare)) is not None]
    return found if found and len(found) == len(value) else None


def arguments_in(text: str) -> str | None:
    """The text of an object that is arguments by itself; None where it is no object."""
    try:
        return text if isinstance(_load(text), dict) else None
    except (ValueError, RecursionError):
        return None


def _element(text: str, tools: Collection[str], *, bare: bool) -> Called | None:
    value = _load(text)
    return _call(text, value, tools, bare=bare) if isinstance(value, dict) else None


def _call(text: str, value: dict[str, Any], tools: Collection[str], *, bare: bool) -> Called | None:
    members = dict(_pairs(text))
    if isinstance(value.get("function"), dict) and "name" not in value:
        return _call(members["function"], value["function"], tools, bare=bare)
    name = value.get("name")
    if not isinstance(name, str) or name not in tools:
        return None
    key = next((key for key in _ARGUMENTS if key in value), None)
    if key is None:
        return None if bare else Called(name, "{}")
    arguments = value[key]
    if isinstance(arguments, dict):
        return Called(name, members[key])
    if isinstance(arguments, str) and (spelled := arguments_in(arguments)) is not None:
        return Called(name, spelled)
    return Called(name, "{}") if arguments is None and not bare else None


def _load(text: str) -> Any:
    """The value of a text that every JSON reader takes: no NaN, and no half of a character."""
    value = json.loads(text, parse_constant=_no_number)
    if names_half_character(text, value):
        raise ValueError(HALF_CHARACTER)
    return value


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _members(text: str) -> list[str]:
    """The texts of a list's members; the text is known to be JSON."""
    decoder, found, at = json.JSONDecoder(), [], text.index("[") + 1
    while (at := _past_space(text, at)) < len(text) and text[at] != "]":
        _, end = decoder.raw_decode(text, at)
        found.append(text[at:end])
        at = _past_space(text, end)
        at += text[at] == ","
    return found


def _pairs(text: str) -> list[tuple[str, str]]:
    """The names and texts of an object's members; the text is known to be JSON."""
    decoder, found, at = json.JSONDecoder(), [], text.index("{") + 1
    while text[at := _past_space(text, at)] != "}":
        name, at = decoder.raw_decode(text, at)
        at = _past_space(text, _past_space(text, at) + 1)
        _, end = decoder.raw_decode(text, at)
        found.append((name, text[at:end]))
        at = _past_space(text, end)
        at += text[at] == ","
    return found


def _past_space(text: str, at: int) -> int:
    while at < len(text) and text[at] in _SPACE:
        at += 1
    return at
