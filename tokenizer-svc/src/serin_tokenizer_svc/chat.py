"""Conversations to ids: the chat template in its process, then the encoder.

Joins the render pool, the vocabulary and the control tokens; knows nothing about gRPC.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from serin_tokenizer_svc.control_tokens import ControlTokens
from serin_tokenizer_svc.conversation import Conversation, Turn
from serin_tokenizer_svc.encode_queue import EncodeQueue
from serin_tokenizer_svc.errors import (
    InputRefused,
    NoTemplate,
    TemplateArgumentUnknown,
    TemplateError,
    TemplateRejected,
)
from serin_tokenizer_svc.folder import SPECIAL_TOKEN_NAMES
from serin_tokenizer_svc.render_pool import RenderPool, TemplateFacts
from serin_tokenizer_svc.template import RESERVED_NAMES
from serin_tokenizer_svc.vocabulary import Vocabulary

PROBES = ("serin-probe-a", "serin-probe-b")


@dataclass(frozen=True)
class KnownTemplate:
    """A template and what was learned of it.

    Attributes:
        facts: variables it reads, literals in it.
        takes_text: it shows content that is a string.
        takes_parts: it shows content that is a list of parts.
        control: tokens that only the template may write.
        special: those of them that not even an assistant's turn may contain.
        knows_developer: it has words of its own for developers' turns; elsewhere they are the system's.
    """

    facts: TemplateFacts
    takes_text: bool
    takes_parts: bool
    control: ControlTokens
    special: ControlTokens
    knows_developer: bool


class Chat:
    """Renders and encodes conversations. Call :meth:`learn` once before."""

    def __init__(
        self, pool: RenderPool, queue: EncodeQueue, vocabulary: Vocabulary, special_tokens: Mapping[str, str]
    ) -> None:
        self._pool = pool
        self._queue = queue
        self._vocabulary = vocabulary
        self._special_tokens = dict(special_tokens)
        self._any_token = ControlTokens(vocabulary.added_tokens)
        self._templates: dict[str, KnownTemplate] = {}

    @property
    def num_kills(self) -> int:
        """Render processes that were killed or died."""
        return self._pool.num_kills

    @property
    def num_waiting(self) -> int:
        """Conversations that wait for a render process."""
        return self._pool.num_waiting

    async def learn(self) -> None:
        """Find out, by trying, in which shapes each template takes a turn's content."""
        special = {token for token, (_, is_special) in self._vocabulary.added_tokens.items() if is_special}
        for name, facts in self._pool.facts.items():
            written = "\0".join(facts.literals)
            control = {
                token
                for token in self._vocabulary.added_tokens
                if token in special or (token in written and not token.isspace())
            }
            self._templates[name] = KnownTemplate(
                facts,
                takes_text=await self._shows(name, PROBES[0], PROBES[:1]),
                takes_parts=await self._shows(name, _as_parts(PROBES), PROBES),
                control=ControlTokens(control),
                special=ControlTokens(special),
                knows_developer="developer" in written,
            )

    async def render(self, conversation: Conversation) -> str:
        """Text of a conversation; the caller's control tokens carry marks (:mod:`control_tokens`).

        Raises:
            InputRefused, TemplateError, RenderBusy: as their names say.
        """
        name, template = self._choose(conversation)
        _refuse_unknown(template.facts, conversation)
        tools = template.control.mark(list(conversation.tools)) or None
        variables = {
            **self._special_tokens,
            **template.control.mark(conversation.arguments),
            "messages": [_message(turn, template) for turn in conversation.turns],
            "tools": tools,
            "add_generation_prompt": conversation.with_header and not conversation.open_ended,
        }
        variables.setdefault("documents", None)
        tag = f"SERIN-CONTINUE-{secrets.token_hex(8)}" if conversation.open_ended else None
        return await self._pool.render(name, variables, tag)

    async def encode(self, rendered: str, max_tokens: int = 0) -> list[int]:
        """Ids of rendered text.

        Raises:
            PromptTooLong: it is so long that it must become more than ``max_tokens`` ids (0: no limit).
            EncodeBusy: too much text is at work already.
            TemplateRejected: a control token in the caller's text cannot be written as plain characters.
        """
        pieces = self._any_token.split(rendered)
        self._vocabulary.refuse_hopeless([piece for piece, _ in pieces], max_tokens, "messages")
        if len(pieces) == 1:
            (ids,) = await self._queue.encode([pieces[0][0]], False)
            return ids
        return await self._queue.run(lambda: self._vocabulary.encode_pieces(pieces), len(rendered))

    def _choose(self, conversation: Conversation) -> tuple[str, KnownTemplate]:
        name = "tool_use" if conversation.tools and "tool_use" in self._templates else "default"
        if name not in self._templates:
            raise NoTemplate("the model has no chat template; ask with a plain prompt instead")
        return name, self._templates[name]

    async def _shows(self, name: str, content: Any, words: Sequence[str]) -> bool:
        variables = {
            **self._special_tokens,
            "messages": [{"role": "user", "content": content}],
            "tools": None,
            "documents": None,
            "add_generation_prompt": True,
        }
        try:
            text = await self._pool.render(name, variables)
        except TemplateError:
            return False
        return all(word in text for word in words) and "'type'" not in text and '"type"' not in text


def _refuse_unknown(facts: TemplateFacts, conversation: Conversation) -> None:
    for name in conversation.arguments:
        if name in RESERVED_NAMES or name in SPECIAL_TOKEN_NAMES or name not in facts.variables:
            readable = sorted(facts.variables - RESERVED_NAMES - set(SPECIAL_TOKEN_NAMES))
            raise TemplateArgumentUnknown(
                f"template argument {name!r} is not accepted; the template reads: {', '.join(readable) or 'none'}", name
            )
    if conversation.tools and "tools" not in facts.variables:
        raise InputRefused("the model's chat template cannot show tools", "tools")
    documents = conversation.arguments.get("documents")
    if documents is not None and not (isinstance(documents, list) and all(isinstance(d, dict) for d in documents)):
        raise TemplateRejected("template argument 'documents': accepted: a list of objects")


def _message(turn: Turn, template: KnownTemplate) -> dict[str, Any]:
    """A turn as templates read it; what the model itself wrote may contain its own non-special tokens."""
    mark = template.special.mark if turn.role == "assistant" else template.control.mark
    is_system = turn.role == "developer" and not template.knows_developer
    message: dict[str, Any] = {"role": "system" if is_system else turn.role}
    if turn.parts:
        message["content"] = mark(_content(turn.parts, template))
    if turn.name is not None:
        message["name"] = mark(turn.name)
    if turn.tool_calls:
        message["tool_calls"] = mark(list(turn.tool_calls))
    if turn.tool_call_id is not None:
        message["tool_call_id"] = mark(turn.tool_call_id)
    return message


def _content(parts: Sequence[str], template: KnownTemplate) -> Any:
    if len(parts) == 1 and (template.takes_text or not template.takes_parts):
        return parts[0]
    return _as_parts(parts) if template.takes_parts else "\n".join(parts)


def _as_parts(texts: Sequence[str]) -> list[dict[str, str]]:
    return [{"type": "text", "text": text} for text in texts]
