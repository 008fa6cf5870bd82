"""The seams to the tokenizer: text to ids, and growing ids to text.

Knows nothing about gRPC; `upstream/` carries these out over the mesh, `testing` in memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from serin_mesh.errors import MeshError

from serin_gateway.catalog import Lane
from serin_gateway.conversation import Conversation
from serin_gateway.grammar import Grammar
from serin_gateway.reading.form import AnswerForm


@dataclass(frozen=True, slots=True)
class CallScope:
    """What every call made for a request carries: who asked, for which model and lane, and how long it may take."""

    request_id: str
    model: str
    lane: Lane
    tenant_key: str
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt, how the answer to it is written and, if its calls are constrained, what it must follow.

    Attributes:
        unshown: places of what its template does not show: ``messages[0].name``.
    """

    token_ids: Sequence[int]
    form: AnswerForm = field(default_factory=AnswerForm)
    grammar: str = ""
    unshown: Sequence[str] = ()


class Tokenizer(Protocol):
    """Text to ids and back, by the tokenizer of a lane."""

    def expect(self, scope: CallScope) -> None:
        """Ask nothing yet: only whether somebody would answer.

        Raises:
            MeshError: UPSTREAM_UNAVAILABLE, all tokenizers of the lane have fallen silent.
        """

    async def render(self, scope: CallScope, conversation: Conversation, *, constrain_calls: bool = False) -> Rendered:
        """The prompt that the lane's chat template makes of a conversation; with the grammar of its calls, if wanted.

        Raises:
            MeshError: TEMPLATE_REJECTED, …; GRAMMAR_INVALID or GRAMMAR_LIMIT, whose parameter is ``tools`` or the
                schema of one of those that the model is shown: ``tools[0].parameters``.
        """

    async def encode(self, scope: CallScope, text: str, *, add_special_tokens: bool = True) -> Sequence[int]:
        """The ids of a text, with those the tokenizer always adds, or without them."""

    async def encode_each(self, scope: CallScope, texts: Sequence[str]) -> Sequence[Sequence[int]]:
        """The ids of each text, with those the tokenizer always adds; each may fill the lane's whole context.

        Raises:
            MeshError: PROMPT_TOO_LONG, whose parameter ``texts[i]`` is the one with this index.
        """

    async def decode(self, scope: CallScope, token_ids: Sequence[int], *, keep_special_tokens: bool = False) -> str:
        """The text of a sequence of ids, special ones left out or written out; ids that nobody knows are left out."""

    async def prepare_grammar(self, scope: CallScope, grammar: Grammar) -> str:
        """A grammar in the language of the lane's workers, checked; equal for equal grammars.

        Raises:
            MeshError: GRAMMAR_INVALID, GRAMMAR_LIMIT.
        """

    async def token_bytes(
        self, scope: CallScope, token_ids: Sequence[int], *, keep_special_tokens: bool = True
    ) -> Sequence[bytes]:
        """The bytes of each id by itself, anywhere but at a text's beginning; special ids have theirs, or none."""

    async def vocabulary_size(self, scope: CallScope) -> int:
        """Number of ids that the tokenizer knows, added ones included: they are those below it."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """News of a growing sequence.

    Attributes:
        text: text that became certain.
        num_tokens: ids consumed so far, counted from the first of the sequence.
        stop_string: the stop string that matched; the sequence is over then, and ``num_tokens`` counts up to the id
            that completed the match.
        closed: nothing follows.
    """

    text: str
    num_tokens: int
    stop_string: str | None = None
    closed: bool = False


class TextSink(Protocol):
    """Who is told about a sequence; called from the event loop, must not block."""

    def decoded(self, news: Decoded) -> None:
        """Text became certain, or the sequence ended."""

    def sent(self) -> None:
        """Ids that waited are on their way."""

    def failed(self, error: MeshError) -> None:
        """The sequence cannot go on."""


class TextSequence(Protocol):
    """A growing sequence of ids. Nothing here waits: the sink hears what comes of it."""

    @property
    def is_behind(self) -> bool:
        """True while ids wait to be sent: a maker that goes on then only makes the next message larger."""

    def append(self, token_ids: Sequence[int]) -> None:
        """Add ids."""

    def close(self) -> None:
        """No more ids follow: text held back is flushed, and the sink hears ``closed``."""

    def abandon(self) -> None:
        """Nobody listens any more. Calling it after the end changes nothing."""


class Detokenizer(Protocol):
    """Opens growing sequences on a lane's tokenizers."""

    def open(
        self,
        scope: CallScope,
        sink: TextSink,
        *,
        stop_strings: Sequence[str] = (),
        min_tokens: int = 0,
        shown_ids: Sequence[int] = (),
        goes_on: bool = False,
    ) -> TextSequence:
        """Begin a sequence; stop strings are looked for behind the first ``min_tokens`` ids.

        Special ids are left out of the text, but for those that are shown. A text that goes on from another one keeps
        the space that some tokenizers take off a text's beginning.
        """
