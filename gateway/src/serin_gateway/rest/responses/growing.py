"""Items of a response while they grow, and the events that are theirs alone.

Knows nothing about the items before and behind.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

from serin_gateway.events import TextLogprob
from serin_gateway.rest.responses.items import new_id

Body = dict[str, Any]
Told = tuple[str, Body]
"""An event's type and members, without its sequence number."""


class GrowingItem(ABC):
    """An item that is told piece by piece.

    Args:
        index: of the item in the output.
        item_id: its identifier.

    Attributes:
        text: what there is of it.
    """

    def __init__(self, index: int, item_id: str) -> None:
        self.index = index
        self._id = item_id
        self._texts: list[str] = []

    @property
    def text(self) -> str:
        """What there is of it so far."""
        return "".join(self._texts)

    @abstractmethod
    def begun(self) -> Body:
        """The item, before there is anything of it."""

    @abstractmethod
    def body(self, status: str) -> Body:
        """The item."""

    @abstractmethod
    def opening(self) -> Iterator[Told]:
        """What is told behind its beginning."""

    def add(self, text: str, logprobs: Sequence[TextLogprob] = ()) -> Told:
        """There is more of it."""
        self._texts.append(text)
        return self._delta(text, logprobs)

    @abstractmethod
    def closing(self) -> Iterator[Told]:
        """What is told before its end."""

    @abstractmethod
    def _delta(self, text: str, logprobs: Sequence[TextLogprob]) -> Told:
        """What is told of a piece."""

    def _at(self) -> Body:
        return {"item_id": self._id, "output_index": self.index}


class GrowingCall(GrowingItem):
    """A call of a function; its text is its arguments."""

    def __init__(self, index: int, call_id: str, name: str) -> None:
        super().__init__(index, f"fc_{call_id}")
        self._call_id = f"call_{call_id}"
        self._name = name

    def begun(self) -> Body:
        """The call, without arguments."""
        return self._item("in_progress", "")

    def body(self, status: str) -> Body:
        """The call."""
        return self._item(status, self.text)

    def opening(self) -> Iterator[Told]:
        """Nothing."""
        return iter(())

    def closing(self) -> Iterator[Told]:
        """All of its arguments."""
        done = {"name": self._name, "arguments": self.text}
        yield "response.function_call_arguments.done", self._at() | done

    def _delta(self, text: str, logprobs: Sequence[TextLogprob]) -> Told:
        return "response.function_call_arguments.delta", self._at() | {"delta": text}

    def _item(self, status: str, arguments: str) -> Body:
        return {
            "id": self._id,
            "type": "function_call",
            "status": status,
            "call_id": self._call_id,
            "name": self._name,
            "arguments": arguments,
        }


class _GrowingText(GrowingItem):
    """An item with one part of text."""

    kind = ""

    def __init__(self, index: int) -> None:
        super().__init__(index, new_id(self.kind))

    def begun(self) -> Body:
        return self._item("in_progress", [])

    def body(self, status: str) -> Body:
        return self._item(status, [self._part()])

    def opening(self) -> Iterator[Told]:
        yield "response.content_part.added", self._at() | {"part": self._part()}

    def closing(self) -> Iterator[Told]:
        yield self._ended()
        yield "response.content_part.done", self._at() | {"part": self._part()}

    def _at(self) -> Body:
        return super()._at() | {"content_index": 0}

    @abstractmethod
    def _part(self) -> Body:
        """See the items."""

    @abstractmethod
    def _ended(self) -> Told:
        """See the items."""

    @abstractmethod
    def _item(self, status: str, content: list[Body]) -> Body:
        """See the items."""


class GrowingMessage(_GrowingText):
    """What the assistant says."""

    kind = "msg"

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self._logprobs: list[Body] = []

    def _part(self) -> Body:
        return {"type": "output_text", "text": self.text, "annotations": [], "logprobs": list(self._logprobs)}

    def _ended(self) -> Told:
        return "response.output_text.done", self._at() | {"text": self.text, "logprobs": list(self._logprobs)}

    def _delta(self, text: str, logprobs: Sequence[TextLogprob]) -> Told:
        fresh = [_token(one) | {"top_logprobs": [_token(other) for other in one.alternatives]} for one in logprobs]
        self._logprobs += fresh
        return "response.output_text.delta", self._at() | {"delta": text, "logprobs": fresh}

    def _item(self, status: str, content: list[Body]) -> Body:
        return {"id": self._id, "type": "message", "status": status, "role": "assistant", "content": content}


class GrowingReasoning(_GrowingText):
    """What the model wrote for itself."""

    kind = "rs"

    def _part(self) -> Body:
        return {"type": "reasoning_text", "text": self.text}

    def _ended(self) -> Told:
        return "response.reasoning_text.done", self._at() | {"text": self.text}

    def _delta(self, text: str, logprobs: Sequence[TextLogprob]) -> Told:
        return "response.reasoning_text.delta", self._at() | {"delta": text}

    def _item(self, status: str, content: list[Body]) -> Body:
        return {"id": self._id, "type": "reasoning", "status": status, "summary": [], "content": content}


def _token(one: TextLogprob) -> Body:
    return {"token": one.token, "bytes": list(one.raw), "logprob": one.logprob}
