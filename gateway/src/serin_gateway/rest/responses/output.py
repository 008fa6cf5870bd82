"""Output items as they grow, and the events that say so, in the order in which this API has them.

Knows nothing about how an event is written, nor about the response around it.
"""

from collections.abc import Iterator, Sequence

from serin_gateway.events import (
    ChoiceEnded,
    Event,
    FinishReason,
    ReasoningChunk,
    TextChunk,
    TextLogprob,
    ToolCallBegun,
    ToolCallEnded,
    ToolCallGrew,
)
from serin_gateway.rest.responses.growing import Body, GrowingCall, GrowingItem, GrowingMessage, GrowingReasoning, Told

_CUT = {FinishReason.LENGTH: "max_output_tokens", FinishReason.CONTENT_FILTER: "content_filter"}


class Output:
    """The items of one answer.

    Attributes:
        items: those that are done.
        cut_by: why the answer is incomplete; empty: it is not.
    """

    def __init__(self) -> None:
        self.items: list[Body] = []
        self.cut_by = ""
        self._open: GrowingItem | None = None

    @property
    def items_so_far(self) -> list[Body]:
        """Those that are done, and what there is of the one that grows."""
        return self.items if self._open is None else [*self.items, self._open.body("incomplete")]

    def take(self, event: Event) -> Iterator[Told]:
        """What is to be told of an event. It must be taken whole: items grow by it."""
        if isinstance(event, TextChunk):
            if event.text or event.logprobs:
                yield from self._grow(GrowingMessage, event.text, event.logprobs)
        elif isinstance(event, ReasoningChunk):
            yield from self._grow(GrowingReasoning, event.text, ())
        elif isinstance(event, ToolCallBegun):
            yield from self._close("completed")
            yield from self._begin(GrowingCall(len(self.items), event.call_id, event.name))
        elif isinstance(event, ToolCallGrew):
            assert self._open is not None, "a call begins before it grows"
            yield self._open.add(event.arguments_json)
        elif isinstance(event, ToolCallEnded):
            yield from self._close("completed" if event.is_whole else "incomplete")
        elif isinstance(event, ChoiceEnded):
            self.cut_by = _CUT.get(event.finish_reason, "")
            if not self.items and self._open is None:
                yield from self._begin(GrowingMessage(0))  # an answer that says nothing says so
            yield from self._close("incomplete" if self.cut_by else "completed")

    def _grow(
        self, kind: type[GrowingMessage] | type[GrowingReasoning], text: str, logprobs: Sequence[TextLogprob]
    ) -> Iterator[Told]:
        if not isinstance(self._open, kind):
            yield from self._close("completed")
            yield from self._begin(kind(len(self.items)))
        assert self._open is not None
        yield self._open.add(text, logprobs)

    def _begin(self, item: GrowingItem) -> Iterator[Told]:
        self._open = item
        yield "response.output_item.added", {"output_index": item.index, "item": item.begun()}
        yield from item.opening()

    def _close(self, status: str) -> Iterator[Told]:
        if self._open is None:
            return
        done, self._open = self._open, None
        yield from done.closing()
        item = done.body(status)
        self.items.append(item)
        yield "response.output_item.done", {"output_index": done.index, "item": item}
