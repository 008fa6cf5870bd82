"""What a place in `serin.yaml` accepts, in words, read off the JSON Schema.

Knows nothing about the keys themselves: schema in, words out.
"""

from collections.abc import Mapping
from typing import Any

from serin_control.config.yaml_lines import KeyPath

Schema = Mapping[str, Any]


def schema_at(root: Schema, path: KeyPath) -> Schema | None:
    """Schema of the value at ``path``; None where nothing is accepted."""
    here: Schema | None = root
    for step in path:
        here = _step(_resolve(root, here), step)
        if here is None:
            return None
    return _resolve(root, here) if here is not None else None


def keys_at(root: Schema, path: KeyPath) -> list[str]:
    """Keys that the mapping at ``path`` accepts; empty where they are free names."""
    here = schema_at(root, path)
    return sorted((here or {}).get("properties", {}))


def describe(schema: Schema | None) -> str:
    """What a schema accepts, in words."""
    if schema is None:
        return "nothing here"
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    match schema.get("type"):
        case "integer":
            return _integer(schema)
        case "number":
            top = schema.get("maximum")
            return f"a number {schema['minimum']}..{top}" if top is not None else _below(schema)
        case "boolean":
            return "true or false"
        case "string":
            return str(schema.get("description") or "text") if "pattern" in schema or "minLength" in schema else "text"
        case "array":
            return "a list"
        case "object" if "properties" in schema:
            return "a mapping with the keys " + ", ".join(sorted(schema["properties"]))
        case "object":
            return "a mapping with at least one entry" if schema.get("minProperties") else "a mapping"
    return "a value as the JSON Schema says"


def _resolve(root: Schema, schema: Schema | None) -> Schema:
    """Follow references, and leave out the null of optional keys."""
    while schema is not None:
        if "$ref" in schema:
            schema = root["$defs"][schema["$ref"].rsplit("/", 1)[1]]
        elif "anyOf" in schema:
            schema = next(choice for choice in schema["anyOf"] if choice.get("type") != "null")
        else:
            return schema
    return {}


def _step(schema: Schema, step: str | int) -> Schema | None:
    if isinstance(step, int):
        items: Schema | None = schema.get("items")
        return items
    if step in schema.get("properties", {}):
        found: Schema = schema["properties"][step]
        return found
    for values in schema.get("patternProperties", {}).values():
        return values  # type: ignore[no-any-return]
    extra = schema.get("additionalProperties")
    return extra if isinstance(extra, Mapping) else None


def _below(schema: Schema) -> str:
    return f"a number from {schema['minimum']}, below {schema['exclusiveMaximum']}"


def _integer(schema: Schema) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f"an integer {low}..{high}"
    return f"an integer, at least {low}" if low is not None else "an integer"
