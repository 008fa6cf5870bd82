"""Protobuf to the room's own values, checked, and back.

Knows the contract and nothing about what is done with a value.
"""

import json
from collections.abc import Iterable
from typing import Any

from google.protobuf import struct_pb2
from serin.generation.v1 import chat_pb2
from serin.tokenizer.v1 import tokenizer_pb2

from serin_tokenizer_svc.conversation import Conversation, Turn
from serin_tokenizer_svc.errors import InputRefused
from serin_tokenizer_svc.outbox import News
from serin_tokenizer_svc.sequences import Opening

ROLES = ("system", "developer", "user", "assistant", "tool")
SCHEMA_KEYS = ("type", "title", "description", "enum", "const", "properties", "items", "required")
"""Order of a JSON schema's usual keys; a Struct keeps none, and prompts must not depend on chance."""
MAX_DEPTH = 64


def read_conversation(request: tokenizer_pb2.RenderRequest) -> Conversation:
    """Read a request.

    Raises:
        InputRefused: a field is outside what is accepted.
    """
    if not request.messages:
        raise InputRefused("the conversation is empty; accepted: at least one message", "messages")
    turns = tuple(_read_turn(at, message) for at, message in enumerate(request.messages))
    if request.continue_final_message and not turns[-1].parts:
        raise InputRefused("the final message has no text to continue", "continue_final_message")
    return Conversation(
        turns=turns,
        tools=tuple(_read_tool(at, tool) for at, tool in enumerate(request.tools)),
        arguments={
            name: _plain(value, "template_arguments", 1) for name, value in _in_order(request.template_arguments)
        },
        with_header=not request.omit_generation_prompt,
        open_ended=request.continue_final_message,
    )


def read_opening(frame: tokenizer_pb2.OpenSequence) -> Opening:
    """How a sequence begins."""
    return Opening(
        vocabulary_digest=frame.vocabulary_digest,
        prior_ids=list(frame.prior_token_ids),
        delivered_bytes=frame.delivered_byte_count,
        stop_strings=tuple(frame.stop_strings),
        include_stop=frame.include_stop_string,
        keep_special=frame.keep_special_tokens,
        min_tokens=frame.min_token_count,
    )


def write_news(news: News) -> tokenizer_pb2.DetokenizeResponse:
    """News as they travel."""
    response = tokenizer_pb2.DetokenizeResponse(
        sequence_id=news.sequence_id,
        text=news.text,
        watermark=news.watermark,
        delivered_byte_count=news.delivered_bytes,
        closed=news.closed,
        credit=news.credit,
    )
    if news.stop is not None:
        response.stop.stop_string = news.stop.stop_string
        response.stop.token_count = news.stop.num_tokens
    if news.failure is not None:
        response.failure.reason, response.failure.message = news.failure
    return response


def _read_turn(at: int, message: chat_pb2.ChatMessage) -> Turn:
    where = f"messages[{at}]"
    if message.role not in ROLES:
        raise InputRefused(f"{where}.role: {message.role!r}: accepted: {', '.join(ROLES)}", f"{where}.role")
    if not message.content and not (message.role == "assistant" and message.tool_calls):
        raise InputRefused(f"{where}.content: empty; accepted only for an assistant's tool calls", f"{where}.content")
    for part in message.content:
        if part.WhichOneof("part") != "text":
            raise InputRefused(f"{where}.content: accepted: text", f"{where}.content")
    return Turn(
        role=message.role,
        parts=tuple(part.text for part in message.content),
        name=message.name if message.HasField("name") else None,
        tool_calls=tuple(map(_read_call, message.tool_calls)),
        tool_call_id=message.tool_call_id if message.HasField("tool_call_id") else None,
    )


def _read_call(call: chat_pb2.ToolCall) -> dict[str, Any]:
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": _read_arguments(call.arguments_json)},
    }


def _read_arguments(text: str) -> Any:
    """Arguments as templates want them, an object; what a model wrote and is no object stays text."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, dict) else text


def _read_tool(at: int, tool: chat_pb2.ToolDefinition) -> dict[str, Any]:
    where = f"tools[{at}]"
    if not tool.name:
        raise InputRefused(f"{where}.name: empty", f"{where}.name")
    function: dict[str, Any] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    if tool.HasField("parameters"):
        function["parameters"] = {
            name: _plain(value, f"{where}.parameters", 1) for name, value in _in_order(tool.parameters)
        }
    return {"type": "function", "function": function}


def _plain(value: struct_pb2.Value, where: str, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise InputRefused(f"{where}: deeper than {MAX_DEPTH} levels", where)
    match value.WhichOneof("kind"):
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() and abs(number) < 1 << 53 else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return {name: _plain(item, where, depth + 1) for name, item in _in_order(value.struct_value)}
        case "list_value":
            return [_plain(item, where, depth + 1) for item in value.list_value.values]
        case _:
            return None


def _in_order(struct: struct_pb2.Struct) -> Iterable[tuple[str, struct_pb2.Value]]:
    rank = {key: at for at, key in enumerate(SCHEMA_KEYS)}
    return sorted(struct.fields.items(), key=lambda item: (rank.get(item[0], len(rank)), item[0]))
