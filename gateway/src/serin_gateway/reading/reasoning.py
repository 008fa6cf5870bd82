"""Reasoning at the beginning of a text that grows.

Only there: what looks like reasoning later is text. Whitespace behind the marks belongs to them. Knows nothing about
calls or tokens.
"""

import enum

from serin_gateway.reading.form import AnswerForm
from serin_gateway.reading.parts import Part, Reasoned, Said


class _State(enum.Enum):
    BEFORE = enum.auto()  # nothing but whitespace has come
    BEGUN = enum.auto()  # behind the opening mark, nothing but whitespace since
    INSIDE = enum.auto()
    BEHIND = enum.auto()  # behind the closing mark, nothing but whitespace since
    OVER = enum.auto()


class ReasoningReader:
    """Takes an answer's text in pieces, gives reasoning and the text behind it.

    Args:
        form: names the marks, and whether the prompt has begun it.
    """

    def __init__(self, form: AnswerForm) -> None:
        self._open, self._close = form.reasoning_open, form.reasoning_close
        self._state = _State.BEGUN if form.reasoning_begun else _State.BEFORE
        self._held = ""
        self.has_begun = form.reasoning_begun

    @property
    def is_over(self) -> bool:
        """Whether all that comes is text."""
        return self._state in (_State.BEHIND, _State.OVER)

    def feed(self, text: str) -> list[Part]:
        """Take text, give what became certain."""
        if self._state is _State.OVER:
            return [Said(text)] if text else []
        self._held += text
        parts: list[Part] = []
        if self._state is _State.BEFORE:
            self._before()
        if self._state is _State.BEGUN:
            self._held = self._held.lstrip()
            if self._held:
                self._state = _State.INSIDE
        if self._state is _State.INSIDE:
            parts += self._inside()
        if self._state is _State.BEHIND:
            self._held = self._held.lstrip()
            if self._held:
                self._state = _State.OVER
        if self._state is _State.OVER and self._held:
            parts.append(Said(self._held))
            self._held = ""
        return parts

    def end(self) -> list[Part]:
        """Nothing follows: what was held is what it seemed to be."""
        rest, self._held = self._held, ""
        if self._state is _State.BEFORE:
            return [Said(rest)] if rest else []
        return [Reasoned(rest)] if rest else []

    def _before(self) -> None:
        text = self._held.lstrip()
        if text.startswith(self._open):
            self._held = text.removeprefix(self._open)
            self._state, self.has_begun = _State.BEGUN, True
        elif not self._open.startswith(text):
            self._state = _State.OVER

    def _inside(self) -> list[Part]:
        at = self._held.find(self._close)
        if at >= 0:
            thought = self._held[:at].rstrip()
            self._held = self._held[at + len(self._close) :]
            self._state = _State.BEHIND
        else:
            num_begun = next(
                (n for n in range(min(len(self._close) - 1, len(self._held)), 0, -1)
                 if self._close.startswith(self._held[-n:])),
                0,
            )  # fmt: skip
            thought = self._held[: len(self._held) - num_begun].rstrip()
            self._held = self._held[len(thought) :]
        return [Reasoned(thought)] if thought else []
