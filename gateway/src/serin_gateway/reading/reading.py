"""The reading of one choice: its parts, how many of its tokens are reasoning, and whether it has called enough.

Knows nothing about events or doors.
"""

from collections.abc import Sequence

from serin_gateway.conversation import Conversation
from serin_gateway.reading.form import AnswerForm, CallForm
from serin_gateway.reading.parts import Called, Part
from serin_gateway.reading.reader import AnswerReader
from serin_gateway.tokenizer import Decoded


class Reading:
    """Reads the answer to a conversation as it is decoded.

    Args:
        form: how it is written.
        conversation: names what may be called.

    Attributes:
        num_reasoning_tokens: tokens that are reasoning so far, marks included.
        is_complete: nothing more is wanted of it: it made the only call that it may make.
    """

    def __init__(self, form: AnswerForm, conversation: Conversation) -> None:
        self._reader = AnswerReader(form, conversation.callable_tools)
        self._close_ids = list(form.reasoning_close_ids)
        self._single_call = conversation.tool_choice.single_call
        self._is_counted = False
        self.num_reasoning_tokens = 0
        self.is_complete = False

    def read(self, news: Decoded, is_last: bool, token_ids: Sequence[int]) -> list[Part]:
        """The parts that became certain; ``token_ids``: all that were made."""
        parts = self._reader.feed(news.text)
        self._count(news.num_tokens, token_ids)
        if is_last:
            parts += self._reader.end()
        calls = [at for at, part in enumerate(parts) if isinstance(part, Called)]
        if not (self._single_call and calls):
            return parts
        self.is_complete = True
        return parts[: calls[0] + 1]

    def _count(self, num_tokens: int, token_ids: Sequence[int]) -> None:
        if self._is_counted or not self._reader.has_reasoned:
            return
        self._is_counted = not self._reader.is_reasoning
        self.num_reasoning_tokens = num_tokens
        if self._is_counted:
            self.num_reasoning_tokens = _end_of(self._close_ids, token_ids[:num_tokens])


def reading_of(form: AnswerForm, conversation: Conversation | None) -> Reading | None:
    """A reading of an answer to it; None: all of the answer is text."""
    if conversation is None:
        return None
    calls = bool(conversation.callable_tools) and form.calls is not CallForm.NONE
    return Reading(form, conversation) if calls or form.reasoning_open else None


def _end_of(wanted: Sequence[int], ids: Sequence[int]) -> int:
    """The position behind the first place where the wanted ids stand; else the end: a mark can be spelled otherwise."""
    size = len(wanted)
    for at in range(len(ids) - size + 1 if size else 0):
        if ids[at] == wanted[0] and list(ids[at : at + size]) == list(wanted):
            return at + size
    return len(ids)
