"""How an answer writes calls and reasoning, as the tokenizer says with a prompt.

Knows nothing about how it is read.
"""

import enum
from dataclasses import dataclass


class CallForm(enum.Enum):
    """Form of calls; the names are those of ``serin.tokenizer.v1.ToolCallFormat``."""

    NONE = "none"
    HERMES = "hermes"
    LLAMA = "llama"
    MISTRAL = "mistral"
    GENERIC = "generic"


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """How the answer to one prompt is written.

    Attributes:
        calls: form of calls.
        reasoning_open, reasoning_close: marks around reasoning; empty: there is none.
        reasoning_close_ids: the latter as ids.
        reasoning_begun: the prompt ends inside reasoning.
        beginning: text at the prompt's end that belongs to the answer: a call that was begun.
        marking_ids: special ids among the marks; the answer must be detokenized with them.
    """

    calls: CallForm = CallForm.NONE
    reasoning_open: str = ""
    reasoning_close: str = ""
    reasoning_close_ids: tuple[int, ...] = ()
    reasoning_begun: bool = False
    beginning: str = ""
    marking_ids: tuple[int, ...] = ()
