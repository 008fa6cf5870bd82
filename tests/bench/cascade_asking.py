"""Held-out questions asked of a running mesh, and whether what came back is right. Knows nothing about rules."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessage
from serin_worker.demo.corpus import held_out_items, training_dialogues
from serin_worker.demo.item import Item

AT_ONCE = 8
MAX_TOKENS = 96
"""Of one answer; the longest right one has 87."""
POOL = 2400
NUM_TUNE, NUM_TEST = 110, 110
"""Of a kind. Where a kind has fewer, which facts alone do, they are shared out."""
LEARNING_SEED = 20_261_126


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer.

    Attributes:
        kind: of the question; ``text``: what rules about prompts look at.
        logprobs: nats, of each token of the text; empty where nobody asked.
        route: how it came to its model, as the gateway says; empty: by name.
        seconds: until the whole answer was there.
    """

    kind: str
    text: str
    is_right: bool
    is_schema_kept: bool
    prompt_tokens: int
    completion_tokens: int
    logprobs: Sequence[float] = ()
    model: str = ""
    route: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Questions:
    """Three sets that share no question: ``test`` is looked at once, in the end.

    Attributes:
        learn: of the training side: what the classifier learns from.
        tune: held out: what thresholds are chosen on.
        test: held out: what is reported.
    """

    learn: Sequence[Item]
    tune: Sequence[Item]
    test: Sequence[Item] = field(default_factory=list)


def questions(num_learn: int, num_tune: int = NUM_TUNE, num_test: int = NUM_TEST) -> Questions:
    """The sets, of so many questions a kind; the same arguments give the same ones."""
    by_kind: dict[str, dict[str, Item]] = {}
    for item in held_out_items(POOL):
        by_kind.setdefault(item.kind, {}).setdefault(_key(item), item)
    tune: list[Item] = []
    test: list[Item] = []
    for known in by_kind.values():
        items = list(known.values())
        first = min(num_tune, len(items) // 2)
        tune += items[:first]
        test += items[first:][-num_test:]
    return Questions(list(_training_items(num_learn)), tune, test)


async def ask_all(client: AsyncOpenAI, model: str, items: Sequence[Item], *, logprobs: bool = False) -> list[Answer]:
    """Every question once, greedy, some at a time; in the questions' order."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(item: Item) -> Answer:
        async with places:
            return await _ask(client, model, item, logprobs)

    return list(await asyncio.gather(*map(one, items)))


async def _ask(client: AsyncOpenAI, model: str, item: Item, logprobs: bool) -> Answer:
    more: dict[str, Any] = {"tools": list(item.tools)} if item.tools else {}
    if logprobs:
        more["logprobs"] = True
    began_at = asyncio.get_running_loop().time()
    raw = await client.chat.completions.with_raw_response.create(
        model=model, messages=[_spoken(one) for one in item.messages], temperature=0, max_tokens=MAX_TOKENS, **more
    )
    whole = raw.parse()
    choice, usage = whole.choices[0], whole.usage
    assert usage is not None
    reported = choice.logprobs.content if choice.logprobs and choice.logprobs.content else []
    return Answer(
        item.kind,
        last_turn(item),
        _is_right(item, choice.message, choice.finish_reason),
        _keeps_schema(item, choice.message),
        usage.prompt_tokens,
        usage.completion_tokens,
        [one.logprob for one in reported],
        whole.model,
        raw.headers.get("serin-route", ""),
        asyncio.get_running_loop().time() - began_at,
    )


def last_turn(item: Item) -> str:
    """What the user said last and what came of it, as the gateway's rules see it."""
    asked_at = max(at for at, one in enumerate(item.messages) if one["role"] == "user")
    return "\n".join(str(one["content"]) for one in item.messages[asked_at:] if one.get("content"))


def _spoken(message: Any) -> Any:
    """A turn as the API wants it: calls have names of their own, and their arguments are text."""
    if message["role"] == "tool":
        return {**message, "tool_call_id": "call_1"}
    if not message.get("tool_calls"):
        return dict(message)
    calls = [
        {
            "id": "call_1",
            "type": "function",
            "function": {**one["function"], "arguments": json.dumps(one["function"]["arguments"])},
        }
        for one in message["tool_calls"]
    ]
    return {"role": "assistant", "tool_calls": calls}


def _is_right(item: Item, message: ChatCompletionMessage, finish_reason: str) -> bool:
    calls = message.tool_calls or []
    if not item.answer.startswith("<tool_call>"):
        return message.content == item.answer and not calls and finish_reason == "stop"
    wanted = json.loads(item.answer.removeprefix("<tool_call>").removesuffix("</tool_call>"))
    if len(calls) != 1 or calls[0].type != "function" or message.content:
        return False
    try:
        return (
            calls[0].function.name == wanted["name"] and json.loads(calls[0].function.arguments) == wanted["arguments"]
        )
    except ValueError:
        return False


def _keeps_schema(item: Item, message: ChatCompletionMessage) -> bool:
    from serin_gateway.cascades.obedience import fits

    schemas = {tool["function"]["name"]: json.dumps(tool["function"]["parameters"]) for tool in item.tools}
    return all(
        call.type == "function" and fits(schemas[call.function.name], call.function.arguments)
        for call in message.tool_calls or []
    )


def _training_items(count: int) -> Iterator[Item]:
    seen: set[str] = set()
    for dialogue in training_dialogues(LEARNING_SEED):
        for item in dialogue.items:
            if len(seen) == count:
                return
            if _key(item) not in seen:
                seen.add(_key(item))
                yield item


def _key(item: Item) -> str:
    return json.dumps([list(item.messages), item.answer])
