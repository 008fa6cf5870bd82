"""A conversation: its turns, and what none of them may be. One set of rules for both doors.

Knows nothing about templates, nor about how a door spells a turn.
"""

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from serin_gateway.tools import (
    EFFORTS,
    MAX_CALLS,
    ChoiceMode,
    Tool,
    ToolChoice,
    arguments_fault,
    tools_faults,
)

MAX_TURNS = 4096
MAX_PIECES = 16_384
"""Texts and calls of all turns together."""
ROLES = ("system", "developer", "user", "assistant", "tool")

_TURN_OVERHEAD_BYTES = 64  # what a template may add around one turn, in tokens of at least one byte
_OVERHEAD_BYTES = 256  # what a template may add around a conversation
_TOOLS_OVERHEAD_BYTES = 2048  # what it may say about how tools are called
_TOOL_OVERHEAD_BYTES = 256  # what it may add around one tool


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool that an earlier answer made."""

    call_id: str
    name: str
    arguments_json: str


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation: its texts in order, the tools it called, what an assistant reasoned before."""

    role: str
    texts: Sequence[str] = ()
    name: str | None = None
    tool_calls: Sequence[ToolCall] = ()
    tool_call_id: str | None = None
    reasoning: str | None = None

    @property
    def byte_count(self) -> int:
        """Bytes of everything a template may write out."""
        called = sum(
            len(call.call_id.encode()) + len(call.name.encode()) + len(call.arguments_json.encode())
            for call in self.tool_calls
        )
        named = sum(len((text or "").encode()) for text in (self.name, self.tool_call_id, self.reasoning))
        return sum(len(text.encode()) for text in self.texts) + named + called


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns that a chat template turns into a prompt.

    Attributes:
        continues: the answer goes on inside the last turn, which is an assistant's.
        tools, tool_choice: what the model may call, and whether it is to.
        effort: how much it is to reason; empty: as its template does by itself.
        begins_answer: the prompt ends with what its template writes before an answer.
    """

    messages: Sequence[Message]
    continues: bool = False
    tools: Sequence[Tool] = ()
    tool_choice: ToolChoice = field(default_factory=ToolChoice)
    effort: str = ""
    begins_answer: bool = True

    @property
    def byte_count(self) -> int:
        """Bytes of everything its callers wrote."""
        return sum(message.byte_count for message in self.messages)

    @property
    def token_bound(self) -> int:
        """Most tokens that a template can make of it: no token is shorter than a byte."""
        around = len(self.messages) * _TURN_OVERHEAD_BYTES + _OVERHEAD_BYTES
        return self.byte_count + around + _tools_bound(self.tools)

    @property
    def callable_tools(self) -> frozenset[str]:
        """Names of the tools that an answer may call."""
        return frozenset(tool.name for tool in self.shown_tools)

    @property
    def shown_tools(self) -> Sequence[Tool]:
        """The tools that the model is shown."""
        return () if self.tool_choice.mode is ChoiceMode.NONE else self.tools

    @property
    def constrains_calls(self) -> bool:
        """Whether its answer's calls must follow their tools' schemas: one is required, or a tool is strict."""
        return bool(self.shown_tools) and (
            self.tool_choice.begins_call or any(tool.strict for tool in self.shown_tools)
        )

    def fault(self) -> tuple[str, str] | None:
        """The first thing about it that is not accepted: where (``messages[0].role``), and why."""
        if not self.messages:
            return "messages", "is empty; accepted: at least one"
        num_pieces = sum(len(one.texts) + len(one.tool_calls) for one in self.messages)
        why = turns_fault(len(self.messages)) or pieces_fault(num_pieces)
        if why:
            return "messages", why
        called: set[str] = set()
        for at, message in enumerate(self.messages):
            for member, why in _faults(message, called):
                return f"messages[{at}].{member}", why
            called.update(call.call_id for call in message.tool_calls)
        return next(self._own_faults(), None)

    def _own_faults(self) -> Iterator[tuple[str, str]]:
        last = self.messages[-1]
        if self.continues and (last.role != "assistant" or not any(last.texts)):
            at = len(self.messages) - 1
            yield f"messages[{at}].content", "is no assistant's text that an answer could go on from"
        yield from tools_faults(self.tools, self.tool_choice)
        if self.continues and self.tool_choice.begins_call:
            yield "tool_choice", "a call cannot be begun inside a message that goes on"
        if not self.begins_answer and self.tool_choice.begins_call:
            yield "tool_choice", "a call cannot be begun where no answer is"
        if self.effort and self.effort not in EFFORTS:
            yield "reasoning_effort", f"{self.effort!r:.40} is not accepted; accepted: {', '.join(EFFORTS)}"


def turns_fault(num_turns: int) -> str:
    """Why a conversation has too many turns; empty: it has not."""
    return f"{num_turns} of them; accepted: at most {MAX_TURNS}" if num_turns > MAX_TURNS else ""


def pieces_fault(num_pieces: int) -> str:
    """Why its turns have too many texts and calls together; empty: they have not."""
    return f"{num_pieces} texts and calls in all; accepted: at most {MAX_PIECES}" if num_pieces > MAX_PIECES else ""


def _tools_bound(tools: Sequence[Tool]) -> int:
    """Most tokens of tools in a prompt: templates write their schemas with up to four spaces a level."""
    if not tools:
        return 0
    written = sum(tool.byte_count + len(_indented(tool.parameters_json)) + _TOOL_OVERHEAD_BYTES for tool in tools)
    return written + _TOOLS_OVERHEAD_BYTES


def _indented(schema: str) -> bytes:
    try:
        return json.dumps(json.loads(schema), indent=6, ensure_ascii=False).encode() if schema else b""
    except (ValueError, RecursionError):
        return b""  # refused elsewhere


def _faults(message: Message, called: Collection[str]) -> Iterator[tuple[str, str]]:
    """What is not accepted about a turn; ``called``: the calls of those before it."""
    is_assistant = message.role == "assistant"
    if message.role not in ROLES:
        yield "role", f"{message.role[:32]!r} is not accepted; accepted: {', '.join(ROLES)}"
    if message.tool_calls and not is_assistant:
        yield "tool_calls", "only an assistant's turn can have them"
    if not message.texts and not message.tool_calls:
        yield "content", "is missing; only an assistant's turn that calls tools has none"
    if message.role == "tool" and not message.tool_call_id:
        yield "tool_call_id", "is missing; a tool's turn names the call it answers"
    elif message.role == "tool" and message.tool_call_id not in called:
        why = f"{message.tool_call_id!r:.80} is the id of no call before it"
        yield "tool_call_id", f"{why}; a tool's turn answers one of an assistant's turn"
    if len(message.tool_calls) > MAX_CALLS:
        yield "tool_calls", f"{len(message.tool_calls)} of them; accepted: at most {MAX_CALLS}"
    for at, call in enumerate(message.tool_calls):
        why = arguments_fault(call.arguments_json)
        if why:
            yield f"tool_calls[{at}].arguments", why
    if message.reasoning is not None and not is_assistant:
        yield "reasoning_content", "only an assistant's turn can have it"
