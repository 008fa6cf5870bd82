"""Output items as they grow, and the events that say so, in the order in which this API has them.

Knows nothing about how an event is written, nor about the response around it.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from serin_gateway.events import ChoiceEnded, Event, FinishReason, ReasoningChunk, TextChunk, TextLogprob, ToolCalled
from serin_gateway.rest.responses.items import new_id

Body = dict[str, Any]
Told = tuple[str, Body]
"""An event's type and members, without its sequence number."""

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
        self._open: _Growing | None = None

    @property
    def items_so_far(self) -> list[Body]:
        """Those that are done, and what there is of the one that grows."""
        return self.items if self._open is None else [*self.items, self._open.body("incomplete")]

    def take(self, event: Event) -> Iterator[Told]:
        """What is to be told of an event. It must be taken whole: items grow by it."""
        if isinstance(event, TextChunk):
            if event.text or event.logprobs:
                yield from self._grow(_Message, event.text, event.logprobs)
        elif isinstance(event, ReasoningChunk):
            yield from self._grow(_Reasoning, event.text, ())
        elif isinstance(event, ToolCalled):
            yield from self._close("completed")
            yield from self._call(event)
        elif isinstance(event, ChoiceEnded):
            self.cut_by = _CUT.get(event.finish_reason, "")
            if not self.items and self._open is None:
                yield from self._begin(_Message)  # an answer that says nothing says so
            yield from self._close("incomplete" if self.cut_by else "completed")

    def _grow(self, kind: "type[_Growing]", text: str, logprobs: Sequence[TextLogprob]) -> Iterator[Told]:
        if not isinstance(self._open, kind):
            yield from self._close("completed")
            yield from self._begin(kind)
        assert self._open is not None
        yield self._open.add(text, logprobs)

    def _begin(self, kind: "type[_Growing]") -> Iterator[Told]:
        self._open = kind(len(self.items))
        yield "response.output_item.added", {"output_index": len(self.items), "item": self._open.begun()}
        yield "response.content_part.added", self._open.at() | {"part": self._open.part()}

    def _close(self, status: str) -> Iterator[Told]:
        if self._open is None:
            return
        done, self._open = self._open, None
        yield done.ended()
        yield "response.content_part.done", done.at() | {"part": done.part()}
        yield from self._done(done.body(status))

    def _call(self, event: ToolCalled) -> Iterator[Told]:
        item = {
            "id": f"fc_{event.call_id}",
            "type": "function_call",
            "status": "in_progress",
            "call_id": f"call_{event.call_id}",
            "name": event.name,
            "arguments": "",
        }
        at: Body = {"item_id": item["id"], "output_index": len(self.items)}
        yield "response.output_item.added", {"output_index": len(self.items), "item": item}
        yield "response.function_call_arguments.delta", at | {"delta": event.arguments_json}
        yield "response.function_call_arguments.done", at | {"name": event.name, "arguments": event.arguments_json}
        yield from self._done(item | {"status": "completed", "arguments": event.arguments_json})

    def _done(self, item: Body) -> Iterator[Told]:
        self.items.append(item)
        yield "response.output_item.done", {"output_index": len(self.items) - 1, "item": item}


class _Growing:
    """An item with one part of text.

    Args:
        index: of the item in the output.
    """

    kind = ""
    item_type = ""

    def __init__(self, index: int) -> None:
        self._id = new_id(self.kind)
        self._index = index
        self._texts: list[str] = []
        self._at = {"item_id": self._id, "output_index": index, "content_index": 0}

    @property
    def text(self) -> str:
        """What it says so far."""
        return "".join(self._texts)

    def at(self) -> Body:
        """Where its part is."""
        return dict(self._at)

    def begun(self) -> Body:
        """The item, before it says anything."""
        return self._item("in_progress", [])

    def body(self, status: str) -> Body:
        """The item."""
        return self._item(status, [self.part()])

    def add(self, text: str, logprobs: Sequence[TextLogprob]) -> Told:
        """It says more."""
        self._texts.append(text)
        return self._delta(text, logprobs)

    def part(self) -> Body:
        """Its part, as far as it has grown."""
        raise NotImplementedError

    def ended(self) -> Told:
        """Its text is complete."""
        raise NotImplementedError

    def _delta(self, text: str, logprobs: Sequence[TextLogprob]) -> Told:
        raise NotImplementedError

    def _item(self, status: str, content: list[Body]) -> Body:
        raise NotImplementedError


class _Message(_Growing):
    kind = "msg"

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self._logprobs: list[Body] = []

    def part(self) -> Body:
        return {"type": "output_text", "text": self.text, "annotations": [], "logprobs": list(self._logprobs)}

    def ended(self) -> Told:
        return "response.output_text.done", self._at | {"text": self.text, "logprobs": list(self._logprobs)}

    def _delta(self, text: str, logprobs: Sequence[TextLogprob]) -> Told:
        fresh = [_token(one) | {"top_logprobs": [_token(other) for other in one.alternatives]} for one in logprobs]
        self._logprobs += fresh
        return "response.output_text.delta", self._at | {"delta": text, "logprobs": fresh}

    def _item(self, status: str, content: list[Body]) -> Body:
        return {"id": self._id, "type": "message", "status": status, "role": "assistant", "content": content}


class _Reasoning(_Growing):
    kind = "rs"

    def part(self) -> Body:
        return {"type": "reasoning_text", "text": self.text}

    def ended(self) -> Told:
        return "response.reasoning_text.done", self._at | {"text": self.text}

    def _delta(self, text: str, logprobs: Sequence[TextLogprob]) -> Told:
        return "response.reasoning_text.delta", self._at | {"delta": text}

    def _item(self, status: str, content: list[Body]) -> Body:
        return {"id": self._id, "type": "reasoning", "status": status, "summary": [], "content": content}


def _token(one: TextLogprob) -> Body:
    return {"token": one.token, "bytes": list(one.raw), "logprob": one.logprob}
