"""The seam between what happens to a request and how one API writes it down. Knows neither."""

from typing import Any, Protocol

from serin_gateway.events import Event, Usage
from serin_gateway.receipt import Receipt

OPENAI_STREAM_END = b"data: [DONE]\n\n"


class Shape(Protocol):
    """Writes one answer, as a stream of server-sent events or as a whole."""

    @property
    def stream_end(self) -> bytes:
        """What comes behind the last event of a stream that ended well."""

    def begin(self, receipt: Receipt) -> None:
        """The request is placed: its model and lane are known."""

    def chunk(self, event: Event) -> bytes:
        """The server-sent events for what happened; empty when it shows nowhere."""

    def add(self, event: Event) -> None:
        """Note what happened, for :meth:`whole`."""

    def whole(self) -> bytes:
        """The body of a response that is not streamed."""


def usage_body(usage: Usage) -> dict[str, Any]:
    """Usage as the OpenAI API writes it."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }
