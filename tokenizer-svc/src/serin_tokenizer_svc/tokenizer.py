"""A tokenizer that is ready to answer: what it is, and the parts that do its work."""

from dataclasses import dataclass

from serin_tokenizer_svc.chat import Chat
from serin_tokenizer_svc.encode_queue import EncodeQueue
from serin_tokenizer_svc.grammar_pool import GrammarPool
from serin_tokenizer_svc.vocabulary import Vocabulary


@dataclass(frozen=True)
class Identity:
    """What a tokenizer is, for whoever asks."""

    model: str
    version: str
    vocabulary_digest: str
    tokenizer_digest: str
    has_chat_template: bool


@dataclass(frozen=True)
class Tokenizer:
    """The parts of one tokenizer."""

    identity: Identity
    vocabulary: Vocabulary
    chat: Chat
    queue: EncodeQueue
    grammars: GrammarPool
