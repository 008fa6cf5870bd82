"""Whether a text is JSON that obeys a JSON Schema (draft 2020-12). Fetches nothing; patterns end in time.

Knows nothing about answers.
"""

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import referencing
from jsonschema.exceptions import ValidationError

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
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
        return bool(_validator()(schema, registry=referencing.Registry()).is_valid(value))
    except NotScored:
        raise
    except jsonschema.SchemaError as error:
        raise NotScored(f"no JSON Schema: {error.message}"[:200]) from error
    except Exception as error:  # references that lead nowhere come wrapped in types that are not public
        raise NotScored(f"the schema cannot be used: {type(error).__name__}: {error}"[:200]) from error


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
