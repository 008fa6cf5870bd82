"""What is asked, under guards: every text of it that a model may be shown.

Runs in a thread where there is much to look at: it is pure but for what it counts. Knows nothing about who asks.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from serin_mesh.errors import Reason

from serin_gateway.ask import Ask, Input, TokenPrompt, place_of, refuse
from serin_gateway.conversation import Conversation, Message, ToolCall
from serin_gateway.guards.failures import content_refused
from serin_gateway.guards.json_text import screened_json
from serin_gateway.guards.screen import Screen, screened
from serin_gateway.tools import MAX_ARGUMENTS_DEPTH, Tool, json_fault

Open = Callable[[], Screen]
"""Makes a screen for a text."""


def guarded_ask(ask: Ask, screen: Open, *, holds: bool) -> Ask:
    """The ask as it may go on.

    Errors name places as they are named behind the doors.

    Args:
        ask: what was asked.
        screen: makes the screen of each text.
        holds: whether nothing may go on that was not looked at: then ids may not, which only a lane can read.

    Raises:
        MeshError: CONTENT_REFUSED, or PARAMETER_UNSUPPORTED for a prompt of ids.
        GuardFailed: a detector could not look.
    """
    return replace(ask, inputs=[_input(one, screen, at, holds=holds) for at, one in enumerate(ask.inputs)])


def num_characters(ask: Ask) -> int:
    """How much there is to look at, about."""
    return sum(_size(one) for one in ask.inputs)


def _size(one: Input) -> int:
    if isinstance(one, str):
        return len(one)
    if isinstance(one, TokenPrompt):
        return 0
    tools = sum(len(tool.description) + len(tool.parameters_json) for tool in one.tools)
    return tools + sum(message.byte_count for message in one.messages)


def _input(one: Input, screen: Open, at: int, *, holds: bool) -> Input:
    if isinstance(one, str):
        return _text(one, screen, place_of(one, at))
    if isinstance(one, TokenPrompt):
        if holds:
            why = "token ids are not supported where guards look at the input; send text"
            raise refuse(place_of(one, at), why, Reason.PARAMETER_UNSUPPORTED)
        return one
    return _conversation(one, screen)


def _conversation(one: Conversation, screen: Open) -> Conversation:
    messages = [_message(message, screen, f"messages[{at}]") for at, message in enumerate(one.messages)]
    tools = [_tool(tool, screen, f"tools[{at}]") for at, tool in enumerate(one.tools)]
    return replace(one, messages=messages, tools=tools)


def _message(message: Message, screen: Open, where: str) -> Message:
    calls = [_call(call, screen, f"{where}.tool_calls[{at}]") for at, call in enumerate(message.tool_calls)]
    return replace(
        message,
        texts=_texts(message.texts, screen, f"{where}.content"),
        name=message.name and _text(message.name, screen, f"{where}.name"),
        tool_calls=calls,
        reasoning=message.reasoning and _text(message.reasoning, screen, f"{where}.reasoning_content"),
    )


def _call(call: ToolCall, screen: Open, where: str) -> ToolCall:
    """Arguments that broke off are no JSON: what stands outside of strings is text too."""
    where = f"{where}.arguments"
    arguments = _json(call.arguments_json, screen, where)
    if json_fault(call.arguments_json, MAX_ARGUMENTS_DEPTH, is_schema=False):
        arguments = _text(arguments, screen, where)
    return replace(call, arguments_json=arguments)


def _tool(tool: Tool, screen: Open, where: str) -> Tool:
    return replace(
        tool,
        description=_text(tool.description, screen, f"{where}.description"),
        parameters_json=_json(tool.parameters_json, screen, f"{where}.parameters", numbers=False),
    )


def _text(text: str, screen: Open, where: str) -> str:
    looked = screen()
    passed = screened(looked, text)
    if looked.refusal is not None:
        raise content_refused(where, looked.refusal)
    return passed


def _json(text: str, screen: Open, where: str, *, numbers: bool = True) -> str:
    looked = screen()
    passed = screened_json(looked, text, numbers=numbers)
    if looked.refusal is not None:
        raise content_refused(where, looked.refusal)
    return passed


def _texts(texts: Sequence[str], screen: Open, where: str) -> Sequence[str]:
    """The parts of one message, looked at as the one text that a template makes of them."""
    if len(texts) < 2:
        return [_text(text, screen, where) for text in texts]
    looked = screen()
    screened(looked, "".join(texts))
    if looked.refusal is not None:
        raise content_refused(f"{where}[{_holder(texts, looked.num_released)}]", looked.refusal)
    parts: list[str] = []
    begin = 0
    for text in texts:
        end = begin + len(text)
        said: list[str] = []
        at = begin
        for one in looked.replacements:
            if one.start < end and begin < one.end:
                said += text[at - begin : max(at, one.start) - begin], one.mask if one.start >= begin else ""
                at = min(end, one.end)
        parts.append("".join([*said, text[at - begin :]]))
        begin = end
    return parts


def _holder(texts: Sequence[str], place: int) -> int:
    """Which of the texts has the character at a place of all of them together."""
    for at, text in enumerate(texts):
        if place < len(text):
            return at
        place -= len(text)
    return len(texts) - 1
