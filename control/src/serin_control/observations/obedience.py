"""Whether a text is JSON that obeys a JSON Schema (draft 2020-12). Fetches nothing; patterns end in time.

Knows nothing about answers.
"""

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import referencing
from jsonschema.exceptions import ValidationError
from referencing.jsonschema import DRAFT202012

from serin_control.observations.pattern import found
from serin_control.observations.unscored import NotScored


def obeys(schema: dict[str, Any], text: str) -> bool:
    """Whether it does.

    Raises:
        NotScored: the schema is none, or refers to something outside itself.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    check_schema(schema)
    try:
        return bool(_validator()(schema, registry=referencing.Registry()).is_valid(value))
    except NotScored:
        raise
    except Exception as error:  # references that lead nowhere come wrapped in types that are not public
        raise NotScored(f"the schema cannot be used: {type(error).__name__}: {error}"[:200]) from error


def check_schema(schema: dict[str, Any]) -> None:
    """Whether anything can be held against it.

    Raises:
        NotScored: it is no JSON Schema, or refers to something outside itself.
    """
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as error:
        at = ".".join(map(str, error.absolute_path))
        raise NotScored(f"no JSON Schema: {at + ': ' if at else ''}{error.message}"[:200]) from error
    except RecursionError as error:
        raise NotScored("the schema cannot be used: it is nested too deep") from error
    waiting = [DRAFT202012.create_resource(schema)]
    while waiting:
        one = waiting.pop()
        waiting += one.subresources()
        outside = one.contents.get("$ref", "#") if isinstance(one.contents, dict) else "#"
        if not outside.startswith("#"):
            raise NotScored(f"the schema cannot be used: $ref {outside[:80]!r} leads outside of it")


def _validator() -> Any:
    ours = {"pattern": _pattern, "patternProperties": _pattern_properties}
    return jsonschema.validators.extend(jsonschema.Draft202012Validator, ours)  # type: ignore[no-untyped-call]


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, str) and not found(pattern, instance):
        yield ValidationError("does not match the pattern")


def _pattern_properties(validator: Any, patterns: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    for pattern, inner in patterns.items() if isinstance(instance, dict) else ():
        for name, value in instance.items():
            if found(pattern, name):
                yield from validator.descend(value, inner, path=name, schema_path=pattern)
