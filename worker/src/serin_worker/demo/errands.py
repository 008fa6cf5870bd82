"""Errands: two questions at once, so two calls in one answer, then one answer from both replies.

No committed model was taught these: a recipe asks for them by name. What held out means here: either of the two places
or people never occurs in training.
"""

import json
from collections.abc import Mapping
from random import Random
from typing import Any

from serin_worker.demo.item import Item, Message, ask, is_held_out
from serin_worker.demo.tools import Need, draw_need, draw_reply, spoken_call


class Errands:
    """Draws two different needs, and asks for both calls or for the sentences after both replies."""

    name = "errands"

    def draw(self, random: Random) -> Item:
        """Both calls, or both calls with their replies."""
        first, second = draw_need(random), draw_need(random)
        while second.entity == first.entity:
            second = draw_need(random)
        needs = (first, second)
        offered = {tool["function"]["name"]: tool for need in needs for tool in need.offered}
        question = ask(f"{first.question[:-1]}, and {second.question[0].lower()}{second.question[1:]}")
        held_out = any(is_held_out(need.entity) for need in needs)
        entity = "; ".join(need.entity for need in needs)
        if random.random() < 0.5:
            calls = "\n".join(spoken_call(need.title, need.arguments) for need in needs)
            return Item(self.name, entity, question, calls, held_out, list(offered.values()))
        replies, sentences = zip(*(draw_reply(need, random) for need in needs), strict=True)
        results = [{"role": "tool", "content": json.dumps(reply)} for reply in replies]
        messages = (*question, _called(*needs), *results)
        return Item(self.name, entity, messages, " ".join(sentences), held_out, list(offered.values()))


def _called(*needs: Need) -> Message:
    """The assistant's message that made all calls."""
    calls: list[Mapping[str, Any]] = [
        {"type": "function", "function": {"name": need.title, "arguments": need.arguments}} for need in needs
    ]
    return {"role": "assistant", "content": "", "tool_calls": calls}
