"""How families of models mark their calls in text. Knows nothing about how they are read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from serin_gateway.reading.form import CallForm


@dataclass(frozen=True, slots=True)
class Marks:
    """How a family marks its calls.

    Attributes:
        opening, closing: marks around a call; empty: none.
        bare: an answer that begins with JSON may be a call without a mark, and further ones may follow behind ``;``.
        headed: the tool's name may come before the JSON, which is its arguments then.
    """

    opening: str = ""
    closing: str = ""
    bare: bool = False
    headed: bool = False

    @property
    def around(self) -> Sequence[str]:
        """Those that there are."""
        return [mark for mark in (self.opening, self.closing) if mark]


MARKS: Mapping[CallForm, Marks] = {
    CallForm.HERMES: Marks("<tool_call>", "</tool_call>"),
    CallForm.LLAMA: Marks("<|python_tag|>", bare=True),
    CallForm.MISTRAL: Marks("[TOOL_CALLS]", headed=True),
    CallForm.GENERIC: Marks(bare=True),
}


def num_begun(mark: str, text: str, end: int) -> int:
    """Characters before ``end`` of a text that may begin a mark; 0 where there is no mark."""
    at = text.find(mark[0], max(0, end - len(mark) + 1), end) if mark else -1
    while at >= 0 and not mark.startswith(text[at:end]):
        at = text.find(mark[0], at + 1, end)
    return end - at if at >= 0 else 0
