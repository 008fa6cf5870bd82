"""One answer as it is read: reasoning first, then text and calls.

Knows nothing about tokens, choices or doors.
"""

from collections.abc import Collection

from serin_gateway.reading.calls import CallReader
from serin_gateway.reading.form import AnswerForm, CallForm
from serin_gateway.reading.parts import Part, Said, joined
from serin_gateway.reading.reasoning import ReasoningReader


class AnswerReader:
    """Takes an answer's text in pieces, gives its parts as they become certain.

    Args:
        form: how the answer is written.
        tools: names that may be called; none: whatever looks like a call is text.
        grows: calls are told as they grow, else when they are whole.
        is_single: one call is all that is wanted.
    """

    def __init__(
        self, form: AnswerForm, tools: Collection[str], *, grows: bool = False, is_single: bool = False
    ) -> None:
        self._reasoning = ReasoningReader(form) if form.reasoning_open and not form.beginning else None
        self._calls = None
        if tools and form.calls is not CallForm.NONE:
            # Whose prompt begins a call had to call: its grammar allows nothing else.
            only_calls = bool(form.beginning)
            self._calls = CallReader(form.calls, tools, grows=grows, is_single=is_single, only_calls=only_calls)
        self._beginning = form.beginning

    @property
    def is_complete(self) -> bool:
        """Whether the only call that is wanted is there."""
        return self._calls is not None and self._calls.is_complete

    @property
    def has_broken_off(self) -> bool:
        """Whether a call did not become whole, where the text ended or after it was told."""
        return self._calls is not None and self._calls.has_broken_off

    @property
    def has_reasoned(self) -> bool:
        """Whether there is reasoning."""
        return self._reasoning is not None and self._reasoning.has_begun

    @property
    def is_reasoning(self) -> bool:
        """Whether what comes is reasoning, or may turn out to be."""
        return self._reasoning is not None and not self._reasoning.is_over

    def feed(self, text: str) -> list[Part]:
        """Take text, give what became certain."""
        text, self._beginning = self._beginning + text, ""
        parts: list[Part] = self._reasoning.feed(text) if self._reasoning is not None else [Said(text)]
        return self._read(parts)

    def end(self) -> list[Part]:
        """Nothing follows; give what was held."""
        parts = self.feed("")
        if self._reasoning is not None:
            parts += self._read(self._reasoning.end())
        if self._calls is not None:
            parts += self._calls.end()
        return joined(parts)

    def _read(self, parts: list[Part]) -> list[Part]:
        if self._calls is None:
            return [part for part in parts if not isinstance(part, Said) or part.text]
        read: list[Part] = []
        for part in parts:
            read += self._calls.feed(part.text) if isinstance(part, Said) else [part]
        return joined(read)
