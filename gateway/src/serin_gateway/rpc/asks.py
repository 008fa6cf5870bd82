"""From `serin.inference.v1` messages to asks, and from events to messages. Knows no pipeline."""

from collections.abc import Iterator
from dataclasses import replace

from serin.generation.v1 import chat_pb2
from serin.inference.v1 import inference_pb2
from serin_mesh.errors import Reason

from serin_gateway.ask import MAX_SESSION_BYTES, Ask, Input, TokenPrompt, check, refuse
from serin_gateway.conversation import MAX_TURNS, Conversation, Message, ToolCall, pieces_fault, turns_fault
from serin_gateway.embedding_ask import EmbeddingAsk
from serin_gateway.embedding_ask import check as check_embedding
from serin_gateway.events import (
    ChoiceEnded,
    Completed,
    Event,
    ReasoningChunk,
    Started,
    TextChunk,
    TextLogprob,
    ToolCallBegun,
    ToolCallGrew,
    Usage,
)
from serin_gateway.offsets import Offsets
from serin_gateway.tools import MAX_TOOLS, too_many_tools
from serin_gateway.upstream.tool_wire import from_tool, from_tool_choice
from serin_gateway.upstream.wire import from_grammar, from_sampling, to_finish

_Prompted = inference_pb2.GenerateRequest | inference_pb2.CountTokensRequest | inference_pb2.TokenizeRequest

MAX_ECHOED = 1024
"""Tokens of a prompt in one message: each may have 20 alternatives."""


def generate_ask(request: inference_pb2.GenerateRequest) -> Ask:
    """What a request asks.

    Raises:
        MeshError: PARAMETER_INVALID, PARAMETER_UNSUPPORTED or GRAMMAR_LIMIT with the field's name.
    """
    if len(request.session_id.encode()) > MAX_SESSION_BYTES:
        raise refuse("session_id", f"accepted: at most {MAX_SESSION_BYTES} bytes")
    if request.echo and request.HasField("chat"):
        raise refuse(
            "echo", "not supported with chat; accepted: with prompt or token_prompt", Reason.PARAMETER_UNSUPPORTED
        )
    ask = Ask(
        model=request.model,
        inputs=[_input(request)],
        sampling=from_sampling(request.sampling),
        stop_strings=list(request.stop_strings),
        session_keys=[request.session_id] if request.session_id else [],
        priority=request.priority,
        cache_salt=request.cache_salt,
        allow_cached_answer=request.allow_cached_answer,
        want_token_ids=True,
        echo=request.echo,
        grammar=from_grammar(request.grammar) if request.HasField("grammar") else None,
        is_streamed=True,
        named=lambda name: _named(name, request),
    )
    return check(ask)


def count_ask(request: inference_pb2.CountTokensRequest) -> Ask:
    """What is to be counted.

    Raises:
        MeshError: PARAMETER_INVALID or PARAMETER_UNSUPPORTED with the field's name.
    """
    return check(Ask(model=request.model, inputs=[_input(request)], named=lambda name: _named(name, request)))


def tokenize_ask(request: inference_pb2.TokenizeRequest) -> Ask:
    """What is to be tokenized.

    Raises:
        MeshError: PARAMETER_INVALID or PARAMETER_UNSUPPORTED with the field's name.
    """
    if request.omit_generation_prompt and not request.HasField("chat"):
        raise refuse("omit_generation_prompt", "only with chat; a prompt is tokenized as it is")
    one = _input(request)
    if isinstance(one, Conversation):
        one = replace(one, begins_answer=not request.omit_generation_prompt)
    return check(Ask(model=request.model, inputs=[one], named=lambda name: _named(name, request)))


def detokenize_ask(request: inference_pb2.DetokenizeRequest) -> Ask:
    """Whose text is asked for; there may be no ids at all.

    Raises:
        MeshError: PARAMETER_INVALID with the field's name.
    """
    return check(
        Ask(
            model=request.model,
            inputs=[TokenPrompt(list(request.token_ids))],
            named=lambda name: name.replace("inputs[0]", "token_ids"),
        )
    )


def embedding_ask(request: inference_pb2.EmbedRequest) -> EmbeddingAsk:
    """What is to be embedded.

    Raises:
        MeshError: PARAMETER_INVALID with the field's name.
    """
    if request.inputs and request.token_inputs:
        raise refuse("inputs", "together with token_inputs; accepted: one of them")
    inputs: list[Input] = list(request.inputs) or [TokenPrompt(list(run.token_ids)) for run in request.token_inputs]

    def named(name: str) -> str:
        if name == "num_dimensions":
            return "dimension_count"
        return f"token_{name}" if request.token_inputs and name.startswith("inputs") else name

    return check_embedding(
        EmbeddingAsk(request.model, inputs, num_dimensions=request.dimension_count or None, named=named)
    )


def event_message(event: Event) -> inference_pb2.GenerateResponse | None:
    """An event as a message; the request's own `started` is not among them, and no delta says that a call ends."""
    if isinstance(event, TextChunk):
        delta = inference_pb2.GenerationDelta(
            choice_index=event.choice_index,
            text=event.text,
            token_ids=event.token_ids,
            logprobs=[_logprob(one) for one in event.logprobs],
        )
        return inference_pb2.GenerateResponse(delta=delta)
    if isinstance(event, ReasoningChunk):
        delta = inference_pb2.GenerationDelta(choice_index=event.choice_index, reasoning=event.text)
        return inference_pb2.GenerateResponse(delta=delta)
    if isinstance(event, ToolCallBegun):
        call = inference_pb2.ToolCallDelta(call_index=event.call_index, id=f"call_{event.call_id}", name=event.name)
        delta = inference_pb2.GenerationDelta(choice_index=event.choice_index, tool_call=call)
        return inference_pb2.GenerateResponse(delta=delta)
    if isinstance(event, ToolCallGrew):
        more = inference_pb2.ToolCallDelta(call_index=event.call_index, arguments_json=event.arguments_json)
        delta = inference_pb2.GenerationDelta(choice_index=event.choice_index, tool_call=more)
        return inference_pb2.GenerateResponse(delta=delta)
    if isinstance(event, ChoiceEnded):
        end = inference_pb2.ChoiceFinished(
            choice_index=event.choice_index,
            finish_reason=to_finish(event.finish_reason),
            stop_string=event.stop_string,
        )
        return inference_pb2.GenerateResponse(choice_finished=end)
    if isinstance(event, Completed):
        return inference_pb2.GenerateResponse(summary=inference_pb2.GenerationSummary(usage=usage_message(event.usage)))
    return None


def echo_messages(event: Started) -> Iterator[inference_pb2.GenerateResponse]:
    """A prompt as it is told before its answers, in messages of a bounded size."""
    text, scored, offsets = event.echo_text, event.echo_logprobs, Offsets()
    for begin in range(0, max(1, len(scored)), MAX_ECHOED):
        part = range(begin, min(begin + MAX_ECHOED, len(scored)))
        tokens = [
            _prompt_token(event.prompt_token_ids[at], scored[at], offsets.of(event.echo_pieces[at])) for at in part
        ]
        yield inference_pb2.GenerateResponse(echo=inference_pb2.PromptEcho(text=text, tokens=tokens))
        text = ""


def _input(request: _Prompted) -> Input:
    kind = request.WhichOneof("input")
    if kind == "prompt":
        return request.prompt
    if kind == "token_prompt":
        assert isinstance(request, inference_pb2.GenerateRequest)
        return TokenPrompt(list(request.token_prompt.token_ids))
    if kind is None:
        raise refuse("input", f"is missing; accepted: {_accepted(request)}")
    chat = request.chat
    # Before anything is translated, or looked at: a field of two bytes can be repeated a million times.
    why = turns_fault(len(chat.messages)) or pieces_fault(
        sum(len(one.content) + len(one.tool_calls) for one in chat.messages[:MAX_TURNS])
    )
    if why:
        raise refuse("messages", why)
    if len(chat.tools) > MAX_TOOLS:
        raise refuse("tools", too_many_tools(len(chat.tools)))
    if chat.tool_choice.mode not in chat_pb2.ToolChoiceMode.values():
        known = ", ".join(chat_pb2.ToolChoiceMode.keys())
        raise refuse("tool_choice.mode", f"{chat.tool_choice.mode} is not known; accepted: {known}")
    return Conversation(
        [_message(message, at) for at, message in enumerate(chat.messages)],
        chat.continue_final_message,
        [from_tool(at, tool) for at, tool in enumerate(chat.tools)],
        from_tool_choice(chat.tool_choice),
        chat.reasoning_effort,
    )


def _accepted(request: _Prompted) -> str:
    return " or ".join(field.name for field in request.DESCRIPTOR.oneofs_by_name["input"].fields)


def _message(message: chat_pb2.ChatMessage, at: int) -> Message:
    return Message(
        message.role,
        [_text(part, f"messages[{at}].content[{n}]") for n, part in enumerate(message.content)],
        message.name if message.HasField("name") else None,
        [ToolCall(call.id, call.name, call.arguments_json) for call in message.tool_calls],
        message.tool_call_id if message.HasField("tool_call_id") else None,
        message.reasoning if message.HasField("reasoning") else None,
    )


def _text(part: chat_pb2.ContentPart, where: str) -> str:
    """A part's text; a part that is of no kind we know (a newer caller's) is not taken for an empty one."""
    if part.WhichOneof("part") != "text":
        raise refuse(where, "holds nothing that is known here; accepted: text")
    return part.text


def _named(name: str, request: _Prompted) -> str:
    if name == "inputs[0]":
        return request.WhichOneof("input") or "input"
    for end in ("].arguments", "].parameters"):
        if name.endswith(end):
            return f"{name}_json"
    return name.replace("].reasoning_content", "].reasoning")


def usage_message(usage: Usage) -> inference_pb2.Usage:
    """Tokens that count."""
    return inference_pb2.Usage(
        prompt_token_count=usage.prompt_tokens,
        cached_token_count=usage.cached_tokens,
        completion_token_count=usage.completion_tokens,
        reasoning_token_count=usage.reasoning_tokens,
    )


def _logprob(one: TextLogprob) -> inference_pb2.TextLogprob:
    assert one.logprob is not None, "only a prompt's first token has none"
    return inference_pb2.TextLogprob(
        token=one.token,
        raw=one.raw,
        logprob=one.logprob,
        alternatives=[_logprob(other) for other in one.alternatives],
    )


def _prompt_token(token_id: int, one: TextLogprob, text_offset: int) -> inference_pb2.PromptToken:
    return inference_pb2.PromptToken(
        token_id=token_id,
        token=one.token,
        raw=one.raw,
        logprob=one.logprob,
        alternatives=[_logprob(other) for other in one.alternatives],
        text_offset=text_offset,
    )
