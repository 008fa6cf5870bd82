"""The tokenizer service over gRPC (`serin.tokenizer.v1`), its unary calls. Knows nothing about growing sequences."""

import asyncio
import time
from collections.abc import Sequence

from serin.generation.v1 import tokens_pb2
from serin.tokenizer.v1 import tokenizer_pb2, tokenizer_pb2_grpc
from serin_mesh.errors import MeshError, Reason

from serin_gateway.conversation import Conversation
from serin_gateway.grammar import Grammar
from serin_gateway.tokenizer import CallScope, Rendered
from serin_gateway.upstream.begun_route import BegunRoute
from serin_gateway.upstream.pulses import Pulses
from serin_gateway.upstream.replicas import Replicas, timeout_s
from serin_gateway.upstream.targets import Channels, call_metadata, caller_metadata
from serin_gateway.upstream.tool_wire import from_answer_format, to_message, to_tool, to_tool_choice
from serin_gateway.upstream.wire import from_segments, to_grammar

LOOK_AGAIN_S = 0.5

RESTART_PATIENCE_S = 20.0
"""An answer that has begun waits so long for a tokenizer of its vocabulary: a restart takes about 15 s."""
MAX_SPELLED = 300_000
"""Token spellings kept over all vocabularies; more, and they are forgotten and asked again."""
MAX_RUNS = 4096
"""Sequences of one call of `Decode`, as its contract says."""
MAX_VOCABULARIES = 256
"""Vocabularies whose sizes are kept."""


class GrpcTokenizer:
    """Calls the tokenizers of a lane.

    Args:
        channels: how they are reached.
        pulses: their signs of life.
    """

    def __init__(self, channels: Channels, pulses: Pulses) -> None:
        self._channels = channels
        self._replicas = Replicas(pulses)
        self._spelled: dict[tuple[str, bool, int], bytes] = {}
        self._sizes: dict[str, int] = {}

    def expect(self, scope: CallScope) -> None:
        """Refuse where all tokenizers of the lane have fallen silent."""
        self._replicas.expect(scope)

    async def render(self, scope: CallScope, conversation: Conversation, *, constrain_calls: bool = False) -> Rendered:
        """The prompt of a conversation, and how the answer to it is written."""
        request = tokenizer_pb2.RenderRequest(
            messages=[to_message(message) for message in conversation.messages],
            tools=[to_tool(tool) for tool in conversation.shown_tools],
            tool_choice=to_tool_choice(conversation.tool_choice),
            reasoning_effort=conversation.effort,
            omit_generation_prompt=conversation.continues or not conversation.begins_answer,
            continue_final_message=conversation.continues,
            max_token_count=_max_prompt(scope),
            constrain_calls=constrain_calls,
        )
        response = await self._replicas.ask(
            scope,
            lambda: self._stub(scope).Render(request, timeout=timeout_s(scope), metadata=call_metadata(scope)),
        )
        _check_vocabulary(scope, response.vocabulary_digest)
        form = from_answer_format(response.answer_format)
        unshown = [f"messages[{at}].name" for at in response.unshown_names]
        return Rendered(from_segments(response.segments), form, response.grammar.text, unshown)

    async def encode(self, scope: CallScope, text: str, *, add_special_tokens: bool = True) -> Sequence[int]:
        """The ids of a text."""
        return (await self._encode(scope, [text], _max_prompt(scope), add_special_tokens))[0]

    async def encode_each(self, scope: CallScope, texts: Sequence[str]) -> Sequence[Sequence[int]]:
        """The ids of each text."""
        return await self._encode(scope, texts, scope.lane.context_length)

    async def _encode(
        self, scope: CallScope, texts: Sequence[str], max_tokens: int, add_special_tokens: bool = True
    ) -> list[list[int]]:
        request = tokenizer_pb2.EncodeRequest(
            texts=texts, omit_special_tokens=not add_special_tokens, max_token_count=max_tokens
        )
        response = await self._replicas.ask(
            scope,
            lambda: self._stub(scope).Encode(request, timeout=timeout_s(scope), metadata=call_metadata(scope)),
        )
        _check_vocabulary(scope, response.vocabulary_digest)
        return [list(run.token_ids) for run in response.runs]

    async def decode(self, scope: CallScope, token_ids: Sequence[int], *, keep_special_tokens: bool = False) -> str:
        """The text of ids."""
        route = BegunRoute(scope.lane)
        response = await self._decode(scope, [token_ids], route, keep_special_tokens=keep_special_tokens)
        return response.texts[0]

    async def prepare_grammar(self, scope: CallScope, grammar: Grammar) -> str:
        """A grammar in the workers' language."""
        request = tokenizer_pb2.PrepareGrammarRequest(grammar=to_grammar(grammar), max_token_count=_max_prompt(scope))
        response = await self._replicas.ask(
            scope,
            lambda: self._stub(scope).PrepareGrammar(request, timeout=timeout_s(scope), metadata=call_metadata(scope)),
        )
        return response.grammar.text

    async def token_bytes(
        self, scope: CallScope, token_ids: Sequence[int], *, keep_special_tokens: bool = True
    ) -> Sequence[bytes]:
        """The bytes of each id by itself; each is asked once for a vocabulary."""
        kind, spelled = (scope.lane.vocabulary_digest, keep_special_tokens), self._spelled
        wanted = set(token_ids)
        # Taken out at once: while the others are asked for, another call may have all of them forgotten.
        found = {token_id: spelled[*kind, token_id] for token_id in wanted if (*kind, token_id) in spelled}
        missing = [token_id for token_id in wanted if token_id not in found]
        for start in range(0, len(missing), MAX_RUNS):
            part = missing[start : start + MAX_RUNS]
            response = await self._patiently(scope, [[token_id] for token_id in part], keep_special_tokens)
            found.update(zip(part, response.raw, strict=True))
            if len(spelled) + len(part) > MAX_SPELLED:
                spelled.clear()
            spelled.update(((*kind, token_id), found[token_id]) for token_id in part)
        return [found[token_id] for token_id in token_ids]

    async def vocabulary_size(self, scope: CallScope) -> int:
        """Number of ids; asked once for a vocabulary."""
        vocabulary, sizes = scope.lane.vocabulary_digest, self._sizes
        if vocabulary not in sizes:
            request = tokenizer_pb2.DescribeTokenizerRequest()
            response = await self._replicas.ask(
                scope,
                lambda: self._stub(scope).DescribeTokenizer(
                    request, timeout=timeout_s(scope), metadata=call_metadata(scope)
                ),
            )
            _check_vocabulary(scope, response.vocabulary_digest)
            if len(sizes) >= MAX_VOCABULARIES:
                sizes.clear()
            sizes[vocabulary] = response.vocabulary_size
            return response.vocabulary_size
        return sizes[vocabulary]

    async def _patiently(
        self, scope: CallScope, runs: Sequence[Sequence[int]], keep_special_tokens: bool
    ) -> tokenizer_pb2.DecodeResponse:
        """Decode for an answer that has begun: it is worth waiting for a tokenizer's restart."""
        give_up_at, route = time.monotonic() + RESTART_PATIENCE_S, BegunRoute(scope.lane)
        while True:
            try:
                return await self._decode(scope, runs, route, keep_special_tokens=keep_special_tokens)
            except MeshError as error:
                if not route.failed(error):
                    raise
                if time.monotonic() > give_up_at:
                    raise tokenizer_lost(scope) from error
                await asyncio.sleep(LOOK_AGAIN_S)

    async def _decode(
        self, scope: CallScope, runs: Sequence[Sequence[int]], route: BegunRoute, *, keep_special_tokens: bool
    ) -> tokenizer_pb2.DecodeResponse:
        request = tokenizer_pb2.DecodeRequest(
            runs=[tokens_pb2.TokenRun(token_ids=run) for run in runs],
            vocabulary_digest=scope.lane.vocabulary_digest,
            keep_special_tokens=keep_special_tokens,
        )
        return await self._replicas.ask(
            scope,
            lambda: self._stub(scope).Decode(
                request, timeout=timeout_s(scope), metadata=(*route.metadata, *caller_metadata(scope))
            ),
        )

    def _stub(self, scope: CallScope) -> "tokenizer_pb2_grpc.TokenizerServiceAsyncStub":
        return self._channels.stub(tokenizer_pb2_grpc.TokenizerServiceStub, "tokenizer", scope.model)


def tokenizer_lost(scope: CallScope) -> MeshError:
    """A begun answer's text cannot go on: the worker is not to blame."""
    return MeshError(
        Reason.UPSTREAM_UNAVAILABLE,
        f"tokenizer.{scope.model} is gone and none of the answer's vocabulary came within {RESTART_PATIENCE_S:g} s; "
        "ask again",
        service="tokenizer",
    )


def _max_prompt(scope: CallScope) -> int:
    """Ids that leave room for one more in the lane's context, where more follow: no vector needs that."""
    return max(1, scope.lane.context_length - (0 if scope.lane.num_dimensions else 1))


def _check_vocabulary(scope: CallScope, digest: str) -> None:
    if digest != scope.lane.vocabulary_digest:
        raise MeshError(
            Reason.VOCABULARY_MISMATCH,
            f"the tokenizer of lane {scope.lane.lane} has vocabulary {digest}, the lane {scope.lane.vocabulary_digest}",
        )
