"""Where an answer waits while it is judged: an outbox that nobody reads yet. Knows nothing about rules."""

import asyncio
from collections.abc import Sequence

from serin_gateway.called import CallGatherer, ToolCalled
from serin_gateway.cascades.answer_rules import HeldChoice
from serin_gateway.events import CallEvent, ChoiceEnded, Event, ReasoningChunk, TextChunk, ToolCallBegun
from serin_gateway.outbox import Outbox

MAX_HELD_CHARACTERS = 1_048_576
"""As an outbox counts, reasoning and calls included: of one answer, all its choices together."""
EVENT_CHARACTERS = 128
"""What an event of its own counts as, beside its text."""


class HeldOutbox(Outbox):
    """Events of an answer that is held back; what is more than may be held is noted, and its makers wait for ever.

    Whoever holds the answer waits for :attr:`overflowed` too, and ends the makers then.
    """

    def __init__(self, room_characters: int = MAX_HELD_CHARACTERS) -> None:
        super().__init__(room_characters)
        self.overflowed = asyncio.Event()

    def put(self, event: Event) -> None:
        """Add an event."""
        super().put(event)
        if isinstance(event, ReasoningChunk):
            self._num_characters += len(event.text) + EVENT_CHARACTERS
        elif isinstance(event, ToolCallBegun):
            self._num_characters += EVENT_CHARACTERS
        if self.is_full:
            self.overflowed.set()

    def release(self, outbox: Outbox) -> None:
        """Give everything to the reader's outbox, in order."""
        for event in self._drained():
            outbox.put(event)

    def choices(self, count: int) -> Sequence[HeldChoice]:
        """The answer by choice, without log-probabilities."""
        choices = [HeldChoice() for _ in range(count)]
        texts: list[list[str]] = [[] for _ in range(count)]
        calls: list[list[ToolCalled]] = [[] for _ in range(count)]
        gatherers = [CallGatherer() for _ in range(count)]
        for event in self._events:
            if isinstance(event, TextChunk):
                texts[event.choice_index].append(event.text)
            elif isinstance(event, CallEvent):
                if (whole := gatherers[event.choice_index].take(event)) is not None:
                    calls[event.choice_index].append(whole)
            elif isinstance(event, ChoiceEnded):
                choices[event.choice_index].finish_reason = event.finish_reason
        for choice, text, called in zip(choices, texts, calls, strict=True):
            choice.text, choice.calls = "".join(text), called
        return choices
