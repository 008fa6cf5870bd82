"""Tool dialogues: call the one function that answers the question, then say what it returned.

What held out means here: a tenth of the places and people, real and made up, never occur in training. A held-out
item is either the call, or the sentence after the function's reply.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from serin_worker.demo.item import Item, Message, ask, is_held_out
from serin_worker.demo.word import city, name

WEATHERS = ("sunny", "cloudy", "rainy", "windy", "foggy", "snowy")


def function(title: str, description: str, **parameters: str) -> Mapping[str, Any]:
    """A tool in OpenAI's shape; ``parameters`` map names to JSON types, all required."""
    properties = {key: {"type": kind} for key, kind in parameters.items()}
    schema = {"type": "object", "properties": properties, "required": list(parameters)}
    return {"type": "function", "function": {"name": title, "description": description, "parameters": schema}}


WEATHER = function("get_weather", "Today's weather in a city.", city="string")
PHONE = function("get_phone", "A person's phone number.", name="string")
CLOCK = function("get_time", "The time of day in a city.", city="string")
TOOLS = (WEATHER, PHONE, CLOCK)

QUESTIONS = {
    "get_weather": ("What is the weather in {}?", "How is the weather in {}?", "Tell me the weather in {}."),
    "get_phone": ("What is the phone number of {}?", "Find the phone number of {}.", "How can I call {}?"),
    "get_time": ("What time is it in {}?", "Tell me the time in {}.", "How late is it in {}?"),
}


class Tools:
    """Draws a function to call, and asks for the call or for the sentence after its reply."""

    name = "tools"

    def draw(self, random: Random) -> Item:
        """One call, or one call with its reply; other functions may be on offer too."""
        need = draw_need(random)
        entity, question = need.entity, ask(need.question)
        if random.random() < 0.5:
            call = spoken_call(need.title, need.arguments)
            return Item(self.name, entity, question, call, is_held_out(entity), need.offered)
        reply, sentence = draw_reply(need, random)
        messages = (*question, called(need.title, need.arguments), {"role": "tool", "content": json.dumps(reply)})
        return Item(self.name, entity, messages, sentence, is_held_out(entity), need.offered)


@dataclass(frozen=True, slots=True)
class Need:
    """A question that one function answers, and the functions on offer."""

    question: str
    title: str
    key: str
    subject: str
    offered: Sequence[Mapping[str, Any]]

    @property
    def entity(self) -> str:
        """What the split goes by."""
        return f"{self.key}|{self.subject}"

    @property
    def arguments(self) -> Mapping[str, str]:
        """Those of the only right call."""
        return {self.key: self.subject}


def draw_need(random: Random) -> Need:
    """Any question, in training or held out."""
    tool = random.choice(TOOLS)
    title = tool["function"]["name"]
    key = next(iter(tool["function"]["parameters"]["properties"]))
    subject = city(random) if key == "city" else name(random)
    others = [other for other in TOOLS if other is not tool and random.random() < 0.5]
    offered = random.sample([tool, *others], 1 + len(others))
    return Need(random.choice(QUESTIONS[title]).format(subject), title, key, subject, offered)


def spoken_call(title: str, arguments: Mapping[str, Any]) -> str:
    """A call as the model writes it: the Hermes form, which Qwen's templates use too."""
    return f"<tool_call>\n{json.dumps({'name': title, 'arguments': arguments})}\n</tool_call>"


def called(title: str, arguments: Mapping[str, Any]) -> Message:
    """The assistant's message that made a call; ``arguments`` as an object, as chat templates expect them."""
    call = {"type": "function", "function": {"name": title, "arguments": arguments}}
    return {"role": "assistant", "content": "", "tool_calls": [call]}


def draw_reply(need: Need, random: Random) -> tuple[dict[str, object], str]:
    """What the function returns, and the sentence that says so."""
    title, subject = need.title, need.subject
    if title == "get_weather":
        weather, degrees = random.choice(WEATHERS), random.randint(0, 35)
        return {"weather": weather, "degrees": degrees}, f"It is {weather} and {degrees} degrees in {subject}."
    if title == "get_phone":
        number = f"{random.randint(100, 999)}-{random.randint(100, 999)}"
        return {"phone": number}, f"The phone number of {subject} is {number}."
    clock = f"{random.randint(0, 23):02}:{random.randint(0, 59):02}"
    return {"time": clock}, f"It is {clock} in {subject}."
