"""From Anthropic bodies to asks. Knows nothing about how they are answered."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from serin_gateway.ask import Ask, Sampling, check, refuse
from serin_gateway.conversation import Conversation, Message, ToolCall
from serin_gateway.rest.anthropic.schemas import (
    CountTokensBody,
    MessagesBody,
    PromptBody,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
    TurnBody,
)
from serin_gateway.tools import ChoiceMode, Tool, ToolChoice

_PLACE = re.compile(r"messages\[([0-9]+)\](?:\.(\w+)(?:\[([0-9]+)\])?)?(.*)")
_MODES = {"auto": ChoiceMode.AUTO, "any": ChoiceMode.REQUIRED, "tool": ChoiceMode.NAMED, "none": ChoiceMode.NONE}
_EFFORTS = {"enabled": "medium", "adaptive": "", "disabled": "none"}


def messages_ask(body: MessagesBody) -> Ask:
    """What a body asks.

    Raises:
        MeshError: PARAMETER_INVALID with the parameter's name as the client wrote it.
    """
    if body.thinking is not None and (body.thinking.budget_tokens or 0) >= body.max_tokens:
        raise refuse("thinking.budget_tokens", "accepted: less than max_tokens")
    user = body.metadata.user_id if body.metadata is not None else None
    sampling = Sampling(
        temperature=1.0 if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        top_k=body.top_k or 0,
        max_tokens=body.max_tokens,
    )
    ask = _ask(body, sampling, body.stop_sequences or (), [user[:256]] if user else [])
    return replace(ask, is_streamed=bool(body.stream))


def count_ask(body: CountTokensBody) -> Ask:
    """What is to be counted.

    Raises:
        MeshError: PARAMETER_INVALID with the parameter's name as the client wrote it.
    """
    return _ask(body, Sampling(), (), [])


def ignored_members(body: PromptBody) -> list[str]:
    """Places of members that no model here can be told."""
    budget = ["thinking.budget_tokens"] if body.thinking and body.thinking.budget_tokens is not None else []
    return budget + [
        f"messages[{at}].content[{number}].is_error"
        for at, turn in enumerate(body.messages)
        if not isinstance(turn.content, str)
        for number, block in enumerate(turn.content)
        if isinstance(block, ToolResultBlock) and block.is_error
    ]


def _ask(body: PromptBody, sampling: Sampling, stops: Sequence[str], session_keys: Sequence[str]) -> Ask:
    turns = [*_system(body), *(one for at, turn in enumerate(body.messages) for one in _turns(at, turn))]
    messages = [turn.message for turn in turns]
    continues = body.messages[-1].role == "assistant"
    if continues and not messages[-1].texts:
        raise refuse(f"messages[{len(body.messages) - 1}].content", "has no text that an answer could go on from")
    conversation = Conversation(messages, continues, _tools(body), _tool_choice(body), _effort(body))

    def named(name: str) -> str:
        found = _PLACE.fullmatch(name)
        if found is not None:
            return turns[int(found[1])].named(found[2] or "", int(found[3] or 0), found[4])
        name = name.replace("].parameters", "].input_schema")
        return {"stop_strings": "stop_sequences", "reasoning_effort": "thinking"}.get(name, name)

    return check(Ask(body.model, [conversation], sampling, stops, session_keys, named=named))


@dataclass(frozen=True, slots=True)
class _Turn:
    """A message as templates know it, and where its caller wrote what of it.

    Attributes:
        place: of the turn, or of the block that is one to templates.
        texts, calls: of each of its texts and calls.
        thoughts: of its reasoning.
    """

    message: Message
    place: str
    texts: Sequence[str] = ()
    calls: Sequence[str] = ()
    thoughts: str = ""

    def named(self, member: str, index: int, rest: str) -> str:
        """Where a member of the message was written: the ``index``-th of it, and what of that."""
        if member == "content" and self.texts:
            return self.texts[index]
        if member == "tool_calls":
            return self.calls[index] + rest.replace(".arguments", ".input")
        if member == "reasoning_content":
            return self.thoughts
        member = "tool_use_id" if member == "tool_call_id" else member
        return f"{self.place}.{member}" if member else self.place


def _tools(body: PromptBody) -> Sequence[Tool]:
    return [
        Tool(
            tool.name,
            tool.description or "",
            json.dumps(tool.input_schema, ensure_ascii=False),
            bool(tool.strict),
            f"tools[{at}].input_schema",
        )
        for at, tool in enumerate(body.tools or ())
    ]


def _tool_choice(body: PromptBody) -> ToolChoice:
    choice = body.tool_choice
    if choice is None:
        return ToolChoice()
    if choice.name is not None and choice.type != "tool":
        raise refuse("tool_choice.name", "only for the type 'tool'")
    return ToolChoice(_MODES[choice.type], choice.name or "", bool(choice.disable_parallel_tool_use))


def _effort(body: PromptBody) -> str:
    return _EFFORTS[body.thinking.type] if body.thinking is not None else ""


def _system(body: PromptBody) -> Iterator[_Turn]:
    if body.system:
        yield _Turn(Message("system", _texts(body.system)), "system", _places(body.system, "system"))


def _turns(at: int, turn: TurnBody) -> Iterator[_Turn]:
    """One turn as the messages that templates know: results of tools are turns of their own."""
    place = f"messages[{at}]"
    if isinstance(turn.content, str):
        yield _Turn(Message(turn.role, (turn.content,)), place, (f"{place}.content",))
        return
    texts: dict[str, str] = {}
    thoughts: dict[str, str] = {}
    calls: dict[str, ToolCall] = {}
    for number, block in enumerate(turn.content):
        where = f"{place}.content[{number}]"
        if isinstance(block, ToolUseBlock):
            if turn.role != "assistant":
                raise refuse(f"{where}.type", "'tool_use' is not accepted here; accepted: in an assistant's turn")
            calls[where] = ToolCall(block.id, block.name, json.dumps(block.input, ensure_ascii=False))
        elif isinstance(block, ToolResultBlock):
            if turn.role != "user" or texts:
                raise refuse(f"{where}.type", "'tool_result' is not accepted here; accepted: first in a user's turn")
            result = block.content or ""
            message = Message("tool", _texts(result), tool_call_id=block.tool_use_id)
            yield _Turn(message, where, _places(result, f"{where}.content"))
        elif isinstance(block, ThinkingBlock):
            if turn.role != "assistant":
                raise refuse(f"{where}.type", "'thinking' is not accepted here; accepted: in an assistant's turn")
            thoughts[where] = block.thinking
        else:
            texts[where] = block.text
    if texts or calls or thoughts or not turn.content:
        reasoning = "".join(thoughts.values()) if thoughts else None
        message = Message(turn.role, list(texts.values()), tool_calls=list(calls.values()), reasoning=reasoning)
        yield _Turn(message, place, list(texts), list(calls), next(iter(thoughts), place))


def _texts(content: str | Sequence[TextBlock]) -> Sequence[str]:
    return (content,) if isinstance(content, str) else [block.text for block in content]


def _places(content: str | Sequence[TextBlock], where: str) -> Sequence[str]:
    """Where each of its texts is."""
    return (where,) if isinstance(content, str) else [f"{where}[{at}]" for at in range(len(content))]
