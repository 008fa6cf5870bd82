"""Conversations to ids: the chat template in its process, then the encoder.

Joins the render pool, the vocabulary and the control tokens; knows nothing about gRPC.
"""

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from serin_tokenizer_svc.answer_form import AnswerForm, find_form
from serin_tokenizer_svc.control_tokens import ControlTokens
from serin_tokenizer_svc.conversation import Conversation
from serin_tokenizer_svc.encode_queue import EncodeQueue
from serin_tokenizer_svc.errors import (
    NoTemplate,
    NotShown,
    TemplateArgumentUnknown,
    TemplateError,
    TemplateRejected,
    TokenizerError,
)
from serin_tokenizer_svc.folder import SPECIAL_TOKEN_NAMES
from serin_tokenizer_svc.known_template import KnownTemplate, as_parts
from serin_tokenizer_svc.render_pool import RenderPool, TemplateFacts
from serin_tokenizer_svc.template import RESERVED_NAMES
from serin_tokenizer_svc.vocabulary import Vocabulary

PROBES = ("serin-probe-a", "serin-probe-b")


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
                takes_parts=await self._shows(name, as_parts(PROBES), PROBES),
                control=ControlTokens(control),
                special=ControlTokens(special),
                knows_developer="developer" in written,
                takes_arguments=await self._shows_arguments(name),
                form=self._form(facts, written),
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
            **_switched(template.form, conversation.effort),
            **template.control.mark(conversation.arguments),
            "messages": template.messages(conversation.turns),
            "tools": tools,
            "add_generation_prompt": conversation.with_header and not conversation.open_ended,
        }
        variables.setdefault("documents", None)
        tag = f"SERIN-CONTINUE-{secrets.token_hex(8)}" if conversation.open_ended else None
        text = await self._shown(name, variables, tag)
        return text if conversation.begun_call is None else text + _begun(template, conversation.begun_call, text)

    async def unshown_names(self, conversation: Conversation, rendered: str) -> Sequence[int]:
        """Turns, by index, whose participant's name the template does not show: it is rendered again with other names.

        Args:
            conversation: what was rendered.
            rendered: what became of it.
        """
        named = [at for at, turn in enumerate(conversation.turns) if turn.name]
        if not named:
            return ()
        tags = {at: f"serin-name-{secrets.token_hex(8)}" for at in named}
        turns = tuple(replace(turn, name=tags.get(at, turn.name)) for at, turn in enumerate(conversation.turns))
        try:
            text = await self.render(replace(conversation, turns=turns))
        except TokenizerError:  # other names are none that this template takes, so it does look at them
            return ()
        unshown = [at for at in named if tags[at] not in text.lower()]
        # Where the text changes though no name is in it, the template does something else with them.
        return () if len(unshown) == len(named) and text != rendered else unshown

    def answer_form(self, conversation: Conversation, rendered: str) -> AnswerForm:
        """How the answer to a conversation, once it is rendered, is to be read."""
        _, template = self._choose(conversation)
        if conversation.begun_call is not None:
            return replace(template.form, beginning=template.form.begun_call(conversation.begun_call))
        last_turn = "".join(conversation.turns[-1].parts) if conversation.open_ended else None
        return template.form.for_prompt(rendered, last_turn)

    @property
    def form(self) -> AnswerForm:
        """How answers to conversations with tools are written, whatever the prompt."""
        template = self._templates.get("tool_use") or self._templates.get("default")
        return template.form if template else AnswerForm()

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

    async def _shown(self, name: str, variables: Mapping[str, Any], tag: str | None) -> str:
        """What a template makes of its variables; tools are to blame where it takes the rest without them."""
        try:
            return await self._pool.render(name, variables, tag)
        except TemplateRejected as rejected:
            if not variables["tools"]:
                raise
            try:
                await self._pool.render(name, {**variables, "tools": None}, tag)
            except TemplateError:
                raise rejected from None
            raise TemplateRejected(f"tools: {rejected}", "tools") from rejected

    def _choose(self, conversation: Conversation) -> tuple[str, KnownTemplate]:
        name = "tool_use" if conversation.tools and "tool_use" in self._templates else "default"
        if name not in self._templates:
            raise NoTemplate("the model has no chat template; ask with a plain prompt instead")
        return name, self._templates[name]

    def _form(self, facts: TemplateFacts, written: str) -> AnswerForm:
        form = find_form(facts.variables, written, self._vocabulary.added_tokens)
        if not form.reasons:
            return form
        close_ids = self._vocabulary.encode_pieces([(form.reasoning[1], False)])
        return replace(form, reasoning_close_ids=tuple(close_ids))

    async def _shows(self, name: str, content: Any, words: Sequence[str]) -> bool:
        text = await self._tried(name, [{"role": "user", "content": content}])
        return all(word in text for word in words) and "'type'" not in text and '"type"' not in text

    async def _shows_arguments(self, name: str) -> bool:
        """Whether arguments can be an object: most templates write it as JSON, some take nothing but text."""
        asked = {"role": "user", "content": PROBES[0]}

        def called(arguments: Any) -> list[dict[str, Any]]:
            call = {"id": "serinprob", "type": "function", "function": {"name": "probe", "arguments": arguments}}
            return [asked, {"role": "assistant", "content": "", "tool_calls": [call]}]

        if PROBES[1] in await self._tried(name, called({"probe": PROBES[1]})):
            return True
        return PROBES[1] not in await self._tried(name, called(json.dumps({"probe": PROBES[1]})))

    async def _tried(self, name: str, messages: Sequence[Mapping[str, Any]]) -> str:
        """What a template makes of messages; empty where it refuses them."""
        variables = {
            **self._special_tokens,
            "messages": messages,
            "tools": None,
            "documents": None,
            "add_generation_prompt": True,
        }
        try:
            return await self._pool.render(name, variables)
        except TemplateError:
            return ""


def _refuse_unknown(facts: TemplateFacts, conversation: Conversation) -> None:
    for name in conversation.arguments:
        if name in RESERVED_NAMES or name in SPECIAL_TOKEN_NAMES or name not in facts.variables:
            readable = sorted(facts.variables - RESERVED_NAMES - set(SPECIAL_TOKEN_NAMES))
            raise TemplateArgumentUnknown(
                f"template argument {name!r} is not accepted; the template reads: {', '.join(readable) or 'none'}", name
            )
    if conversation.tools and "tools" not in facts.variables:
        raise NotShown(
            "tools: the model's chat template cannot show tools; ask without them, or another model", "tools"
        )
    documents = conversation.arguments.get("documents")
    if documents is not None and not (isinstance(documents, list) and all(isinstance(d, dict) for d in documents)):
        raise TemplateRejected("template argument 'documents': accepted: a list of objects", "documents")


def _switched(form: AnswerForm, effort: str) -> dict[str, object]:
    variables = form.switched(effort)
    if variables is None:
        always = "always reasons, and cannot be told how much" if form.reasons else "does not reason"
        # The effort is not quoted: some APIs' callers have said it in other words.
        raise NotShown(
            f"reasoning_effort: this is not supported: this model {always}; leave it out", "reasoning_effort"
        )
    return variables


def _begun(template: KnownTemplate, name: str, text: str) -> str:
    """The beginning of a call, behind reasoning that is over before it has begun."""
    call = template.form.begun_call(str(template.control.mark(name)))
    if not template.form.for_prompt(text, None).reasoning_begun:
        return call
    return f"\n{template.form.reasoning[1]}\n\n{call}"
