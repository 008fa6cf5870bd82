r"""What an answer that calls tools must be: the form that its family writes calls in, around each tool's arguments.

Rules are Lark as llguidance has it; ``grammar_language.py`` adds `ws` and what the arguments are. Where a call is
required, the answer goes on from the call that the prompt has begun, and is calls alone. Where the model decides, it
says what it likes until a call is marked: from there to the call's end it may write nothing else. What the gateway's
reader would take for the beginning of a call is one here too, spelled in characters or as a token. Knows nothing about
prompts, schemas or vocabularies.
"""

import json
import re
from collections.abc import Sequence

from serin_tokenizer_svc.answer_form import AnswerForm, CallForm
from serin_tokenizer_svc.conversation import Conversation, ToolSchema
from serin_tokenizer_svc.grammar import GrammarSource

_ANY = r"(.|\n)*"
_NOT_BARE = rf"(\s*[^\s{{\[]{_ANY})?"
"""A text that does not begin as JSON: one that does may be a call without a mark."""
_MARKS = {CallForm.HERMES: "<tool_call>", CallForm.MISTRAL: "[TOOL_CALLS]", CallForm.LLAMA: "<|python_tag|>"}
_NO_ARGUMENTS = {"type": "object", "properties": {}, "additionalProperties": False}


def call_grammar(conversation: Conversation, form: AnswerForm) -> GrammarSource | None:
    """What the answer to a conversation must be; None: anything.

    Args:
        conversation: which tools there are, and whether one must be called.
        form: how the answer to its prompt is written; of calls, if there are tools.
    """
    is_required = conversation.begun_call is not None
    if not is_required and not any(tool.is_strict for tool in conversation.schemas):
        return None
    rules = _required(conversation, form) if is_required else _free(conversation.schemas, form)
    arguments = [_arguments(tool, is_required=is_required) for tool in conversation.schemas]
    text = json.dumps({"rules": "\n".join(rules), "arguments": arguments}, ensure_ascii=False, separators=(",", ":"))
    return GrammarSource("calls", text)


def _arguments(tool: ToolSchema, *, is_required: bool) -> dict[str, object]:
    """A tool that is not strict is held to what can be enforced of its schema, and only where a call is required."""
    schema = _NO_ARGUMENTS if tool.schema is None else tool.schema
    if not is_required and not tool.is_strict:
        schema = {}
    return {"schema": schema, "lenient": not tool.is_strict, "parameter": tool.parameter}


def _required(conversation: Conversation, form: AnswerForm) -> list[str]:
    """From the call that has begun to the end of the last one."""
    tools, name = conversation.schemas, conversation.begun_call
    is_headed = form.calls is CallForm.MISTRAL and not form.list_mark
    if name:  # the prompt goes as far as the arguments
        number = next(at for at, tool in enumerate(tools) if tool.name == name)
        first = f"arguments_{number}" if is_headed else f'ws arguments_{number} ws "}}"'
    else:
        first = "headed" if is_headed else "body"
    rules = [f"start: {first} {_behind(form, is_last=bool(name) or conversation.has_one_call)}"]
    return [*rules, *_call_rules(tools, form)]


def _behind(form: AnswerForm, *, is_last: bool) -> str:
    """What comes behind the first call: what closes it and, if it may not be the last, others."""
    if form.calls is CallForm.HERMES:
        return "" if is_last else 'ws "</tool_call>" (ws "<tool_call>" marked)*'
    if form.calls is CallForm.MISTRAL and form.list_mark:
        return 'ws "]"' if is_last else '(ws "," ws object)* ws "]"'
    if is_last:
        return ""
    return f"({_token('[TOOL_CALLS]', form)} headed)*" if form.calls is CallForm.MISTRAL else '(ws ";" ws object)*'


def _free(tools: Sequence[ToolSchema], form: AnswerForm) -> list[str]:
    """Text, in which whatever is marked as a call is one."""
    mark = _MARKS.get(form.calls, "")
    if form.calls in (CallForm.HERMES, CallForm.MISTRAL):
        thoughts = [f"<[{form.special_marks[one]}]>" for one in form.reasoning if one in form.special_marks]
        said = f"(TEXT ({' | '.join(thoughts)}))*" if thoughts else ""
        rules = [f"start: ({said} to_mark marked)* {said} TEXT", *_until("to_mark", mark, "TEXT", _ANY, form)]
    else:
        rules = [f"start: {_reasoning(form)} (ws bare ws | SAID{' | to_mark ws bare ws' if mark else ''})"]
        rules += [*_until("reasoned", form.reasoning[1], "TEXT", _ANY, form)] if form.reasons else []
        rules += [*_until("to_mark", mark, "SAID", _NOT_BARE, form)] if mark else []
        begun = f" & ~/\\s*{_escaped(form.reasoning[0])}{_ANY}/" if form.reasons and not form.reasoning_begun else ""
        rules += [f"SAID: /{_NOT_BARE}/{begun}", r'bare: object (ws ";" ws object)* | list']
    return [*rules, f"TEXT: /{_ANY}/", *_call_rules(tools, form)]


def _reasoning(form: AnswerForm) -> str:
    """Reasoning at an answer's beginning, if there may be any."""
    if not form.reasons:
        return ""
    return "reasoned" if form.reasoning_begun else f"(ws {_token(form.reasoning[0], form)} reasoned)?"


def _until(rule: str, mark: str, before: str, regex: str, form: AnswerForm) -> list[str]:
    """A text up to the first mark in it; ``before`` names the rule of ``regex``."""
    special = f" | {before} <[{form.special_marks[mark]}]>" if mark in form.special_marks else ""
    return [f"{rule}: {rule}_spelled{special}", f"{rule}_spelled[lazy]: /{regex}{_escaped(mark)}/"]


def _call_rules(tools: Sequence[ToolSchema], form: AnswerForm) -> list[str]:
    """Whole calls, and what is left of one whose name comes next."""
    bodies, headed = [], []
    token_id, arguments = _token("[CALL_ID]", form), _token("[ARGS]", form)
    for at, tool in enumerate(tools):
        named = json.dumps(f'{tool.name}"')
        bodies.append(f'{named} ws "," ws "\\"{form.arguments_key}\\"" ws ":" ws arguments_{at} ws "}}"')
        headed.append(f'"{tool.name}" ({token_id} /[A-Za-z0-9]+/)? {arguments} ws arguments_{at}')
    marked = {
        CallForm.HERMES: 'ws object ws "</tool_call>"',
        CallForm.MISTRAL: "ws list" if form.list_mark else "headed",
    }
    return [
        f"body: {' | '.join(bodies)}",
        r'object: "{" ws "\"name\"" ws ":" ws "\"" body',
        'list: "[" ws object (ws "," ws object)* ws "]"',
        f"headed: {' | '.join(headed)}",
        f"marked: {marked.get(form.calls, 'bare')}",
    ]


def _token(mark: str, form: AnswerForm) -> str:
    """A mark, as the reader sees it: a special token, or its characters."""
    spelled = json.dumps(mark)
    return f"(<[{form.special_marks[mark]}]> | {spelled})" if mark in form.special_marks else spelled


def _escaped(mark: str) -> str:
    return re.escape(mark).replace("/", r"\/")
