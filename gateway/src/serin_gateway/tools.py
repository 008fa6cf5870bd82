"""Tools that a model may call, and whether it is to; one set of bounds for every door.

Knows nothing about how calls are written or read.
"""

import enum
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from serin_gateway.repeats import repeated_key

MAX_TOOLS = 128
MAX_TOOL_BYTES = 131_072
"""Of one definition."""
MAX_ALL_TOOLS_BYTES = 1_048_576
MAX_SCHEMA_DEPTH = 32
MAX_ARGUMENTS_DEPTH = 60
"""Of the arguments of an earlier call."""
NO_JSON = "is no JSON"
HALF_CHARACTER = "names half of a surrogate pair, which is no character"
MAX_CALLS = 128
"""Calls of one turn."""
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""How much a model may be asked to reason."""

_NAME = re.compile("[a-zA-Z0-9_-]{1,128}")
_HALF = re.compile(r"\\u[dD][89a-fA-F]")
"""An escape of half of a surrogate pair; its other half must be beside it."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool on offer.

    Attributes:
        parameters_json: a JSON schema as text, in the caller's order of keys, or empty.
        strict: arguments always follow all of the schema.
        parameter: where the client wrote the schema, for errors.
    """

    name: str
    description: str = ""
    parameters_json: str = ""
    strict: bool = False
    parameter: str = "tools"

    @property
    def byte_count(self) -> int:
        """Bytes of its definition."""
        return len(self.name.encode()) + len(self.description.encode()) + len(self.parameters_json.encode())


class ChoiceMode(enum.Enum):
    """Whether tools are called."""

    AUTO = "auto"
    NONE = "none"
    REQUIRED = "required"
    NAMED = "named"


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """Whether tools are called, which, and how many.

    Attributes:
        name: the tool, for NAMED.
        single_call: an answer ends behind its first call.
    """

    mode: ChoiceMode = ChoiceMode.AUTO
    name: str = ""
    single_call: bool = False

    @property
    def begins_call(self) -> bool:
        """Whether the answer begins as a call."""
        return self.mode in (ChoiceMode.REQUIRED, ChoiceMode.NAMED)


def tools_faults(tools: Sequence[Tool], choice: ToolChoice) -> Iterator[tuple[str, str]]:
    """What is not accepted about tools and choice: where, and why."""
    if len(tools) > MAX_TOOLS:
        yield "tools", too_many_tools(len(tools))
        return
    if sum(tool.byte_count for tool in tools) > MAX_ALL_TOOLS_BYTES:
        yield "tools", f"more than {MAX_ALL_TOOLS_BYTES} bytes together"
    names: set[str] = set()
    for at, tool in enumerate(tools):
        where = f"tools[{at}]"
        if not _NAME.fullmatch(tool.name):
            yield f"{where}.name", f"{tool.name!r:.80} is not accepted; accepted: 1 to 128 of [a-zA-Z0-9_-]"
        if tool.name in names:
            yield f"{where}.name", f"{tool.name!r} is there twice"
        if tool.byte_count > MAX_TOOL_BYTES:
            yield where, f"has more than {MAX_TOOL_BYTES} bytes"
        elif tool.parameters_json:
            why = json_fault(tool.parameters_json, MAX_SCHEMA_DEPTH, is_schema=True)
            if why:
                yield f"{where}.parameters", why
        names.add(tool.name)
    if choice.begins_call and not tools:
        yield "tool_choice", "needs tools; there are none"
    elif choice.mode is ChoiceMode.NAMED and choice.name not in names:
        yield "tool_choice", f"{choice.name!r:.80} is not among the tools"


def too_many_tools(count: int) -> str:
    """What is said of more than `MAX_TOOLS`."""
    return f"{count} of them; accepted: at most {MAX_TOOLS}"


def arguments_fault(text: str) -> str:
    """Why the arguments of an earlier call are not accepted; empty: they are.

    Those of a call that broke off are no JSON: the model is shown what it wrote, so that it can make it good; and so
    where an escape names half of a character.
    """
    why = json_fault(text, MAX_ARGUMENTS_DEPTH, is_schema=False)
    return "" if why in (NO_JSON, HALF_CHARACTER) else why


def json_fault(text: str, max_depth: int, *, is_schema: bool) -> str:
    """Why a text is not the JSON that is wanted; empty: it is. A schema is an object, none in it has a key twice."""
    try:
        value = json.loads(text)
    except RecursionError:
        return f"is nested deeper than {max_depth} levels"
    except ValueError:
        return NO_JSON
    if is_schema and not isinstance(value, dict):
        return "is no JSON object"
    if text.count("{") + text.count("[") > max_depth and _is_deeper(value, max_depth):
        return f"is nested deeper than {max_depth} levels"
    if names_half_character(text, value):
        return HALF_CHARACTER
    twice = repeated_key(text.encode(), value) if is_schema else None
    return "" if twice is None else f"an object has {twice!r:.80} twice"


def names_half_character(text: str, value: Any) -> bool:
    """Whether a JSON text, whose value is given, names half of a surrogate pair: not every JSON reader takes it."""
    if not _HALF.search(text):
        return False
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def _is_deeper(value: Any, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if levels == 0:
        return isinstance(value, dict | list)
    return any(_is_deeper(one, levels - 1) for one in inner)
