"""What a running request tells its door, in order: one `Started`; texts, calls, ends of choices; one `Completed`.

Knows nothing about how a door writes them.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass


class FinishReason(enum.StrEnum):
    """Why a choice ended, by the names of the OpenAI API."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"


@dataclass(slots=True)
class Usage:
    """Tokens that count: all prompts', and of every choice up to the one that completes a stop, reasoning included."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Prompt and completion."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class TextLogprob:
    """A token as text and bytes, its log-probability in nats, and the most probable tokens at its position.

    None: it is a prompt's first token, which nothing comes before.
    """

    token: str
    raw: bytes
    logprob: float | None
    alternatives: Sequence["TextLogprob"] = ()


@dataclass(frozen=True, slots=True)
class Started:
    """A prompt was placed on a worker; its choices have the indices from ``first_choice_index`` on.

    Attributes:
        echo_text, echo_logprobs: the prompt as it is shown before each answer, where that was asked for.
        echo_pieces: the bytes of the text that each of its tokens stands for; special ones for none.
    """

    first_choice_index: int
    prompt_token_ids: Sequence[int]
    echo_text: str = ""
    echo_logprobs: Sequence[TextLogprob] = ()
    echo_pieces: Sequence[bytes] = ()


@dataclass(slots=True)
class TextChunk:
    """Text of a choice; ids and log-probabilities of the tokens whose text it brings to an end."""

    choice_index: int
    text: str
    token_ids: list[int]
    logprobs: list[TextLogprob]


@dataclass(frozen=True, slots=True)
class ReasoningChunk:
    """Reasoning of a choice; it comes before all text."""

    choice_index: int
    text: str


@dataclass(frozen=True, slots=True)
class ToolCallBegun:
    """A choice begins to call a tool; the call's arguments follow, then its end, and no other call in between.

    Attributes:
        call_index: which of the choice's calls, from 0.
        call_id: unguessable; a door writes it in its own style.
    """

    choice_index: int
    call_index: int
    call_id: str
    name: str


@dataclass(slots=True)
class ToolCallGrew:
    """More of the arguments of the call that was begun last, as the model wrote them."""

    choice_index: int
    call_index: int
    arguments_json: str


@dataclass(frozen=True, slots=True)
class ToolCallEnded:
    """The call that was begun last ends.

    Attributes:
        is_whole: its arguments are a JSON object; false: it broke off, and they are the beginning of one.
    """

    choice_index: int
    call_index: int
    is_whole: bool


@dataclass(frozen=True, slots=True)
class ChoiceEnded:
    """A choice ended."""

    choice_index: int
    finish_reason: FinishReason
    stop_string: str | None = None
    stop_token_id: int | None = None


@dataclass(frozen=True, slots=True)
class Completed:
    """All choices ended."""

    usage: Usage


CallEvent = ToolCallBegun | ToolCallGrew | ToolCallEnded
Event = Started | TextChunk | ReasoningChunk | CallEvent | ChoiceEnded | Completed
