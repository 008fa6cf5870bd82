"""What a held answer decides: whether it is good enough to be given. Knows nothing about who made it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from serin_gateway.called import ToolCalled
from serin_gateway.cascades.cascade import EscalationRules, Rule
from serin_gateway.cascades.obedience import fits
from serin_gateway.conversation import Conversation
from serin_gateway.events import FinishReason
from serin_gateway.grammar import Grammar, GrammarKind
from serin_gateway.tools import Tool


@dataclass(slots=True)
class HeldChoice:
    """One choice of a held answer.

    Attributes:
        logprobs: of its tokens that count, nats; empty where nobody asked for them.
    """

    text: str = ""
    calls: Sequence[ToolCalled] = ()
    finish_reason: FinishReason = FinishReason.STOP
    logprobs: Sequence[float] = ()


def answer_rule(
    rules: EscalationRules, choices: Sequence[HeldChoice], grammar: Grammar | None, conversation: Conversation | None
) -> Rule | None:
    """The rule by which an answer is not good enough; None: none holds. One bad choice of several is enough.

    Args:
        rules: what is declared.
        choices: the whole answer.
        grammar: what each choice had to be; None: anything.
        conversation: what they answer, with its tools; None: a plain prompt.
    """
    for choice in choices:
        if rules.schema_fails and _disobeys(choice, grammar, conversation):
            return Rule.SCHEMA
        if choice.logprobs:
            mean = math.fsum(choice.logprobs) / len(choice.logprobs)
            if rules.mean_logprob_below is not None and mean < rules.mean_logprob_below:
                return Rule.MEAN_LOGPROB
            if rules.min_logprob_below is not None and min(choice.logprobs) < rules.min_logprob_below:
                return Rule.MIN_LOGPROB
    return None


def _disobeys(choice: HeldChoice, grammar: Grammar | None, conversation: Conversation | None) -> bool:
    if conversation is not None and conversation.shown_tools:
        tools = {tool.name: tool for tool in conversation.shown_tools}
        if any(not _takes(tools[call.name], call) for call in choice.calls):
            return True
        if conversation.tool_choice.begins_call and not choice.calls:
            return True
    if grammar is None or choice.calls:
        return False
    if choice.finish_reason is FinishReason.LENGTH:  # cut short: a constraint is only kept by a whole answer
        return True
    return grammar.kind is GrammarKind.JSON_SCHEMA and not fits(grammar.text, choice.text)


def _takes(tool: Tool, call: ToolCalled) -> bool:
    return not tool.parameters_json or fits(tool.parameters_json, call.arguments_json)
