"""Conversations, tools and how answers are written, between the gateway's own types and protobuf.

Knows nothing about calls.
"""

from serin.generation.v1 import chat_pb2
from serin.tokenizer.v1 import tokenizer_pb2

from serin_gateway.conversation import Message
from serin_gateway.reading.form import AnswerForm, CallForm
from serin_gateway.tools import ChoiceMode, Tool, ToolChoice

_CALL_FORMS = {
    tokenizer_pb2.TOOL_CALL_FORMAT_HERMES: CallForm.HERMES,
    tokenizer_pb2.TOOL_CALL_FORMAT_LLAMA: CallForm.LLAMA,
    tokenizer_pb2.TOOL_CALL_FORMAT_MISTRAL: CallForm.MISTRAL,
    tokenizer_pb2.TOOL_CALL_FORMAT_GENERIC: CallForm.GENERIC,
}
_FROM_MODE = {
    chat_pb2.TOOL_CHOICE_MODE_NONE: ChoiceMode.NONE,
    chat_pb2.TOOL_CHOICE_MODE_REQUIRED: ChoiceMode.REQUIRED,
    chat_pb2.TOOL_CHOICE_MODE_NAMED: ChoiceMode.NAMED,
}
_TO_MODE = {mode: number for number, mode in _FROM_MODE.items()}


def to_message(message: Message) -> chat_pb2.ChatMessage:
    """One turn as protobuf."""
    return chat_pb2.ChatMessage(
        role=message.role,
        content=[chat_pb2.ContentPart(text=text) for text in message.texts],
        name=message.name,
        tool_calls=[
            chat_pb2.ToolCall(id=call.call_id, name=call.name, arguments_json=call.arguments_json)
            for call in message.tool_calls
        ],
        tool_call_id=message.tool_call_id,
        reasoning=message.reasoning,
    )


def to_tool(tool: Tool) -> chat_pb2.ToolDefinition:
    """A tool as protobuf."""
    return chat_pb2.ToolDefinition(
        name=tool.name, description=tool.description, parameters_json=tool.parameters_json, strict=tool.strict
    )


def from_tool(at: int, tool: chat_pb2.ToolDefinition) -> Tool:
    """A tool of a caller over gRPC, the one at this place."""
    where = f"tools[{at}].parameters_json"
    return Tool(tool.name, tool.description, tool.parameters_json, tool.strict, where)


def to_tool_choice(choice: ToolChoice) -> chat_pb2.ToolChoice:
    """A choice as protobuf."""
    mode = _TO_MODE.get(choice.mode, chat_pb2.TOOL_CHOICE_MODE_AUTO)
    return chat_pb2.ToolChoice(mode=mode, name=choice.name, single_call=choice.single_call)


def from_tool_choice(choice: chat_pb2.ToolChoice) -> ToolChoice:
    """A choice of a caller over gRPC; the model decides where nothing is said."""
    return ToolChoice(_FROM_MODE.get(choice.mode, ChoiceMode.AUTO), choice.name, choice.single_call)


def from_answer_format(found: tokenizer_pb2.AnswerFormat) -> AnswerForm:
    """How an answer is written; a form of calls that a newer tokenizer knows counts as none."""
    return AnswerForm(
        calls=_CALL_FORMS.get(found.tool_calls, CallForm.NONE),
        reasoning_open=found.reasoning_open,
        reasoning_close=found.reasoning_close,
        reasoning_close_ids=tuple(found.reasoning_close_ids),
        reasoning_begun=found.reasoning_begun,
        beginning=found.beginning,
        marking_ids=tuple(found.marking_token_ids),
    )
