"""What a field of a pydantic model accepts, in words, and the first thing wrong with rejected values.

Knows nothing about where values came from.
"""

import types
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

_WORDS: dict[Any, str] = {int: "an integer", float: "a number", str: "text", bool: "true or false", Path: "a path"}


def accepted_values(cls: type[BaseModel], name: str) -> str:
    """What a field accepts, for example ``an integer 0..65535`` or ``auto, console or json``."""
    field = cls.model_fields[name]
    if field.examples:  # says more than a regular expression
        return _either([str(example) for example in field.examples])
    bounds = _bounds(field)
    return f"{_type_words(field.annotation)} {bounds}" if bounds else _type_words(field.annotation)


def is_switch(cls: type[BaseModel], name: str) -> bool:
    """Whether a field is a plain yes or no, so that naming its flag alone means yes."""
    return cls.model_fields[name].annotation is bool


def first_problem(error: ValidationError, cls: type[BaseModel]) -> tuple[str, Any, str]:
    """Field name, rejected value and what is accepted instead.

    A model's own validator that raises ``ValueError("field: 'value': words")`` is taken apart the same way.
    """
    problem = error.errors(include_url=False)[0]
    if problem["loc"]:
        name = str(problem["loc"][0])
        if problem["type"] == "missing":
            return name, "", f"{accepted_values(cls, name)} (required)"
        if problem["type"] == "value_error":
            return name, problem["input"], str(problem["ctx"]["error"])
        accepted = accepted_values(cls, name) if name in cls.model_fields else "no such setting"
        return name, problem["input"], accepted
    name, _, rest = str(problem["ctx"]["error"]).partition(": ") if "ctx" in problem else ("", "", problem["msg"])
    value, _, words = rest.partition(": ")
    return name, value.strip("'"), words


def _type_words(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is Literal:
        return _either([str(choice) for choice in get_args(annotation)])
    if origin in (Union, types.UnionType):
        return _either([_type_words(a) for a in get_args(annotation) if a is not type(None)])
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return _either([str(member.value) for member in annotation])
    return _WORDS.get(annotation, str(getattr(annotation, "__name__", annotation)))


def _bounds(field: FieldInfo) -> str:
    limits = {key: value for item in field.metadata for key, value in _limits_of(item).items() if value is not None}
    low, high = limits.get("ge"), limits.get("le")
    words = []
    if low is not None and high is not None:
        words.append(f"{low}..{high}")
    elif low is not None:
        words.append(f"of {low} or more")
    elif high is not None:
        words.append(f"of {high} or less")
    if "gt" in limits:
        words.append(f"above {limits['gt']}")
    if "lt" in limits:
        words.append(f"below {limits['lt']}")
    if "multiple_of" in limits:
        words.append(f"a multiple of {limits['multiple_of']}")
    if "pattern" in limits:
        words.append(f"that matches {limits['pattern']}")
    if "min_length" in limits:
        words.append(f"of {limits['min_length']} characters or more")
    if "max_length" in limits:
        words.append(f"of at most {limits['max_length']} characters")
    return ", ".join(words)


def _limits_of(constraint: Any) -> dict[str, Any]:
    slots = getattr(constraint, "__slots__", ())
    return {slot: getattr(constraint, slot) for slot in slots} | getattr(constraint, "__dict__", {})


def _either(choices: list[str]) -> str:
    return choices[0] if len(choices) == 1 else ", ".join(choices[:-1]) + " or " + choices[-1]
