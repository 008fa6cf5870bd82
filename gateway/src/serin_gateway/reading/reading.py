"""The reading of one choice: its parts, how many of its tokens are reasoning, and whether it has called enough.

Knows nothing about events or doors.
"""

from collections.abc import Sequence

from serin_gateway.conversation import Conversation
from serin_gateway.reading.form import AnswerForm, CallForm
from serin_gateway.reading.parts import Part
from serin_gateway.reading.reader import AnswerReader
from serin_gateway.tokenizer import Decoded


class Reading:
    """Reads the answer to a conversation as it is decoded.

    Args:
        form: how it is written.
        conversation: names what may be called.
        grows: calls are told as they grow, else when they are whole.

    Attributes:
        num_reasoning_tokens: tokens that are reasoning so far, marks included.
    """

    def __init__(self, form: AnswerForm, conversation: Conversation, *, grows: bool = False) -> None:
        is_single = conversation.tool_choice.single_call
        self._reader = AnswerReader(form, conversation.callable_tools, grows=grows, is_single=is_single)
        self._close_ids = list(form.reasoning_close_ids)
        self._is_counted = False
        self.num_reasoning_tokens = 0

    @property
    def is_complete(self) -> bool:
        """Nothing more is wanted of it: it made the only call that it may make."""
        return self._reader.is_complete

    @property
    def has_broken_off(self) -> bool:
        """A call of it did not become whole: whoever gets it is not to make its calls as if that were all."""
        return self._reader.has_broken_off

    def read(self, news: Decoded, is_last: bool, token_ids: Sequence[int]) -> list[Part]:
        """The parts that became certain; ``token_ids``: all that were made."""
        parts = self._reader.feed(news.text)
        self._count(news.num_tokens, token_ids)
        if is_last:
            parts += self._reader.end()
        return parts

    def _count(self, num_tokens: int, token_ids: Sequence[int]) -> None:
        if self._is_counted or not self._reader.has_reasoned:
            return
        self._is_counted = not self._reader.is_reasoning
        self.num_reasoning_tokens = num_tokens
        if self._is_counted:
            self.num_reasoning_tokens = _end_of(self._close_ids, token_ids[:num_tokens])


def reading_of(form: AnswerForm, conversation: Conversation | None, *, grows: bool = False) -> Reading | None:
    """A reading of an answer to it; None: all of the answer is text."""
    if conversation is None:
        return None
    calls = bool(conversation.callable_tools) and form.calls is not CallForm.NONE
    return Reading(form, conversation, grows=grows) if calls or form.reasoning_open else None


def _end_of(wanted: Sequence[int], ids: Sequence[int]) -> int:
    """The position behind the first place where the wanted ids stand; else the end: a mark can be spelled otherwise."""
    size = len(wanted)
    for at in range(len(ids) - size + 1 if size else 0):
        if ids[at] == wanted[0] and list(ids[at : at + size]) == list(wanted):
            return at + size
    return len(ids)
