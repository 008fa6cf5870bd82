"""`POST /v1/completions`: its shape. Knows nothing about how answers are made."""

import time
from collections.abc import Sequence
from typing import Any

import orjson

from serin_gateway.ask import Ask
from serin_gateway.events import ChoiceEnded, Completed, Event, Started, TextChunk, TextLogprob, Usage
from serin_gateway.offsets import Offsets
from serin_gateway.pipeline import Request
from serin_gateway.receipt import Receipt
from serin_gateway.rest.answering import answer, read_body
from serin_gateway.rest.asks import completion_ask
from serin_gateway.rest.client import Client
from serin_gateway.rest.parameters import COMPLETIONS, parse
from serin_gateway.rest.schemas import CompletionBody
from serin_gateway.rest.shape import OPENAI_STREAM_END, usage_body


async def complete(client: Client, request: Request) -> None:
    """Answer one completion."""
    body, ignored = parse(CompletionBody, COMPLETIONS, await read_body(client, request), request.caller.unknown)
    ask = completion_ask(body)
    include_usage = bool(body.stream_options and body.stream_options.include_usage)
    await answer(client, request, ask, CompletionShape(ask, include_usage), stream=bool(body.stream), ignored=ignored)


class CompletionShape:
    """A `text_completion`, streamed or whole."""

    stream_end = OPENAI_STREAM_END

    def __init__(self, ask: Ask, include_usage: bool) -> None:
        self._ask = ask
        self._include_usage = include_usage
        self._choices = [_Choice(index) for index in range(ask.choice_count)]
        self._usage = Usage()
        self._facts: dict[str, Any] = {}
        self._head = self._tail = b""

    def begin(self, receipt: Receipt) -> None:
        """The request is placed."""
        self._facts = {
            "id": f"cmpl-{receipt.request_id}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": receipt.model,
            "system_fingerprint": receipt.lane,
        }
        self._head = b"data: " + orjson.dumps(self._facts)[:-1] + b',"choices":['
        self._tail = b'],"usage":null}\n\n' if self._include_usage else b"]}\n\n"

    def chunk(self, event: Event) -> bytes:
        """One event as server-sent events."""
        if isinstance(event, TextChunk):
            return self._text_chunk(event)
        if isinstance(event, ChoiceEnded):
            last = {"index": event.choice_index, "text": "", "logprobs": None, "finish_reason": event.finish_reason}
            return self._head + orjson.dumps(last) + self._tail
        if isinstance(event, Started):
            return b"".join([self._first_chunk(event, at) for at in range(self._ask.sampling.choice_count)])
        return self._usage_chunk(event) if isinstance(event, Completed) else b""

    def add(self, event: Event) -> None:
        """Note what happened."""
        if isinstance(event, TextChunk):
            self._choices[event.choice_index].add(event)
        elif isinstance(event, ChoiceEnded):
            self._choices[event.choice_index].finish_reason = event.finish_reason
        elif isinstance(event, Started):
            for at in range(self._ask.sampling.choice_count):
                self._choices[event.first_choice_index + at].begin(event)
        elif isinstance(event, Completed):
            self._usage = event.usage

    def whole(self) -> bytes:
        """The `text_completion` object."""
        choices = [choice.body(self._ask) for choice in self._choices]
        return orjson.dumps(self._facts | {"choices": choices, "usage": usage_body(self._usage)})

    def _text_chunk(self, event: TextChunk) -> bytes:
        if not event.text and not event.logprobs and not self._ask.want_token_ids:
            return b""
        if not event.logprobs and not self._ask.want_token_ids:
            return b'%b{"index":%d,"text":%b,"logprobs":null,"finish_reason":null}%b' % (
                self._head,
                event.choice_index,
                orjson.dumps(event.text),
                self._tail,
            )
        shown = self._choices[event.choice_index]
        choice: dict[str, Any] = {
            "index": event.choice_index,
            "text": event.text,
            "logprobs": None,
            "finish_reason": None,
        }
        if self._ask.sampling.top_logprobs is not None:
            choice["logprobs"] = logprobs_body(event.logprobs, pieces_of(event.logprobs), shown.offsets)
        if self._ask.want_token_ids:
            choice["token_ids"] = event.token_ids
        return self._head + orjson.dumps(choice) + self._tail

    def _first_chunk(self, event: Started, at: int) -> bytes:
        """The prompt, for those who want it before the answer, and its ids."""
        if not (event.echo_text or event.echo_logprobs or self._ask.want_token_ids):
            return b""
        index = event.first_choice_index + at
        self._choices[index].offsets = Offsets(len(event.echo_text))
        choice: dict[str, Any] = {"index": index, "text": event.echo_text, "logprobs": None, "finish_reason": None}
        if event.echo_logprobs:
            choice["logprobs"] = logprobs_body(event.echo_logprobs, event.echo_pieces, Offsets())
        if self._ask.want_token_ids:
            choice |= {"prompt_token_ids": list(event.prompt_token_ids), "token_ids": []}
        return self._head + orjson.dumps(choice) + self._tail

    def _usage_chunk(self, event: Completed) -> bytes:
        if not self._include_usage:
            return b""
        return self._head + b'],"usage":' + orjson.dumps(usage_body(event.usage)) + b"}\n\n"


class _Choice:
    def __init__(self, index: int) -> None:
        self._index = index
        self._texts: list[str] = []
        self._logprobs: list[TextLogprob] = []
        self._echo_logprobs: Sequence[TextLogprob] = ()
        self._echo_pieces: Sequence[bytes] = ()
        self._token_ids: list[int] = []
        self._prompt_token_ids: Sequence[int] = ()
        self._echo_length = 0
        self.offsets = Offsets()
        self.finish_reason = ""

    def begin(self, event: Started) -> None:
        self._texts.append(event.echo_text)
        self._echo_length = len(event.echo_text)
        self._echo_logprobs, self._echo_pieces = event.echo_logprobs, event.echo_pieces
        self._prompt_token_ids = event.prompt_token_ids

    def add(self, event: TextChunk) -> None:
        self._texts.append(event.text)
        self._logprobs += event.logprobs
        self._token_ids += event.token_ids

    def body(self, ask: Ask) -> dict[str, Any]:
        body: dict[str, Any] = {
            "index": self._index,
            "text": "".join(self._texts),
            "logprobs": None,
            "finish_reason": self.finish_reason,
        }
        if ask.sampling.top_logprobs is not None:
            echoed = logprobs_body(self._echo_logprobs, self._echo_pieces, Offsets())
            answered = logprobs_body(self._logprobs, pieces_of(self._logprobs), Offsets(self._echo_length))
            body["logprobs"] = {key: echoed[key] + answered[key] for key in answered}
        if ask.want_token_ids:
            body |= {"prompt_token_ids": list(self._prompt_token_ids), "token_ids": self._token_ids}
        return body


def pieces_of(answered: Sequence[TextLogprob]) -> list[bytes]:
    """What an answer's tokens stand for in its text: all their bytes, for it goes on from the prompt."""
    return [one.raw for one in answered]


def logprobs_body(logprobs: Sequence[TextLogprob], pieces: Sequence[bytes], offsets: Offsets) -> dict[str, Any]:
    """Log-probabilities of a completion's choice; ``pieces``: what each token stands for in its text."""
    return {
        "tokens": [one.token for one in logprobs],
        "token_logprobs": [one.logprob for one in logprobs],
        "top_logprobs": [_alternatives(one) for one in logprobs],
        "text_offset": [offsets.of(piece) for piece in pieces],
    }


def _alternatives(one: TextLogprob) -> dict[str, float | None] | None:
    """By text, and always with the token that was taken, as OpenAI has it; None for a prompt's first token.

    Of tokens that are spelled alike (pieces of characters) the most probable one is listed.
    """
    if one.logprob is None:
        return None
    shown: dict[str, float | None] = {}
    for other in one.alternatives:
        shown.setdefault(other.token, other.logprob)
    return shown | {one.token: one.logprob}
