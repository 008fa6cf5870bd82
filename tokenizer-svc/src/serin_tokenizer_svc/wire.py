"""Protobuf to the room's own values, checked, and back.

Knows the contract and nothing about what is done with a value.
"""

import json
import re
from typing import Any

from serin.generation.v1 import chat_pb2, sampling_pb2
from serin.tokenizer.v1 import tokenizer_pb2

from serin_tokenizer_svc.answer_form import EFFORTS, AnswerForm, CallForm
from serin_tokenizer_svc.conversation import Conversation, ToolSchema, Turn
from serin_tokenizer_svc.errors import InputRefused
from serin_tokenizer_svc.grammar import GrammarKind, GrammarSource
from serin_tokenizer_svc.outbox import News
from serin_tokenizer_svc.sequences import Opening

ROLES = ("system", "developer", "user", "assistant", "tool")
MAX_DEPTH = 64
"""Levels of a JSON value that a template is given."""
MAX_TOOLS = 128
MAX_CALLS = 128
"""Calls of one turn."""
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
_CALL_FORMATS = {
    CallForm.NONE: tokenizer_pb2.TOOL_CALL_FORMAT_UNSPECIFIED,
    CallForm.HERMES: tokenizer_pb2.TOOL_CALL_FORMAT_HERMES,
    CallForm.LLAMA: tokenizer_pb2.TOOL_CALL_FORMAT_LLAMA,
    CallForm.MISTRAL: tokenizer_pb2.TOOL_CALL_FORMAT_MISTRAL,
    CallForm.GENERIC: tokenizer_pb2.TOOL_CALL_FORMAT_GENERIC,
}
GRAMMAR_KINDS: dict[int, GrammarKind] = {
    sampling_pb2.GRAMMAR_KIND_JSON_SCHEMA: "json_schema",
    sampling_pb2.GRAMMAR_KIND_REGEX: "regex",
    sampling_pb2.GRAMMAR_KIND_EBNF: "ebnf",
    sampling_pb2.GRAMMAR_KIND_CHOICE: "choice",
}


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
    if len(request.tools) > MAX_TOOLS:
        raise InputRefused(f"tools: {len(request.tools)} of them; accepted: at most {MAX_TOOLS}", "tools")
    if request.reasoning_effort and request.reasoning_effort not in EFFORTS:
        accepted = f"{request.reasoning_effort!r:.40} is not accepted; accepted: {', '.join(EFFORTS)}"
        raise InputRefused(f"reasoning_effort: {accepted}", "reasoning_effort")
    hides_tools = request.tool_choice.mode == chat_pb2.TOOL_CHOICE_MODE_NONE
    return Conversation(
        turns=turns,
        tools=() if hides_tools else tuple(_read_tool(at, tool) for at, tool in enumerate(request.tools)),
        arguments=_read_object(request.template_arguments_json, "template_arguments"),
        with_header=not request.omit_generation_prompt,
        open_ended=request.continue_final_message,
        begun_call=_read_begun_call(request),
        effort=request.reasoning_effort,
        schemas=() if hides_tools else tuple(_read_schema(at, tool) for at, tool in enumerate(request.tools)),
        has_one_call=request.tool_choice.single_call,
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
        shown_ids=frozenset(frame.shown_token_ids),
        continues_text=frame.continues_text,
    )


def write_form(form: AnswerForm) -> tokenizer_pb2.AnswerFormat:
    """A form as it travels."""
    return tokenizer_pb2.AnswerFormat(
        tool_calls=_CALL_FORMATS[form.calls],
        reasoning_open=form.reasoning[0],
        reasoning_close=form.reasoning[1],
        reasoning_close_ids=form.reasoning_close_ids,
        reasoning_begun=form.reasoning_begun,
        beginning=form.beginning,
        marking_token_ids=form.marking_ids,
    )


def read_grammar(grammar: sampling_pb2.Grammar) -> GrammarSource:
    """Read a grammar.

    Raises:
        InputRefused: it is of no kind that callers may use.
    """
    kind = GRAMMAR_KINDS.get(grammar.kind)
    if kind is None:
        raise InputRefused(
            f"grammar.kind: {grammar.kind}: accepted: a JSON schema, a regular expression, EBNF or choices", "grammar"
        )
    return GrammarSource(kind, grammar.text, grammar.lenient)


def write_grammar(text: str) -> sampling_pb2.Grammar:
    """A prepared grammar."""
    return sampling_pb2.Grammar(kind=sampling_pb2.GRAMMAR_KIND_PREPARED, text=text)


def write_news(news: News) -> tokenizer_pb2.SequenceNews:
    """News as they travel."""
    response = tokenizer_pb2.SequenceNews(
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
    if len(message.tool_calls) > MAX_CALLS:
        raise InputRefused(f"{where}.tool_calls: accepted: at most {MAX_CALLS}", f"{where}.tool_calls")
    for part in message.content:
        if part.WhichOneof("part") != "text":
            raise InputRefused(f"{where}.content: accepted: text", f"{where}.content")
    return Turn(
        role=message.role,
        parts=tuple(part.text for part in message.content),
        name=message.name if message.HasField("name") else None,
        tool_calls=tuple(map(_read_call, message.tool_calls)),
        tool_call_id=message.tool_call_id if message.HasField("tool_call_id") else None,
        reasoning=message.reasoning if message.HasField("reasoning") else None,
    )


def _read_begun_call(request: tokenizer_pb2.RenderRequest) -> str | None:
    choice = request.tool_choice
    if choice.mode not in (chat_pb2.TOOL_CHOICE_MODE_REQUIRED, chat_pb2.TOOL_CHOICE_MODE_NAMED):
        return None
    if request.omit_generation_prompt or request.continue_final_message:
        raise InputRefused("tool_choice: a call cannot be begun inside a message that goes on", "tool_choice")
    name = choice.name if choice.mode == chat_pb2.TOOL_CHOICE_MODE_NAMED else ""
    known = {tool.name for tool in request.tools}
    if not known or (choice.mode == chat_pb2.TOOL_CHOICE_MODE_NAMED and name not in known):
        raise InputRefused(f"tool_choice: {name!r:.80} is not among the tools", "tool_choice")
    return name


def _read_call(call: chat_pb2.ToolCall) -> dict[str, Any]:
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": _read_arguments(call.arguments_json)},
    }


def _read_arguments(text: str) -> Any:
    """Arguments as templates want them, an object; nothing is none.

    What a model wrote and is no object stays text, and so does what names half of a character: no template can write it
    out.
    """
    if not text.strip():
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if not isinstance(value, dict) or _HALF_CHARACTER.search(json.dumps(value, ensure_ascii=False)):
        return text
    _refuse_deep(value, "tool_calls.arguments")
    return value


def _read_tool(at: int, tool: chat_pb2.ToolDefinition) -> dict[str, Any]:
    where = f"tools[{at}]"
    if not tool.name:
        raise InputRefused(f"{where}.name: empty", f"{where}.name")
    # Some templates fail where a tool has no description or no schema.
    schema = _read_object(tool.parameters_json, f"{where}.parameters") or {"type": "object", "properties": {}}
    function = {"name": tool.name, "description": tool.description, "parameters": schema}
    return {"type": "function", "function": function}


def _read_schema(at: int, tool: chat_pb2.ToolDefinition) -> ToolSchema:
    where = f"tools[{at}].parameters"
    schema = _read_object(tool.parameters_json, where) if tool.parameters_json else None
    return ToolSchema(tool.name, schema, tool.strict, where)


def _read_object(text: str, where: str) -> dict[str, Any]:
    """A JSON object, its keys in the caller's order; empty text is an empty object."""
    if not text:
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputRefused(f"{where}: not JSON: {error}", where) from error
    if not isinstance(value, dict):
        raise InputRefused(f"{where}: accepted: a JSON object", where)
    _refuse_deep(value, where)
    return value


def _refuse_deep(value: Any, where: str, depth: int = 1) -> None:
    if depth > MAX_DEPTH:
        raise InputRefused(f"{where}: deeper than {MAX_DEPTH} levels", where)
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            _refuse_deep(item, where, depth + 1)
