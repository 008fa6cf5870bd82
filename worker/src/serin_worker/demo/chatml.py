"""Dialogues as token ids, and how much each matters to training.

The fast twin of the chat template: same ids, without a template engine, plus the weights. Knows nothing about tensors.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from serin_worker.demo.corpus import Dialogue
from serin_worker.demo.item import Item, Message
from serin_worker.demo.tokenizer import MARKUP_TOKENS, TOKEN_IDS, TURN_END, TURN_START

MARKUP = re.compile("(" + "|".join(re.escape(text) for text in MARKUP_TOKENS) + ")")


def encode_dialogue(dialogue: Dialogue, max_length: int) -> tuple[list[int], list[float], int]:
    """Ids of a conversation, how much each is to be learned, and the number of questions taken.

    Ids of an answer (its end of turn included) share the square root of their number as weight, so that long answers
    do not drown short ones; all other ids weigh nothing. The first question that would pass ``max_length`` ids and
    all after it are left out; if that is the first of all, the system turn is too.
    """
    tools = list({tool["function"]["name"]: tool for item in dialogue.items for tool in item.tools}.values())
    ids = _system(dialogue.system, tools)
    weights = [0.0] * len(ids)
    num_taken = 0
    for item in dialogue.items:
        question = [token for message in item.messages for token in _turn(message)] + _opening("assistant")
        answer = [*_ids(item.answer), TOKEN_IDS[TURN_END]]
        if len(ids) + len(question) + len(answer) + 1 > max_length:
            break
        ids += [*question, *answer, *b"\n"]
        weights += [0.0] * len(question) + [len(answer) ** -0.5] * len(answer) + [0.0]
        num_taken += 1
    return (ids, weights, num_taken) if num_taken else ([], [], 0)


def encode_question(item: Item) -> list[int]:
    """Ids of a question alone, up to where the answer begins."""
    turns = [token for message in item.messages for token in _turn(message)]
    return _system("", item.tools) + turns + _opening("assistant")


def _system(text: str, tools: Sequence[Mapping[str, Any]]) -> list[int]:
    signatures = []
    for tool in tools:
        function = tool["function"]
        signatures.append(f"{function['name']}({', '.join(function['parameters']['properties'])})")
    if signatures:
        text += ("\n" if text else "") + "Tools: " + ", ".join(signatures)
    return _closed("system", text) if text else []


def _turn(message: Message) -> list[int]:
    if message["role"] == "tool":
        return _closed("user", f"<tool_response>\n{message['content']}\n</tool_response>")
    calls = [call["function"] for call in message.get("tool_calls", ())]
    spoken = [
        f'<tool_call>\n{{"name": "{call["name"]}", "arguments": {json.dumps(call["arguments"])}}}\n</tool_call>'
        for call in calls
    ]
    return _closed(message["role"], "\n".join([message["content"], *spoken] if message["content"] else spoken or [""]))


def _opening(role: str) -> list[int]:
    return [TOKEN_IDS[TURN_START], *f"{role}\n".encode()]


def _closed(role: str, text: str) -> list[int]:
    return [*_opening(role), *_ids(text), TOKEN_IDS[TURN_END], *b"\n"]


def _ids(text: str) -> list[int]:
    ids: list[int] = []
    for piece in MARKUP.split(text):
        ids += [TOKEN_IDS[piece]] if piece in TOKEN_IDS else piece.encode()
    return ids
