"""A golden set: questions whose right answers are known, one JSON object a line.

    {"id": "sum-1", "prompt": "2+2=", "expect": {"exact": "4"}, "max_tokens": 8}
    {"id": "json-1", "messages": [{"role": "user", "content": "…"}], "expect": {"schema": {"type": "object"}}}

``expect`` holds one scorer: ``exact`` (the answer without surrounding white space), ``regex`` (found somewhere in it),
``schema`` (it is JSON that obeys), or ``webhook`` (an address that scores it). Knows nothing about who asks.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from serin_mesh.one_line import is_one_line

from serin_control.config.problems import Problem
from serin_control.observations.unscored import NotScored

MAX_CASES = 10_000
MAX_BYTES = 8 << 20
MAX_ID_CHARACTERS = 128
MAX_PATTERN_CHARACTERS = 1_000
MAX_ANSWER_TOKENS = 4_096
DEFAULT_MAX_TOKENS = 64

SCORERS = ("exact", "regex", "schema", "webhook")
_KEYS = ("id", "prompt", "messages", "expect", "max_tokens")
_ROLES = ("system", "user", "assistant")


class GoldenInvalid(Exception):
    """A golden set was refused as a whole; ``problems`` has at least one entry, in order of line."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, problems)))


@dataclass(frozen=True, slots=True)
class GoldenCase:
    """One question.

    Attributes:
        messages: pairs of role and text; a plain prompt has one, with the role ``""``: it is not put into a template.
        scorer: one of :data:`SCORERS`.
        expected: text, pattern, JSON Schema or address, as the scorer takes it.
    """

    id: str
    messages: tuple[tuple[str, str], ...]
    scorer: Literal["exact", "regex", "schema", "webhook"]
    expected: Any
    max_tokens: int = DEFAULT_MAX_TOKENS

    @property
    def prompt(self) -> str | None:
        """The text to go on from; None: the messages are a chat."""
        return self.messages[0][1] if self.messages[0][0] == "" else None


def parse_golden(text: str, source: str = "golden") -> tuple[GoldenCase, ...]:
    """The cases of a golden set.

    Args:
        text: JSON lines; empty lines are passed over.
        source: what to call the text in messages.

    Raises:
        GoldenInvalid: anything in it is wrong; every broken line is listed.
    """
    if len(text.encode()) > MAX_BYTES:
        raise GoldenInvalid([Problem(source, 0, "", f"{len(text.encode())} bytes", f"at most {MAX_BYTES}")])
    cases: dict[str, tuple[int, GoldenCase]] = {}
    problems: list[Problem] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            case = _case(line)
            if case.id in cases:
                raise _Broken("id", f"{case.id!r} is already on line {cases[case.id][0]}", "each id once")
            cases[case.id] = (number, case)
        except _Broken as broken:
            problems.append(Problem(source, number, broken.key, broken.wrong, broken.accepted))
    if not problems and not cases:
        problems.append(Problem(source, 0, "", "no cases", "one JSON object a line"))
    if len(cases) > MAX_CASES:
        problems.append(Problem(source, 0, "", f"{len(cases)} cases", f"at most {MAX_CASES}"))
    if problems:
        raise GoldenInvalid(problems)
    return tuple(case for _, case in cases.values())


class _Broken(Exception):
    def __init__(self, key: str, wrong: str, accepted: str) -> None:
        super().__init__(wrong)
        self.key, self.wrong, self.accepted = key, wrong, accepted


def _case(line: str) -> GoldenCase:
    try:
        found = json.loads(line, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise _Broken("", f"not JSON: {error}", "one JSON object a line") from error
    if not isinstance(found, dict):
        raise _Broken("", f"{type(found).__name__} instead of an object", f"an object with {', '.join(_KEYS)}")
    unknown = [key for key in found if key not in _KEYS]
    if unknown:
        raise _Broken(unknown[0], "unknown key", ", ".join(_KEYS))
    name = found.get("id")
    if not isinstance(name, str) or not 0 < len(name) <= MAX_ID_CHARACTERS or not is_one_line(name):
        raise _Broken("id", f"{name!r} is not accepted", f"1 to {MAX_ID_CHARACTERS} printable characters")
    limit = found.get("max_tokens", DEFAULT_MAX_TOKENS)
    if type(limit) is not int or not 0 < limit <= MAX_ANSWER_TOKENS:
        raise _Broken("max_tokens", f"{limit!r} is not accepted", f"an integer 1..{MAX_ANSWER_TOKENS}")
    messages = tuple(_messages(found))
    scorer, expected = _expect(found.get("expect"))
    return GoldenCase(name, messages, scorer, expected, limit)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; which of two values of a key is meant, nobody can know."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _Broken(key, "is there twice", "each key once")
        found[key] = value
    return found


def _messages(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if ("prompt" in found) == ("messages" in found):
        wrong = "both 'prompt' and 'messages'" if "prompt" in found else "neither 'prompt' nor 'messages'"
        raise _Broken("prompt", wrong, "one of the two")
    if "prompt" in found:
        if not isinstance(found["prompt"], str) or not found["prompt"]:
            raise _Broken("prompt", f"{found['prompt']!r} is not accepted", "text")
        yield "", found["prompt"]
        return
    messages = found["messages"]
    if not isinstance(messages, list) or not messages:
        raise _Broken("messages", "no list of messages", 'a list of {"role": …, "content": …}')
    for index, message in enumerate(messages):
        key = f"messages.{index}"
        if not isinstance(message, dict) or set(message) != {"role", "content"}:
            raise _Broken(key, "not a message", "an object with exactly role and content")
        if message["role"] not in _ROLES:
            raise _Broken(f"{key}.role", f"{message['role']!r} is not accepted", f"one of {', '.join(_ROLES)}")
        if not isinstance(message["content"], str):
            raise _Broken(f"{key}.content", f"{type(message['content']).__name__} is not accepted", "text")
        yield message["role"], message["content"]


def _expect(expect: Any) -> tuple[Literal["exact", "regex", "schema", "webhook"], Any]:
    if not isinstance(expect, dict) or len(expect) != 1 or next(iter(expect)) not in SCORERS:
        wrong = "missing" if expect is None else f"{json.dumps(expect)[:80]} is not accepted"
        raise _Broken("expect", wrong, f"an object with one of {', '.join(SCORERS)}")
    scorer, expected = next(iter(expect.items()))
    key = f"expect.{scorer}"
    if scorer == "schema":
        if not isinstance(expected, dict):
            raise _Broken(key, f"{type(expected).__name__} is not accepted", "a JSON Schema, an object")
        _check_schema(key, expected)
        return "schema", expected
    if not isinstance(expected, str):
        raise _Broken(key, f"{type(expected).__name__} is not accepted", "text")
    if scorer == "exact":
        return "exact", expected
    if scorer == "regex":
        _check_pattern(key, expected)
        return "regex", expected
    address = urlsplit(expected)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise _Broken(key, f"{expected!r} is not accepted", "an http:// or https:// address")
    return "webhook", expected


def _check_schema(key: str, schema: dict[str, Any]) -> None:
    from serin_control.observations.obedience import check_schema  # some megabytes that only schemas need

    try:
        check_schema(schema)
    except NotScored as error:
        raise _Broken(key, str(error), "JSON Schema, draft 2020-12, that refers to itself alone") from error


def _check_pattern(key: str, pattern: str) -> None:
    if not 0 < len(pattern) <= MAX_PATTERN_CHARACTERS:
        raise _Broken(key, f"{len(pattern)} characters", f"1 to {MAX_PATTERN_CHARACTERS} characters")
    try:
        re.compile(pattern)
    except re.error as error:
        raise _Broken(key, f"{pattern!r} is no regular expression: {error}", "a regular expression") from error
