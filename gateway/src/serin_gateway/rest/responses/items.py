"""Items and the messages that templates know.

An assistant's reasoning, text and calls are one message to a template and several items to this API. Knows nothing
about how an item came here.
"""

import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from pydantic import TypeAdapter

from serin_gateway.ask import refuse
from serin_gateway.conversation import Message, ToolCall
from serin_gateway.rest.responses.schemas import (
    FunctionCallItem,
    FunctionCallOutputItem,
    InputText,
    Item,
    MessageItem,
    OutputText,
    ReasoningItem,
    ReasoningText,
)

BEFORE = "previous_response_id"
"""The place of what a conversation held before."""

_ITEMS: TypeAdapter[list[Item]] = TypeAdapter(list[Item])
_PLACE = re.compile(r"messages\[([0-9]+)\](?:\.(\w+)(?:\[([0-9]+)\])?)?(.*)")

_OWN = {"": "", "tool_calls": "", "tool_call_id": ".call_id"}
"""Members of a message that an item has by another name, or none."""

Placed = tuple[str, Item]
"""An item and where its caller wrote it."""


def new_id(kind: str) -> str:
    """An identifier of an item: ``msg``, ``fc``, ``fco`` or ``rs``, and 48 hex digits."""
    return f"{kind}_{secrets.token_hex(24)}"


def given_items(given: str | Sequence[Item]) -> list[Placed]:
    """The input as items, each with its place: a text is a user's message."""
    if isinstance(given, str):
        return [("input", MessageItem(role="user", content=given))]
    return [(f"input[{at}]", item) for at, item in enumerate(given)]


def stored_items(text: bytes) -> list[Item]:
    """Items as they were kept."""
    return _ITEMS.validate_json(text)


def kept_item(item: Item) -> dict[str, Any]:
    """An item as it is kept and listed: it has an identifier, and its content is a list."""
    if isinstance(item, MessageItem):
        content = _parts(item) if isinstance(item.content, str) else [_part(part) for part in item.content]
        return _body(item, "msg", {"type": "message", "role": item.role, "content": content})
    if isinstance(item, FunctionCallItem):
        called = {"call_id": item.call_id, "name": item.name, "arguments": item.arguments}
        return _body(item, "fc", {"type": "function_call", **called})
    if isinstance(item, FunctionCallOutputItem):
        output = item.output if isinstance(item.output, str) else [_part(part) for part in item.output]
        return _body(item, "fco", {"type": "function_call_output", "call_id": item.call_id, "output": output})
    content = [{"type": "reasoning_text", "text": one.text} for one in item.content or ()]
    summary = [{"type": "summary_text", "text": one.text} for one in item.summary or ()]
    return _body(item, "rs", {"type": "reasoning", "summary": summary, "content": content})


@dataclass(slots=True)
class Script:
    """The messages of a conversation, where each of them was written, and what items it is made of."""

    messages: list[Message] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    made_of: list[list[Placed]] = field(default_factory=list)

    def add(self, place: str, message: Message, made_of: Iterable[Placed] = ()) -> None:
        """One more message, and the items that it is made of."""
        self.messages.append(message)
        self.places.append(place)
        self.made_of.append(list(made_of))

    def named(self, name: str) -> str:
        """A place in the messages (``messages[1].content``) as its caller wrote it (``input[0].content``)."""
        found = _PLACE.fullmatch(name)
        if found is None:
            return "input" if name == "messages" else name
        at, member, index = int(found[1]), found[2] or "", int(found[3] or 0)
        inside = _places(self.made_of[at], member) if found[3] or member != "tool_calls" else iter(())
        place, own = next(islice(inside, index, None), (self.places[at], _OWN.get(member, f".{member}")))
        own = (own if found[3] else own.partition("[")[0]) + found[4]
        return place + own if place.startswith("input[") else place

    def items_as_in(self, messages: Sequence[Message], items: Iterable[Placed]) -> list[Item]:
        """The items with the texts that these messages have, which guards made of the script's own.

        What no message has, as no template can show it, was not looked at: it is left out.
        """
        found: dict[str, Item] = {}
        for message, before, made_of in zip(messages, self.messages, self.made_of, strict=True):
            texts, calls, thought = iter(message.texts), iter(message.tool_calls), message.reasoning or ""
            for place, item in made_of:
                if isinstance(item, ReasoningItem):
                    found[place] = item if message.reasoning == before.reasoning else _thinking(item, thought)
                    thought = ""
                elif isinstance(item, FunctionCallItem):
                    found[place] = item.model_copy(update={"arguments": next(calls).arguments_json})
                elif isinstance(item, FunctionCallOutputItem):
                    found[place] = item.model_copy(update={"output": _saying(item.output, texts)})
                else:
                    found[place] = item.model_copy(update={"content": _saying(item.content, texts)})
        return [found[place] if place in found else _thinking(item, "") for place, item in items]


def _places(made_of: Iterable[Placed], member: str) -> Iterator[tuple[str, str]]:
    """Where the parts of a message's member are, in order: the item's place, and what it is in there."""
    for place, item in made_of:
        if member == "tool_calls" and isinstance(item, FunctionCallItem):
            yield place, ""
        elif member == "reasoning_content" and isinstance(item, ReasoningItem):
            yield place, ".content" if item.content else ".summary"
        elif member == "content" and isinstance(item, MessageItem | FunctionCallOutputItem):
            own, content = (".content", item.content) if isinstance(item, MessageItem) else (".output", item.output)
            yield from (
                [(place, own)] if isinstance(content, str) else [(place, f"{own}[{at}]") for at in range(len(content))]
            )


def _saying(content: Any, texts: Iterator[str]) -> Any:
    """A content with other texts: as many as it has."""
    if isinstance(content, str):
        return next(texts)
    return [part.model_copy(update={"text": next(texts)}) for part in content]


def _thinking(item: Item, thought: str) -> Item:
    """Reasoning with another text; where several items were one thought, the first has it all."""
    content = [ReasoningText(type="reasoning_text", text=thought)] if thought else None
    return item.model_copy(update={"content": content, "summary": None})


def script_of(instructions: str | None, items: Iterable[Placed]) -> Script:
    """The messages of items, in order.

    Raises:
        MeshError: PARAMETER_INVALID, a call and what it gave do not go together.
    """
    script = Script()
    if instructions is not None:
        script.add("instructions", Message("system", (instructions,)))
    turn = _Turn()
    for place, item in _paired(items):
        said = isinstance(item, ReasoningItem | FunctionCallItem) or (
            isinstance(item, MessageItem) and item.role == "assistant"
        )
        if not (said and turn.goes_on_with(item)):
            turn.end(script)
            turn = _Turn()
        if isinstance(item, FunctionCallOutputItem):
            output = (item.output,) if isinstance(item.output, str) else [part.text for part in item.output]
            script.add(place, Message("tool", output, item.name, tool_call_id=item.call_id), [(place, item)])
        elif isinstance(item, MessageItem) and not said:
            script.add(place, Message(item.role, _texts(item)), [(place, item)])
        else:
            turn.add(place, item)
    turn.end(script)
    return script


class _Turn:
    """What an assistant said, while it is put together."""

    def __init__(self) -> None:
        self._place = ""
        self._thoughts: list[str] = []
        self._texts: list[str] = []
        self._calls: list[ToolCall] = []
        self._items: list[Placed] = []
        self._has_message = False

    def goes_on_with(self, item: Item) -> bool:
        """Whether an item is part of it: reasoning begins another turn, and so does text right behind text."""
        if isinstance(item, ReasoningItem):
            return not (self._has_message or self._calls)
        return not (isinstance(item, MessageItem) and self._has_message and not self._calls)

    def add(self, place: str, item: ReasoningItem | MessageItem | FunctionCallItem) -> None:
        """One more of its items."""
        if isinstance(item, ReasoningItem):
            self._thoughts += [one.text for one in item.content or item.summary or ()]
        elif isinstance(item, MessageItem):
            self._texts += _texts(item)
            self._has_message = True
        else:
            self._calls.append(ToolCall(item.call_id, item.name, item.arguments))
        self._items.append((place, item))
        self._place = place

    def end(self, script: Script) -> None:
        """It said no more. Reasoning that led to nothing is left out: no template can show it."""
        if self._has_message or self._calls:
            thought = "".join(self._thoughts) if self._thoughts else None
            message = Message("assistant", self._texts, tool_calls=self._calls, reasoning=thought)
            script.add(self._place, message, self._items)


def _paired(items: Iterable[Placed]) -> Iterator[Placed]:
    """The items, once each output has its call before it and each call its one output behind it.

    A call that broke off is left out: nobody could answer it, and its arguments are no JSON.
    """
    items = list(items)
    outputs = {item.call_id for _, item in items if isinstance(item, FunctionCallOutputItem)}
    waiting: dict[str, str] = {}
    answered: set[str] = set()
    for place, item in items:
        if isinstance(item, FunctionCallItem):
            if item.status == "incomplete" and item.call_id not in outputs:
                continue
            waiting[item.call_id] = place
        elif isinstance(item, FunctionCallOutputItem):
            if item.call_id not in waiting:
                has = "has its output already" if item.call_id in answered else "comes before its output"
                one = "function_call" if item.call_id in answered else "no function_call"
                raise refuse(f"{place}.call_id", f"{one} {item.call_id!r:.80} {has}")
            del waiting[item.call_id]
            answered.add(item.call_id)
        yield place, item
    for call_id, place in waiting.items():
        name = "input" if place == BEFORE else place
        raise refuse(name, f"no function_call_output answers function_call {call_id!r:.80}")


def _texts(item: MessageItem) -> Sequence[str]:
    return (item.content,) if isinstance(item.content, str) else [part.text for part in item.content]


def _parts(item: MessageItem) -> list[dict[str, Any]]:
    assert isinstance(item.content, str)
    if item.role == "assistant":
        return [{"type": "output_text", "text": item.content, "annotations": [], "logprobs": []}]
    return [{"type": "input_text", "text": item.content}]


def _part(part: InputText | OutputText) -> dict[str, Any]:
    if isinstance(part, InputText):
        return {"type": "input_text", "text": part.text}
    return {"type": "output_text", "text": part.text, "annotations": part.annotations or [], "logprobs": []}


def _body(item: Item, kind: str, members: dict[str, Any]) -> dict[str, Any]:
    return {"id": item.id or new_id(kind), **members, "status": item.status or "completed"}
