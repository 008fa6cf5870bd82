"""`POST /v1/chat/completions`: its shape. Knows nothing about how answers are made."""

import time
from collections.abc import Sequence
from typing import Any

import orjson

from serin_gateway.ask import Ask
from serin_gateway.called import CallGatherer, ToolCalled
from serin_gateway.events import (
    CallEvent,
    ChoiceEnded,
    Completed,
    Event,
    ReasoningChunk,
    Started,
    TextChunk,
    TextLogprob,
    ToolCallBegun,
    ToolCallGrew,
    Usage,
)
from serin_gateway.pipeline import Request
from serin_gateway.receipt import Receipt
from serin_gateway.rest.answering import answer, read_body
from serin_gateway.rest.asks import chat_ask
from serin_gateway.rest.client import Client
from serin_gateway.rest.parameters import CHAT, parse
from serin_gateway.rest.schemas import ChatBody
from serin_gateway.rest.shape import OPENAI_STREAM_END, usage_body


async def complete_chat(client: Client, request: Request) -> None:
    """Answer one chat completion."""
    body, ignored = parse(ChatBody, CHAT, await read_body(client, request), request.caller.unknown)
    ask = chat_ask(body)
    include_usage = bool(body.stream_options and body.stream_options.include_usage)
    await answer(client, request, ask, ChatShape(ask, include_usage), stream=bool(body.stream), ignored=ignored)


class ChatShape:
    """A chat completion, streamed (`chat.completion.chunk`) or whole."""

    stream_end = OPENAI_STREAM_END

    def __init__(self, ask: Ask, include_usage: bool) -> None:
        self._ask = ask
        self._include_usage = include_usage
        self._choices = [_Choice(index) for index in range(ask.choice_count)]
        self._prompt_token_ids: Sequence[int] = ()
        self._usage = Usage()
        self._facts: dict[str, Any] = {}
        self._head = self._tail = b""

    def begin(self, receipt: Receipt) -> None:
        """The request is placed."""
        self._facts = {
            "id": f"chatcmpl-{receipt.request_id}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": receipt.model,
            "system_fingerprint": receipt.lane,
        }
        self._head = b"data: " + orjson.dumps(self._facts | {"object": "chat.completion.chunk"})[:-1] + b',"choices":['
        self._tail = b'],"usage":null}\n\n' if self._include_usage else b"]}\n\n"

    def chunk(self, event: Event) -> bytes:
        """One event as server-sent events. The usual one, text alone, is put together from prepared bytes."""
        if isinstance(event, TextChunk):
            if event.logprobs or self._ask.want_token_ids:
                return self._rich_chunk(event)
            if not event.text:
                return b""
            return b'%b{"index":%d,"delta":{"content":%b},"logprobs":null,"finish_reason":null}%b' % (
                self._head,
                event.choice_index,
                orjson.dumps(event.text),
                self._tail,
            )
        if isinstance(event, ChoiceEnded):
            last = {"index": event.choice_index, "delta": {}, "logprobs": None, "finish_reason": event.finish_reason}
            return self._head + orjson.dumps(last) + self._tail
        if isinstance(event, Started):
            return b"".join(self._first_chunk(event, at) for at in range(self._ask.sampling.choice_count))
        if isinstance(event, ReasoningChunk):
            return self._delta(event.choice_index, {"reasoning_content": event.text})
        if isinstance(event, CallEvent):
            return self._call_chunk(event)
        return self._usage_chunk(event)

    def add(self, event: Event) -> None:
        """Note what happened."""
        if isinstance(event, TextChunk | ReasoningChunk | CallEvent):
            self._choices[event.choice_index].add(event)
        elif isinstance(event, ChoiceEnded):
            self._choices[event.choice_index].finish_reason = event.finish_reason
        elif isinstance(event, Started):
            self._prompt_token_ids = event.prompt_token_ids
        elif isinstance(event, Completed):
            self._usage = event.usage

    def whole(self) -> bytes:
        """The `chat.completion` object."""
        wants_ids = self._ask.want_token_ids
        has_logprobs = self._ask.sampling.top_logprobs is not None
        body = self._facts | {"choices": [choice.body(has_logprobs, wants_ids) for choice in self._choices]}
        if wants_ids:
            body["prompt_token_ids"] = list(self._prompt_token_ids)
        return orjson.dumps(body | {"usage": usage_body(self._usage)})

    def _first_chunk(self, event: Started, at: int) -> bytes:
        delta = {"role": "assistant", "content": "", "refusal": None}
        first = {"index": event.first_choice_index + at, "delta": delta, "logprobs": None, "finish_reason": None}
        ids = b""
        if self._ask.want_token_ids:
            ids = b',"prompt_token_ids":' + orjson.dumps(list(event.prompt_token_ids))
        return self._head + orjson.dumps(first) + b"]" + ids + self._tail[1:]

    def _call_chunk(self, event: CallEvent) -> bytes:
        """A call as clients put it together: who is called first, then the arguments, piece by piece."""
        if isinstance(event, ToolCallGrew):
            return (
                b'%b{"index":%d,"delta":{"tool_calls":[{"index":%d,"function":{"arguments":%b}}]},"logprobs":null,'
                b'"finish_reason":null}%b'
                % (
                    self._head,
                    event.choice_index,
                    event.call_index,
                    orjson.dumps(event.arguments_json),
                    self._tail,
                )
            )
        if not isinstance(event, ToolCallBegun):
            return b""
        begun = {"index": event.call_index} | call_body(ToolCalled(event.call_id, event.name, ""))
        return self._delta(event.choice_index, {"tool_calls": [begun]})

    def _delta(self, choice_index: int, delta: dict[str, Any]) -> bytes:
        choice = {"index": choice_index, "delta": delta, "logprobs": None, "finish_reason": None}
        return self._head + orjson.dumps(choice) + self._tail

    def _rich_chunk(self, event: TextChunk) -> bytes:
        logprobs = logprobs_body(event.logprobs) if self._ask.sampling.top_logprobs is not None else None
        choice = {
            "index": event.choice_index,
            "delta": {"content": event.text},
            "logprobs": logprobs,
            "finish_reason": None,
        }
        if self._ask.want_token_ids:
            choice["token_ids"] = event.token_ids
        return self._head + orjson.dumps(choice) + self._tail

    def _usage_chunk(self, event: Completed) -> bytes:
        if not self._include_usage:
            return b""
        return self._head + b'],"usage":' + orjson.dumps(usage_body(event.usage)) + b"}\n\n"


class _Choice:
    def __init__(self, index: int) -> None:
        self._index = index
        self._texts: list[str] = []
        self._reasoning: list[str] = []
        self._gatherer = CallGatherer()
        self._calls: list[dict[str, Any]] = []
        self._logprobs: list[TextLogprob] = []
        self._token_ids: list[int] = []
        self.finish_reason = ""

    def add(self, event: TextChunk | ReasoningChunk | CallEvent) -> None:
        if isinstance(event, ReasoningChunk):
            self._reasoning.append(event.text)
            return
        if isinstance(event, CallEvent):
            if (called := self._gatherer.take(event)) is not None:
                self._calls.append(call_body(called))
            return
        self._texts.append(event.text)
        self._logprobs += event.logprobs
        self._token_ids += event.token_ids

    def body(self, has_logprobs: bool, wants_ids: bool) -> dict[str, Any]:
        text = "".join(self._texts)
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if self._reasoning:
            message["reasoning_content"] = "".join(self._reasoning)
        if self._calls:
            message |= {"content": text or None, "tool_calls": self._calls}
        body: dict[str, Any] = {
            "index": self._index,
            "message": message,
            "logprobs": logprobs_body(self._logprobs) if has_logprobs else None,
            "finish_reason": self.finish_reason,
        }
        if wants_ids:
            body["token_ids"] = self._token_ids
        return body


def call_body(called: ToolCalled) -> dict[str, Any]:
    """A call of a message."""
    function = {"name": called.name, "arguments": called.arguments_json}
    return {"id": f"call_{called.call_id}", "type": "function", "function": function}


def logprobs_body(logprobs: Sequence[TextLogprob]) -> dict[str, Any]:
    """Log-probabilities of a chat choice."""
    content = [_token(one) | {"top_logprobs": [_token(other) for other in one.alternatives]} for one in logprobs]
    return {"content": content, "refusal": None}


def _token(one: TextLogprob) -> dict[str, Any]:
    return {"token": one.token, "bytes": list(one.raw), "logprob": one.logprob}
