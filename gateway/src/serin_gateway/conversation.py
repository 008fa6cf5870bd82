"""A conversation: its turns, and what none of them may be. One set of rules for both doors.

Knows nothing about templates, nor about how a door spells a turn.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

ROLES = ("system", "developer", "user", "assistant", "tool")

_TURN_OVERHEAD_BYTES = 64  # what a template may add around one turn, in tokens of at least one byte
_OVERHEAD_BYTES = 256  # what a template may add around a conversation


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool that an earlier answer made."""

    call_id: str
    name: str
    arguments_json: str


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation: its texts in order, and the tools it called."""

    role: str
    texts: Sequence[str] = ()
    name: str | None = None
    tool_calls: Sequence[ToolCall] = ()
    tool_call_id: str | None = None

    @property
    def byte_count(self) -> int:
        """Bytes of everything a template may write out."""
        called = sum(
            len(call.call_id.encode()) + len(call.name.encode()) + len(call.arguments_json.encode())
            for call in self.tool_calls
        )
        named = len((self.name or "").encode()) + len((self.tool_call_id or "").encode())
        return sum(len(text.encode()) for text in self.texts) + named + called


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns that a chat template turns into a prompt.

    Attributes:
        continues: the answer goes on inside the last turn, which is an assistant's.
    """

    messages: Sequence[Message]
    continues: bool = False

    @property
    def byte_count(self) -> int:
        """Bytes of everything its callers wrote."""
        return sum(message.byte_count for message in self.messages)

    @property
    def token_bound(self) -> int:
        """Most tokens that a template can make of it: no token is shorter than a byte."""
        return self.byte_count + len(self.messages) * _TURN_OVERHEAD_BYTES + _OVERHEAD_BYTES

    def fault(self) -> tuple[str, str] | None:
        """The first thing about it that is not accepted: where (``messages[0].role``), and why."""
        if not self.messages:
            return "messages", "is empty; accepted: at least one"
        for at, message in enumerate(self.messages):
            for member, why in _faults(message):
                return f"messages[{at}].{member}", why
        return None


def _faults(message: Message) -> Iterator[tuple[str, str]]:
    is_assistant = message.role == "assistant"
    if message.role not in ROLES:
        yield "role", f"{message.role[:32]!r} is not accepted; accepted: {', '.join(ROLES)}"
    if message.tool_calls and not is_assistant:
        yield "tool_calls", "only an assistant's turn can have them"
    if not message.texts and not message.tool_calls:
        yield "content", "is missing; only an assistant's turn that calls tools has none"
    if message.role == "tool" and not message.tool_call_id:
        yield "tool_call_id", "is missing; a tool's turn names the call it answers"
    for at, call in enumerate(message.tool_calls):
        if not _is_json(call.arguments_json):
            yield f"tool_calls[{at}].arguments", "is no JSON; accepted: the arguments as JSON text"


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
