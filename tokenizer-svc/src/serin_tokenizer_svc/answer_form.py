"""How a chat template taught its model to write calls of tools and reasoning, as the template's own words tell.

A family is known by the marks that its templates write; nothing is executed here. Knows nothing about rendering,
encoding or gRPC.
"""

import enum
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""How much a caller may ask a model to reason."""

REASONING_MARKS = (("<think>", "</think>"), ("[THINK]", "[/THINK]"))
"""Marks around reasoning: of Qwen 3, QwQ, DeepSeek R1 and what was made from them; of Magistral."""

_OTHER_CALLS = ("<function=", "<arg_key>")
"""Marks of call forms inside `<tool_call>` that are no JSON (Qwen 3 Coder, GLM 4.5)."""


class CallForm(enum.Enum):
    """Form of calls; each but NONE has a reader in the gateway."""

    NONE = "none"
    HERMES = "hermes"
    LLAMA = "llama"
    MISTRAL = "mistral"
    GENERIC = "generic"


_CALL_MARKS: Mapping[CallForm, Sequence[str]] = {
    CallForm.HERMES: ("<tool_call>", "</tool_call>"),
    CallForm.LLAMA: ("<|python_tag|>",),
    CallForm.MISTRAL: ("[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"),
}


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """How answers are written.

    Attributes:
        calls: form of calls.
        reasoning: marks before and behind reasoning; empty texts: there is none.
        switch: the template's variable that says how much to reason; empty: it has none.
        special_marks: ids of the marks that are special tokens.
        reasoning_close_ids: the mark behind reasoning as ids.
        reasoning_begun: the prompt ends inside reasoning.
        beginning: text at the prompt's end that belongs to the answer.
        list_mark: what begins a list of calls, where the family (Mistral's) writes them as one.
    """

    calls: CallForm = CallForm.NONE
    reasoning: tuple[str, str] = ("", "")
    switch: str = ""
    special_marks: Mapping[str, int] = field(default_factory=dict)
    reasoning_close_ids: tuple[int, ...] = ()
    reasoning_begun: bool = False
    beginning: str = ""
    list_mark: str = ""

    @property
    def marking_ids(self) -> tuple[int, ...]:
        """Special ids among the marks."""
        return tuple(self.special_marks.values())

    @property
    def arguments_key(self) -> str:
        """The member of a call's JSON that has its arguments."""
        return "parameters" if self.calls is CallForm.LLAMA else "arguments"

    @property
    def reasons(self) -> bool:
        """Whether answers may begin with reasoning."""
        return bool(self.reasoning[0])

    def begun_call(self, name: str) -> str:
        """The beginning of a call: of one tool, or of any where the name is empty.

        It ends where the model goes on with a token of its own: before the space in front of the arguments.
        """
        quoted = json.dumps(name, ensure_ascii=False)
        if self.calls is CallForm.MISTRAL and not self.list_mark:
            return f"[TOOL_CALLS]{name}[ARGS]" if name else "[TOOL_CALLS]"
        call = f'{{"name": {quoted}, "{self.arguments_key}":' if name else '{"name": "'
        return {CallForm.HERMES: "<tool_call>\n", CallForm.MISTRAL: self.list_mark}.get(self.calls, "") + call

    def for_prompt(self, text: str, last_turn: str | None) -> "AnswerForm":
        """The form of the answer to a rendered prompt; ``last_turn``: what the answer goes on from, if it does."""
        if not self.reasons:
            return self
        mark_open, mark_close = self.reasoning
        if last_turn is None:
            begun = text.rstrip().endswith(mark_open)
        else:
            begun = last_turn.rfind(mark_open) > last_turn.rfind(mark_close)
        return replace(self, reasoning_begun=begun)

    def switched(self, effort: str) -> dict[str, object] | None:
        """The template's variables for an effort; None: it cannot be told.

        A template that only knows on and off is on for every effort but "none".
        """
        if not effort:
            return {}
        if self.switch == "reasoning_effort":
            return {self.switch: effort}
        if self.switch:
            return {self.switch: effort != "none"}
        # Without a switch, what is asked for must be what happens anyway.
        return {} if effort == ("medium" if self.reasons else "none") else None


def find_form(variables: Collection[str], written: str, added_tokens: Mapping[str, tuple[int, bool]]) -> AnswerForm:
    """The form that a template teaches.

    Args:
        variables: names it reads.
        written: its literal texts.
        added_tokens: id and special flag of the vocabulary's added tokens, by their text.
    """
    reasoning = next((marks for marks in REASONING_MARKS if marks[1] in written), ("", ""))
    switches = (name for name in ("reasoning_effort", "enable_thinking", "thinking") if name in variables)
    calls = _calls(variables, written, added_tokens)
    marks = [mark for mark in (*reasoning, *_CALL_MARKS.get(calls, ())) if mark in added_tokens]
    list_mark = ""
    if calls is CallForm.MISTRAL and "[ARGS]" not in written:
        list_mark = "[TOOL_CALLS] [" if "[TOOL_CALLS] [" in written else "[TOOL_CALLS]["
    return AnswerForm(
        calls=calls,
        reasoning=reasoning,
        switch=next(switches, ""),
        special_marks={mark: added_tokens[mark][0] for mark in marks if added_tokens[mark][1]},
        list_mark=list_mark,
    )


def _calls(variables: Collection[str], written: str, added_tokens: Collection[str]) -> CallForm:
    if "tools" not in variables:
        return CallForm.NONE
    if "<tool_call>" in written and not any(mark in written for mark in _OTHER_CALLS):
        return CallForm.HERMES
    if "[TOOL_CALLS]" in written:
        return CallForm.MISTRAL
    if "<|python_tag|>" in written or ("<|python_tag|>" in added_tokens and '"parameters"' in written):
        return CallForm.LLAMA
    return CallForm.GENERIC
