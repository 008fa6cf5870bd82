"""From bodies of the Responses API to asks. Knows nothing about how they are answered."""

import json
import re
from collections.abc import Sequence
from typing import TypeVar

from serin_gateway.ask import MAX_SESSION_BYTES, Ask, Sampling, check, refuse
from serin_gateway.conversation import Conversation
from serin_gateway.grammar import Grammar
from serin_gateway.responses.store import Turn
from serin_gateway.rest.grammars import ANY_OBJECT, schema_grammar
from serin_gateway.rest.responses.items import BEFORE, Placed, Script, script_of, stored_items
from serin_gateway.rest.responses.schemas import (
    LOGPROBS,
    AllowedTools,
    FunctionToolBody,
    ResponseBody,
    SchemaFormat,
    ToolName,
)
from serin_gateway.tools import ChoiceMode, Tool, ToolChoice

T = TypeVar("T")

_TOOL = re.compile(r"tools\[([0-9]+)\](.*)")
_NAMES = {"max_tokens": "max_output_tokens", "reasoning_effort": "reasoning.effort", "messages": "input"}
"""What this API calls differently."""


def response_ask(
    body: ResponseBody, items: Sequence[Placed], before: Sequence[Turn], session: str
) -> tuple[Ask, Script]:
    """What a body asks, and how its messages came of items.

    Args:
        body: as it was sent.
        items: its input, see `given_items`.
        before: what the conversation held before.
        session: what keeps the conversation on one lane.

    Raises:
        MeshError: PARAMETER_INVALID with the parameter's name as the client wrote it.
    """
    if not items:
        raise refuse("input", "is empty; accepted: at least one item")
    if body.stream_options is not None and not body.stream:
        raise refuse("stream_options", "only for streams; set stream to true, or leave it out")
    script = script_of(body.instructions, [*_placed(before), *items])
    tools, tool_choice = _tools(body)
    conversation = Conversation(
        script.messages,
        tools=tools,
        tool_choice=tool_choice,
        effort=(body.reasoning.effort or "") if body.reasoning is not None else "",
    )

    def named(name: str) -> str:
        found = _TOOL.fullmatch(name)
        if found is not None:  # of those that the model is shown, which may not be all
            return tools[int(found[1])].parameter.removesuffix(".parameters") + found[2]
        return _NAMES.get(name) or script.named(name)

    sampling = Sampling(
        temperature=_or(body.temperature, 1.0),
        top_p=_or(body.top_p, 1.0),
        top_k=_or(body.top_k, 0),
        min_p=_or(body.min_p, 0.0),
        seed=None if body.seed is None else body.seed % 2**64,
        max_tokens=body.max_output_tokens,
        top_logprobs=_top_logprobs(body),
    )
    ask = Ask(
        model=body.model,
        inputs=[conversation],
        sampling=sampling,
        session_keys=[session[:MAX_SESSION_BYTES]],
        priority=_or(body.priority, 0),
        cache_salt=body.cache_salt or "",
        grammar=_grammar(body),
        is_streamed=bool(body.stream),
        named=named,
    )
    return check(ask), script


def _placed(before: Sequence[Turn]) -> list[Placed]:
    return [(BEFORE, item) for turn in before for text in (turn.input, turn.output) for item in stored_items(text)]


def _tools(body: ResponseBody) -> tuple[list[Tool], ToolChoice]:
    """The tools that the model is shown, and what it is to do with them."""
    tools, choice = [_tool(at, tool) for at, tool in enumerate(body.tools or ())], body.tool_choice
    single_call = body.parallel_tool_calls is False
    if isinstance(choice, ToolName):
        return tools, ToolChoice(ChoiceMode.NAMED, choice.name, single_call)
    if isinstance(choice, AllowedTools):
        known, allowed = {tool.name for tool in tools}, {tool.name for tool in choice.tools}
        for at, tool in enumerate(choice.tools):
            if tool.name not in known:
                raise refuse(f"tool_choice.tools[{at}].name", f"{tool.name!r:.80} is not among the tools")
        return [tool for tool in tools if tool.name in allowed], ToolChoice(
            ChoiceMode(choice.mode), single_call=single_call
        )
    return tools, ToolChoice(ChoiceMode(choice or "auto"), single_call=single_call)


def _tool(at: int, body: FunctionToolBody) -> Tool:
    schema = "" if body.parameters is None else json.dumps(body.parameters, ensure_ascii=False)
    return Tool(body.name, body.description or "", schema, bool(body.strict), f"tools[{at}].parameters")


def _top_logprobs(body: ResponseBody) -> int | None:
    if LOGPROBS in (body.include or ()):
        return body.top_logprobs or 0
    if body.top_logprobs:
        raise refuse("top_logprobs", f"needs include to name {LOGPROBS!r}")
    return None


def _grammar(body: ResponseBody) -> Grammar | None:
    wanted = body.text.format if body.text is not None else None
    if isinstance(wanted, SchemaFormat):
        return schema_grammar(wanted.json_schema, strict=bool(wanted.strict), parameter="text.format")
    if wanted is not None and wanted.type == "json_object":
        return schema_grammar(ANY_OBJECT, strict=True, parameter="text.format")
    return None


def _or(value: T | None, default: T) -> T:
    return default if value is None else value
