"""Whether a text is JSON as a JSON Schema (draft 2020-12) says. Fetches nothing, ends in time.

Both the schema and the text are strangers': what cannot be checked (a schema that is none, a reference that leads
nowhere, a pattern or a text that takes too long) is not held against the answer. Knows nothing about answers.
"""

import functools
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import regex

MAX_CHECKED_CHARACTERS = 32_768
"""A longer text is only parsed."""
TIMEOUT_S = 0.05
"""For one text."""
UNCHECKED = ("uniqueItems", "format")
"""Keywords left out: the first takes time squared where items cannot be sorted, the second is advice."""


def fits(schema_json: str, text: str) -> bool:
    """Whether a text is JSON that obeys a schema, as far as that can be said."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    if len(text) > MAX_CHECKED_CHARACTERS:
        return True
    try:
        schema = json.loads(schema_json)
        _end.at = time.monotonic() + TIMEOUT_S
        return bool(_validator_class()(schema, registry=_no_documents()).is_valid(value))
    except Exception:  # noqa: BLE001 - strangers' schemas fail in many ways, and none of them is the answer's fault
        return True


class _End:
    at = 0.0


_end = _End()
"""When the validation that runs is given up: there is one at a time, and none waits on anything."""


@functools.cache
def _validator_class() -> Any:
    """Imported when first used: most gateways check nothing."""
    import jsonschema

    ours: dict[str, Any] = {"pattern": _pattern, "patternProperties": _pattern_properties}
    kept = {**jsonschema.Draft202012Validator.VALIDATORS, **ours}
    watched = {name: _watched(check) for name, check in kept.items()} | dict.fromkeys(UNCHECKED)
    return jsonschema.validators.extend(jsonschema.Draft202012Validator, watched)  # type: ignore[no-untyped-call]


@functools.cache
def _no_documents() -> Any:
    import referencing

    return referencing.Registry()


def _watched(check: Callable[..., Any]) -> Callable[..., Any]:
    def watched(validator: Any, value: Any, instance: Any, schema: Any) -> Any:
        if time.monotonic() > _end.at:
            raise TimeoutError
        return check(validator, value, instance, schema)

    return watched


def _found(pattern: str, text: str) -> bool:
    left_s = max(0.001, _end.at - time.monotonic())
    return regex.search(pattern, text, timeout=left_s) is not None  # type: ignore[no-untyped-call]


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[Any]:
    if isinstance(instance, str) and not _found(pattern, instance):
        yield _error("does not match the pattern")


def _pattern_properties(validator: Any, patterns: Any, instance: Any, schema: Any) -> Iterator[Any]:
    for pattern, inner in patterns.items() if isinstance(instance, dict) else ():
        for name, value in instance.items():
            if _found(pattern, name):
                yield from validator.descend(value, inner, path=name, schema_path=pattern)


def _error(message: str) -> Exception:
    from jsonschema.exceptions import ValidationError

    return ValidationError(message)
