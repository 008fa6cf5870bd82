"""A chat template and what was learned of it: the shapes in which it takes turns.

Knows nothing about how it is rendered, nor how any of it was found out.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from serin_tokenizer_svc.answer_form import AnswerForm, CallForm
from serin_tokenizer_svc.call_ids import short_call_id
from serin_tokenizer_svc.control_tokens import ControlTokens
from serin_tokenizer_svc.conversation import Turn
from serin_tokenizer_svc.render_pool import TemplateFacts


@dataclass(frozen=True)
class KnownTemplate:
    """A template and what was learned of it.

    Attributes:
        facts: variables it reads, literals in it.
        takes_text: it shows content that is a string.
        takes_parts: it shows content that is a list of parts.
        control: tokens that only the template may write.
        special: those of them that not even an assistant's turn may contain.
        knows_developer: it has words of its own for developers' turns; elsewhere they are the system's.
        takes_arguments: it shows a call's arguments that are an object; else they are given as JSON text.
        form: how it taught its model to write calls and reasoning.
    """

    facts: TemplateFacts
    takes_text: bool
    takes_parts: bool
    control: ControlTokens
    special: ControlTokens
    knows_developer: bool
    takes_arguments: bool
    form: AnswerForm

    def messages(self, turns: Sequence[Turn]) -> list[dict[str, Any]]:
        """Turns as the template reads them, its control tokens marked wherever a caller wrote them.

        A tool's turn gets the name of the tool that was called: some templates fail without.
        """
        names = {call["id"]: call["function"]["name"] for turn in turns for call in turn.tool_calls}
        return [_message(turn, turn.name or names.get(turn.tool_call_id), self) for turn in turns]


def _message(turn: Turn, name: str | None, template: KnownTemplate) -> dict[str, Any]:
    """A turn as templates read it; what the model itself wrote may contain its own non-special tokens."""
    mark = template.special.mark if turn.role == "assistant" else template.control.mark
    is_system = turn.role == "developer" and not template.knows_developer
    message: dict[str, Any] = {"role": "system" if is_system else turn.role}
    if turn.parts:
        message["content"] = mark(_content(turn.parts, template))
    if name is not None:
        message["name"] = mark(name)
    known_id: Callable[[str], str] = short_call_id if template.form.calls is CallForm.MISTRAL else str
    if turn.tool_calls:
        # The marks around calls and reasoning are the template's to write, whoever the turn is of.
        calls = [_call(call, known_id, template) for call in turn.tool_calls]
        message["tool_calls"] = template.control.mark(calls)
    if turn.tool_call_id is not None:
        message["tool_call_id"] = mark(known_id(turn.tool_call_id))
    if turn.reasoning is not None:
        message["reasoning_content"] = template.control.mark(turn.reasoning)
    return message


def _call(call: Mapping[str, Any], known_id: Callable[[str], str], template: KnownTemplate) -> dict[str, Any]:
    function = call["function"]
    if not template.takes_arguments and not isinstance(function["arguments"], str):
        function = {**function, "arguments": json.dumps(function["arguments"], ensure_ascii=False)}
    return {**call, "id": known_id(call["id"]), "function": function}


def _content(parts: Sequence[str], template: KnownTemplate) -> Any:
    if len(parts) == 1 and (template.takes_text or not template.takes_parts):
        return parts[0]
    return as_parts(parts) if template.takes_parts else "\n".join(parts)


def as_parts(texts: Sequence[str]) -> list[dict[str, str]]:
    """Content as a list of parts."""
    return [{"type": "text", "text": text} for text in texts]
