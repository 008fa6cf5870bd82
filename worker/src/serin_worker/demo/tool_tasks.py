"""Tasks for a tool loop: ask, have the function called, give its reply, hear the sentence that says it.

All are about places and people that training never saw; the replies are made up, so no model can know them. Knows
nothing about how a model is asked: whoever asks brings two steps.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from serin_worker.demo.item import is_held_out
from serin_worker.demo.tools import draw_need, draw_reply

TASKS_SEED = 2**31 - 2


@dataclass(frozen=True, slots=True)
class ToolTask:
    """One task, its only right call and its only right sentence.

    Attributes:
        question: what the user asks.
        tools: functions on offer, in OpenAI's shape.
        name, arguments: the call.
        reply: what the function gives, as JSON text.
        sentence: the answer once the reply is there.
    """

    question: str
    tools: Sequence[Mapping[str, Any]]
    name: str
    arguments: Mapping[str, str]
    reply: str
    sentence: str

    def is_call(self, name: str, arguments_json: str) -> bool:
        """Whether this is the right call."""
        try:
            return name == self.name and json.loads(arguments_json) == self.arguments
        except ValueError:
            return False


def held_out_tasks(num_tasks: int, seed: int = TASKS_SEED) -> list[ToolTask]:
    """Different held-out tasks; the list is fixed by its arguments."""
    random = Random(seed)
    found: dict[str, ToolTask] = {}
    while len(found) < num_tasks:
        need = draw_need(random)
        reply, sentence = draw_reply(need, random)
        if is_held_out(need.entity):
            task = ToolTask(need.question, need.offered, need.title, need.arguments, json.dumps(reply), sentence)
            found.setdefault(need.question, task)
    return list(found.values())
