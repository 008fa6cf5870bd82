"""A conversation as the room's own value: what a template is given.

Knows nothing about protobuf or templates.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn.

    Attributes:
        role: who speaks.
        parts: pieces of text; none for a turn that only calls tools.
        name: the participant's name.
        tool_calls: calls as templates read them: id, type, function{name, arguments}.
        tool_call_id: the call that a tool's turn answers.
        reasoning: what an assistant reasoned before it answered.
    """

    role: str
    parts: tuple[str, ...]
    name: str | None = None
    tool_calls: tuple[dict[str, Any], ...] = ()
    tool_call_id: str | None = None
    reasoning: str | None = None


@dataclass(frozen=True, slots=True)
class ToolSchema:
    """What a tool's arguments must be.

    Attributes:
        name: the tool's.
        schema: a JSON schema; None: it takes no arguments.
        is_strict: all of the schema is enforced, whoever decides on the call.
        parameter: where its caller wrote the schema, for errors.
    """

    name: str
    schema: dict[str, Any] | None
    is_strict: bool
    parameter: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation to render.

    Attributes:
        turns: at least one.
        tools: tools as templates read them: type, function{name, description, parameters}.
        arguments: further variables of the template.
        with_header: whether the header of the answer is added.
        open_ended: whether the text ends inside the last turn.
        begun_call: the tool of a call that the answer begins with; empty: of any tool, None: it begins with none.
        effort: how much to reason; empty: as the template does by itself.
        schemas: what the arguments of each tool must be.
        has_one_call: an answer ends behind its first call.
    """

    turns: tuple[Turn, ...]
    tools: tuple[dict[str, Any], ...] = ()
    arguments: dict[str, Any] = field(default_factory=dict)
    with_header: bool = True
    open_ended: bool = False
    begun_call: str | None = None
    effort: str = ""
    schemas: tuple[ToolSchema, ...] = ()
    has_one_call: bool = False
