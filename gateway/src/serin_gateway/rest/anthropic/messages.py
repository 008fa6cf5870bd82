"""`POST /v1/messages` and `/v1/messages/count_tokens`: their shapes. Knows nothing about how answers are made."""

from collections.abc import Mapping
from typing import Any

import orjson

from serin_gateway.events import ChoiceEnded, Completed, Event, FinishReason, Started, TextChunk, Usage
from serin_gateway.pipeline import Request
from serin_gateway.receipt import Receipt
from serin_gateway.rest.answering import answer, read_body
from serin_gateway.rest.anthropic.asks import count_ask, messages_ask
from serin_gateway.rest.anthropic.schemas import CountTokensBody, MessagesBody
from serin_gateway.rest.client import Client
from serin_gateway.rest.headers import ignored_headers
from serin_gateway.rest.parameters import (
    NO_GRAMMAR,
    NO_REASONING,
    NO_TOOLS,
    Neutral,
    any_object,
    any_text,
    only,
    parse,
)

PROMPT: Mapping[str, Neutral] = {
    "cache_control": any_object("prompts are cached anyway"),
    "mcp_servers": only([], why=NO_TOOLS),
    "output_config": only({}, why=NO_GRAMMAR),
    "speed": only("standard", why="there is one speed"),
    "thinking": only({"type": "disabled"}, why=NO_REASONING),
    "tool_choice": only({"type": "auto"}, {"type": "none"}, why=NO_TOOLS),
    "tools": only([], why=NO_TOOLS),
    "user_profile_id": any_text("nothing here looks at it"),
    "workspace_id": any_text("a key belongs to one tenant already"),
}
MESSAGES: Mapping[str, Neutral] = {
    **PROMPT,
    "container": only(why="nothing is run here"),
    "diagnostics": only(why="caches are explained by `serin explain`"),
    "inference_geo": only(why="where a mesh runs is its operator's choice"),
    "service_tier": only("auto", "standard_only", why="there is one tier"),
}

_STOP_REASONS = {
    FinishReason.STOP: "end_turn",
    FinishReason.LENGTH: "max_tokens",
    FinishReason.TOOL_CALLS: "tool_use",
    FinishReason.CONTENT_FILTER: "refusal",
}
_DELTA = (
    b"event: content_block_delta\n"
    b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":%b}}\n\n'
)
"""The event of every piece of text, put together from prepared bytes."""


async def create_message(client: Client, request: Request) -> None:
    """Answer a conversation."""
    body, ignored = parse(MessagesBody, MESSAGES, await read_body(client, request), request.caller.unknown)
    await answer(client, request, messages_ask(body), MessageShape(), stream=bool(body.stream), ignored=ignored)


async def count_tokens(client: Client, request: Request) -> None:
    """Count the tokens of a conversation, without answering it."""
    body, ignored = parse(CountTokensBody, PROMPT, await read_body(client, request), request.caller.unknown)
    count = await request.count(count_ask(body))
    client.headers += ignored_headers(ignored)
    await request.settle()
    await client.respond(200, orjson.dumps({"input_tokens": count}))


class MessageShape:
    """A message of one text block, streamed or whole."""

    stream_end = b""

    def __init__(self) -> None:
        self._facts: dict[str, Any] = {}
        self._texts: list[str] = []
        self._has_block = False
        self._stop: dict[str, Any] = {"stop_reason": None, "stop_sequence": None}
        self._usage = Usage()

    def begin(self, receipt: Receipt) -> None:
        """The request is placed."""
        self._facts = {
            "id": f"msg_{receipt.request_id}",
            "type": "message",
            "role": "assistant",
            "model": receipt.model,
        }

    def chunk(self, event: Event) -> bytes:
        """One event as server-sent events."""
        if isinstance(event, TextChunk):
            return self._text(event.text)
        if isinstance(event, ChoiceEnded):
            self._stop = _stop(event)
            return _event(b"content_block_stop", {"index": 0}) if self._has_block else b""
        if isinstance(event, Started):
            usage = usage_body(Usage(prompt_tokens=len(event.prompt_token_ids)))
            message = self._facts | {"content": [], **self._stop, "usage": usage}
            return _event(b"message_start", {"message": message}) + _event(b"ping", {})
        return self._end(event)

    def add(self, event: Event) -> None:
        """Note what happened."""
        if isinstance(event, TextChunk):
            self._texts.append(event.text)
        elif isinstance(event, ChoiceEnded):
            self._stop = _stop(event)
        elif isinstance(event, Completed):
            self._usage = event.usage

    def whole(self) -> bytes:
        """The message."""
        text = "".join(self._texts)
        content = [{"type": "text", "text": text}] if text else []
        return orjson.dumps(self._facts | {"content": content, **self._stop, "usage": usage_body(self._usage)})

    def _text(self, text: str) -> bytes:
        if not text:
            return b""
        delta = _DELTA % orjson.dumps(text)
        if self._has_block:
            return delta
        self._has_block = True
        return _event(b"content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}}) + delta

    def _end(self, event: Completed) -> bytes:
        delta = {"delta": self._stop, "usage": usage_body(event.usage)}
        return _event(b"message_delta", delta) + _event(b"message_stop", {})


def usage_body(usage: Usage) -> dict[str, int]:
    """Usage as the Anthropic API writes it: what was read from a cache is no input."""
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
    }


def _stop(event: ChoiceEnded) -> dict[str, Any]:
    if event.finish_reason is FinishReason.STOP and event.stop_string is not None:
        return {"stop_reason": "stop_sequence", "stop_sequence": event.stop_string}
    return {"stop_reason": _STOP_REASONS[event.finish_reason], "stop_sequence": None}


def _event(name: bytes, body: Mapping[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name, orjson.dumps({"type": name.decode(), **body}))
