"""`POST /v1/messages` and `/v1/messages/count_tokens`: their shapes. Knows nothing about how answers are made."""

from collections.abc import Mapping
from typing import Any

import orjson

from serin_gateway.called import CallGatherer, ToolCalled
from serin_gateway.events import (
    CallEvent,
    ChoiceEnded,
    Completed,
    Event,
    FinishReason,
    ReasoningChunk,
    Started,
    TextChunk,
    ToolCallBegun,
    ToolCallEnded,
    ToolCallGrew,
    Usage,
)
from serin_gateway.pipeline import Request
from serin_gateway.receipt import Receipt
from serin_gateway.rest.answering import answer, read_body
from serin_gateway.rest.anthropic.asks import count_ask, ignored_members, messages_ask
from serin_gateway.rest.anthropic.schemas import CountTokensBody, MessagesBody
from serin_gateway.rest.client import Client
from serin_gateway.rest.headers import ignored_headers
from serin_gateway.rest.parameters import (
    NO_GRAMMAR,
    Neutral,
    any_object,
    any_text,
    only,
    parse,
)

PROMPT: Mapping[str, Neutral] = {
    "cache_control": any_object("prompts are cached anyway"),
    "mcp_servers": only([], why="tools run at their callers"),
    "output_config": only({}, why=NO_GRAMMAR),
    "speed": only("standard", why="there is one speed"),
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
    b'data: {"type":"content_block_delta","index":%d,"delta":{"type":"text_delta","text":%b}}\n\n'
)
"""The event of every piece of text, put together from prepared bytes."""
_INPUT_DELTA = (
    b"event: content_block_delta\n"
    b'data: {"type":"content_block_delta","index":%d,"delta":{"type":"input_json_delta","partial_json":%b}}\n\n'
)
"""That of every piece of a tool's input."""


async def create_message(client: Client, request: Request) -> None:
    """Answer a conversation."""
    body, ignored = parse(MessagesBody, MESSAGES, await read_body(client, request), request.caller.unknown)
    ignored += ignored_members(body)
    await answer(client, request, messages_ask(body), MessageShape(), stream=bool(body.stream), ignored=ignored)


async def count_tokens(client: Client, request: Request) -> None:
    """Count the tokens of a conversation, without answering it."""
    body, ignored = parse(CountTokensBody, PROMPT, await read_body(client, request), request.caller.unknown)
    count = await request.count(count_ask(body))
    client.headers += ignored_headers([*ignored, *ignored_members(body)])
    await request.settle()
    await client.respond(200, orjson.dumps({"input_tokens": count}))


class MessageShape:
    """A message of blocks (thinking, text, tools that are used), streamed or whole."""

    stream_end = b""

    def __init__(self) -> None:
        self._facts: dict[str, Any] = {}
        self._blocks: list[dict[str, Any]] = []
        self._gatherer = CallGatherer()
        self._open = ""
        self._num_blocks = 0
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
            if not event.text:
                return b""
            return self._block({"type": "text", "text": ""}) + _DELTA % (self._index, orjson.dumps(event.text))
        if isinstance(event, ReasoningChunk):
            begun = self._block({"type": "thinking", "thinking": "", "signature": ""})
            return begun + self._delta({"type": "thinking_delta", "thinking": event.text})
        if isinstance(event, ToolCallGrew):
            return _INPUT_DELTA % (self._index, orjson.dumps(event.arguments_json))
        if isinstance(event, CallEvent):
            return self._close() if isinstance(event, ToolCallEnded) else self._begin_use(event)
        if isinstance(event, ChoiceEnded):
            self._stop = _stop(event)
            return self._close()
        if isinstance(event, Started):
            usage = usage_body(Usage(prompt_tokens=len(event.prompt_token_ids)))
            message = self._facts | {"content": [], **self._stop, "usage": usage}
            return _event(b"message_start", {"message": message}) + _event(b"ping", {})
        return self._end(event)

    def add(self, event: Event) -> None:
        """Note what happened."""
        if isinstance(event, TextChunk):
            self._grow("text", event.text)
        elif isinstance(event, ReasoningChunk):
            self._grow("thinking", event.text)
        elif isinstance(event, CallEvent):
            if (called := self._gatherer.take(event)) is not None:
                self._blocks.append(_use(called))
        elif isinstance(event, ChoiceEnded):
            self._stop = _stop(event)
        elif isinstance(event, Completed):
            self._usage = event.usage

    def whole(self) -> bytes:
        """The message."""
        body = {"content": self._blocks, **self._stop, "usage": usage_body(self._usage)}
        return orjson.dumps(self._facts | body)

    def _grow(self, kind: str, text: str) -> None:
        if not text:
            return
        if not self._blocks or self._blocks[-1]["type"] != kind:
            signed = {"signature": ""} if kind == "thinking" else {}
            self._blocks.append({"type": kind, kind: ""} | signed)
        self._blocks[-1][kind] += text

    @property
    def _index(self) -> int:
        return self._num_blocks - 1

    def _block(self, block: Mapping[str, Any]) -> bytes:
        """Have a block of this kind open."""
        if self._open == block["type"]:
            return b""
        closed = self._close()
        self._open = block["type"]
        self._num_blocks += 1
        return closed + _event(b"content_block_start", {"index": self._index, "content_block": block})

    def _begin_use(self, event: ToolCallBegun) -> bytes:
        return self._block(_use(ToolCalled(event.call_id, event.name, "{}")))

    def _delta(self, delta: Mapping[str, Any]) -> bytes:
        return _event(b"content_block_delta", {"index": self._index, "delta": delta})

    def _close(self) -> bytes:
        if not self._open:
            return b""
        self._open = ""
        return _event(b"content_block_stop", {"index": self._index})

    def _end(self, event: Completed) -> bytes:
        delta = {"delta": self._stop, "usage": usage_body(event.usage)}
        return _event(b"message_delta", delta) + _event(b"message_stop", {})


def _use(called: ToolCalled) -> dict[str, Any]:
    """A block of a tool that is used; the arguments are JSON already, and stay as the model wrote them."""
    return {
        "type": "tool_use",
        "id": f"toolu_{called.call_id}",
        "name": called.name,
        "input": orjson.Fragment(called.arguments_json.encode()),
    }


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
