"""From OpenAI bodies to asks. Knows nothing about how they are answered."""

import json
import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from serin_gateway.ask import Ask, Input, Sampling, TokenPrompt, check, refuse
from serin_gateway.conversation import Conversation, Message, ToolCall
from serin_gateway.rest.grammars import read_grammar
from serin_gateway.rest.schemas import (
    ChatBody,
    CompletionBody,
    FunctionBody,
    MessageBody,
    NamedToolChoice,
    SamplingBody,
    ToolBody,
)
from serin_gateway.tools import ChoiceMode, Tool, ToolChoice

COMPLETION_DEFAULT_MAX_TOKENS = 16
"""As in the OpenAI API."""

T = TypeVar("T")

_NAMES = {"choice_count": "n", "stop_strings": "stop"}
_OF_A_FUNCTION = re.compile(r"((?:tools|tool_calls)\[[0-9]+\])\.(name|description|parameters|arguments)$")
_TOKEN_ID = re.compile(r"0|[1-9][0-9]{0,9}")
_INPUT = re.compile(r"inputs(?:\[([0-9]+)\])?(.*)")


def chat_ask(body: ChatBody) -> Ask:
    """What a chat body asks.

    Raises:
        MeshError: PARAMETER_INVALID with the parameter's name as the client wrote it.
    """
    if body.top_logprobs and not body.logprobs:
        raise refuse("top_logprobs", "more than 0 needs logprobs to be true")
    both = body.max_tokens is not None and body.max_completion_tokens is not None
    if both and body.max_tokens != body.max_completion_tokens:
        raise refuse("max_tokens", "differs from max_completion_tokens, which means the same; send one of them")
    longest = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    top_logprobs = (body.top_logprobs or 0) if body.logprobs else None
    conversation = Conversation(
        messages=[read_message(message) for message in body.messages],
        tools=read_tools(body.tools),
        tool_choice=read_tool_choice(body.tool_choice, single_call=body.parallel_tool_calls is False),
        effort=body.reasoning_effort or "",
    )
    names = _NAMES | ({"max_tokens": "max_completion_tokens"} if body.max_completion_tokens is not None else {})
    return _ask(body, [conversation], longest, top_logprobs, lambda name: names.get(name) or inner_name(name))


def completion_ask(body: CompletionBody) -> Ask:
    """What a completion body asks.

    Raises:
        MeshError: PARAMETER_INVALID or PARAMETER_UNSUPPORTED with the parameter's name.
    """
    if body.max_tokens == 0 and not body.echo:
        raise refuse(
            "max_tokens",
            "0 makes no answer; accepted: 1 to 2147483647, or 0 with echo, which gives the prompt back (with logprobs, "
            "how likely it is)",
        )
    longest = COMPLETION_DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens
    names = _NAMES | {"top_logprobs": "logprobs"}

    def named(name: str) -> str:
        return names.get(name) or input_name(name, "prompt", body.prompt)

    return _ask(body, prompts(body.prompt), longest, body.logprobs, named, bool(body.echo))


def _ask(
    body: SamplingBody,
    inputs: Sequence[Input],
    max_tokens: int | None,
    top_logprobs: int | None,
    named: Callable[[str], str],
    echo: bool = False,
) -> Ask:
    if body.stream_options is not None and not body.stream:
        raise refuse("stream_options", "only for streams; set stream to true, or leave it out")
    sampling = Sampling(
        temperature=_or(body.temperature, 1.0),
        top_p=_or(body.top_p, 1.0),
        top_k=_or(body.top_k, 0),
        min_p=_or(body.min_p, 0.0),
        frequency_penalty=_or(body.frequency_penalty, 0.0),
        presence_penalty=_or(body.presence_penalty, 0.0),
        repetition_penalty=_or(body.repetition_penalty, 1.0),
        logit_bias=_logit_bias(body.logit_bias),
        seed=None if body.seed is None else body.seed % 2**64,
        max_tokens=max_tokens,
        min_tokens=_or(body.min_tokens, 0),
        stop_token_ids=body.stop_token_ids or (),
        ignore_eos=bool(body.ignore_eos),
        top_logprobs=top_logprobs,
        choice_count=_or(body.n, 1),
    )
    stop = [] if body.stop is None else body.stop
    previous = (body.__pydantic_extra__ or {}).get("previous_response_id")
    ask = Ask(
        model=body.model,
        inputs=inputs,
        sampling=sampling,
        stop_strings=[stop] if isinstance(stop, str) else stop,
        session_keys=[key[:256] for key in (body.prompt_cache_key, previous, body.user) if key],
        priority=_or(body.priority, 0),
        cache_salt=body.cache_salt or "",
        allow_cached_answer=bool(body.allow_cached_answer),
        echo=echo,
        want_token_ids=bool(body.return_token_ids),
        grammar=read_grammar(body),
        is_streamed=bool(body.stream),
        named=named,
    )
    return check(ask)


def inner_name(name: str) -> str:
    """A place in a conversation as OpenAI's bodies have it: members of a tool or a call are one level deeper."""
    return _OF_A_FUNCTION.sub(r"\1.function.\2", name)


def input_name(name: str, own: str, given: object) -> str:
    """A place in a prompt (``inputs[1]``) as a body has it: under its own name for it, by its index in a list of them.

    Args:
        name: by which it goes behind the door; one that is no prompt's stays as it is.
        own: what the body calls its prompts.
        given: what stands there: a text or ids, or a list of either.
    """
    found = _INPUT.fullmatch(name)
    if found is None:
        return name
    is_list = isinstance(given, list) and not isinstance(next(iter(given), 0), int)
    return f"{own}[{found[1]}]{found[2]}" if is_list and found[1] else own + found[2]


def _or(value: T | None, default: T) -> T:
    return default if value is None else value


def _logit_bias(given: dict[str, float] | None) -> dict[int, float]:
    for name in given or {}:
        # One spelling each: of two that mean the same id, which one holds would be anybody's guess.
        if not _TOKEN_ID.fullmatch(name):
            raise refuse("logit_bias", f"{name[:32]!r} is not a token id; accepted: digits, without leading zeros")
    return {int(name): bias for name, bias in (given or {}).items()}


def prompts(prompt: str | list[str] | list[int] | list[list[int]], name: str = "prompt") -> list[Input]:
    """A text or ids, or a list of either, as inputs; ``name`` is what the caller calls them.

    Raises:
        MeshError: PARAMETER_INVALID, something is no token id.
    """
    if isinstance(prompt, str):
        return [prompt]
    inputs: list[Input] = []
    listed: Sequence[str | int | list[int]] = prompt
    for at, one in enumerate(listed):
        if isinstance(one, int):
            return [_token_prompt(prompt, name)]
        inputs.append(one if isinstance(one, str) else _token_prompt(one, f"{name}[{at}]"))
    return inputs


def _token_prompt(ids: Sequence[object], name: str) -> TokenPrompt:
    token_ids = [one for one in ids if isinstance(one, int) and 0 <= one < 2**32]
    if not ids or len(token_ids) != len(ids):
        raise refuse(name, "accepted: a list of token ids, at least one")
    return TokenPrompt(token_ids)


def read_message(body: MessageBody) -> Message:
    """A turn."""
    calls = [ToolCall(call.id, call.function.name, call.function.arguments) for call in body.tool_calls or ()]
    if body.content is None:
        texts: Sequence[str] = ()
    elif isinstance(body.content, str):
        texts = (body.content,)
    else:
        texts = [part.text for part in body.content]
    return Message(body.role, texts, body.name, calls, body.tool_call_id, body.reasoning_content)


def read_tools(bodies: Sequence[ToolBody] | None) -> list[Tool]:
    """The tools on offer."""
    return [_tool(at, body.function) for at, body in enumerate(bodies or ())]


def _tool(at: int, body: FunctionBody) -> Tool:
    schema = "" if body.parameters is None else json.dumps(body.parameters, ensure_ascii=False)
    return Tool(body.name, body.description or "", schema, bool(body.strict), f"tools[{at}].function.parameters")


def read_tool_choice(choice: str | NamedToolChoice | None, *, single_call: bool = False) -> ToolChoice:
    """Whether tools are to be called; nothing said: as the model likes."""
    if isinstance(choice, NamedToolChoice):
        return ToolChoice(ChoiceMode.NAMED, choice.function.name, single_call)
    return ToolChoice(ChoiceMode(choice or "auto"), single_call=single_call)
