"""TokenizerService over gRPC: protobuf in and out, the room's own types between.

Knows the contract and who does the work; does none itself.
"""
# ruff: noqa: N802 - methods are named by the contract

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import grpc
from prometheus_client import CollectorRegistry
from serin.generation.v1 import sampling_pb2, tokens_pb2
from serin.tokenizer.v1 import tokenizer_pb2, tokenizer_pb2_grpc
from serin_mesh import logs
from serin_mesh.errors import MeshError, Reason
from serin_mesh.load import LoadReport

from serin_tokenizer_svc.call_grammar import call_grammar
from serin_tokenizer_svc.errors import (
    EncodeBusy,
    GrammarBusy,
    GrammarLimit,
    GrammarRejected,
    GrammarsUnsupported,
    InputRefused,
    NoTemplate,
    NotShown,
    PromptTooLong,
    RenderBusy,
    TemplateArgumentUnknown,
    TemplateLimit,
    TemplateRejected,
    TokenizerError,
)
from serin_tokenizer_svc.grammar import GrammarSource
from serin_tokenizer_svc.metrics import CallTimes
from serin_tokenizer_svc.outbox import Outbox
from serin_tokenizer_svc.sequences import Sequences
from serin_tokenizer_svc.tally import Tally
from serin_tokenizer_svc.tokenizer import Tokenizer
from serin_tokenizer_svc.wire import (
    read_conversation,
    read_grammar,
    read_opening,
    write_form,
    write_grammar,
    write_news,
)

MAX_TEXTS = 2048
MAX_RUNS = 4096
REASONS: dict[type[TokenizerError], Reason] = {
    NoTemplate: Reason.TEMPLATE_REJECTED,
    TemplateRejected: Reason.TEMPLATE_REJECTED,
    TemplateLimit: Reason.TEMPLATE_LIMIT,
    GrammarRejected: Reason.GRAMMAR_INVALID,
    GrammarLimit: Reason.GRAMMAR_LIMIT,
    GrammarsUnsupported: Reason.PARAMETER_UNSUPPORTED,
    GrammarBusy: Reason.QUEUE_FULL,
    RenderBusy: Reason.QUEUE_FULL,
    EncodeBusy: Reason.QUEUE_FULL,
}
"""Reasons of the room's errors that carry nothing but a sentence."""


class TokenizerService(tokenizer_pb2_grpc.TokenizerServiceServicer):
    """One tokenizer version as a service; it listens before its tokenizer is there."""

    def __init__(self, tokenizer: Tokenizer | None = None, times: CallTimes | None = None) -> None:
        self.tally = Tally()
        self._attached = tokenizer
        self._times = times or CallTimes(CollectorRegistry())
        self._streams: set[Sequences] = set()
        self._draining = False

    def attach(self, tokenizer: Tokenizer, times: CallTimes) -> None:
        """Answer with this tokenizer from now on."""
        self._attached, self._times = tokenizer, times

    def load(self) -> LoadReport:
        """Its detokenizing streams. What counts for callers is that a report comes: this process still moves."""
        return LoadReport(named={"streams": len(self._streams)})

    def drain(self) -> None:
        """Refuse new sequences and end each detokenizing stream once its open sequences are closed."""
        self._draining = True
        for sequences in self._streams:
            sequences.drain()

    async def Render(
        self,
        request: tokenizer_pb2.RenderRequest,
        context: grpc.aio.ServicerContext[tokenizer_pb2.RenderRequest, tokenizer_pb2.RenderResponse],
    ) -> tokenizer_pb2.RenderResponse:
        """Render a conversation and encode it."""
        tokenizer = self._tokenizer
        with _translated():
            conversation = read_conversation(request)
            with self._times.render.time():
                rendered = await tokenizer.chat.render(conversation)
            with self._times.encode.time():
                ids = await tokenizer.chat.encode(rendered, request.max_token_count)
            self.tally.num_encoded += len(ids)
            _refuse_long(ids, request.max_token_count, "messages")
            unshown_names = await tokenizer.chat.unshown_names(conversation, rendered)
        form = tokenizer.chat.answer_form(conversation, rendered)
        calls = call_grammar(conversation, form) if request.constrain_calls else None
        segment = tokens_pb2.Segment(tokens=tokens_pb2.TokenRun(token_ids=ids))
        return tokenizer_pb2.RenderResponse(
            segments=[segment],
            token_count=len(ids),
            vocabulary_digest=tokenizer.identity.vocabulary_digest,
            answer_format=write_form(form),
            grammar=None if calls is None else await self._prepared(calls, "tools", request.max_token_count),
            unshown_names=unshown_names,
        )

    async def Encode(
        self,
        request: tokenizer_pb2.EncodeRequest,
        context: grpc.aio.ServicerContext[tokenizer_pb2.EncodeRequest, tokenizer_pb2.EncodeResponse],
    ) -> tokenizer_pb2.EncodeResponse:
        """Encode plain texts."""
        with _translated():
            if not 1 <= len(request.texts) <= MAX_TEXTS:
                raise InputRefused(f"texts: {len(request.texts)} of them: accepted: 1 to {MAX_TEXTS}", "texts")
            for index, text in enumerate(request.texts):
                self._tokenizer.vocabulary.refuse_hopeless([text], request.max_token_count, f"texts[{index}]")
            with self._times.encode.time():
                runs = await self._tokenizer.queue.encode(list(request.texts), not request.omit_special_tokens)
            self.tally.num_encoded += sum(map(len, runs))
            for index, ids in enumerate(runs):
                _refuse_long(ids, request.max_token_count, f"texts[{index}]")
        return tokenizer_pb2.EncodeResponse(
            runs=[tokens_pb2.TokenRun(token_ids=ids) for ids in runs],
            vocabulary_digest=self._tokenizer.identity.vocabulary_digest,
        )

    async def Decode(
        self,
        request: tokenizer_pb2.DecodeRequest,
        context: grpc.aio.ServicerContext[tokenizer_pb2.DecodeRequest, tokenizer_pb2.DecodeResponse],
    ) -> tokenizer_pb2.DecodeResponse:
        """Decode whole id sequences."""
        self._refuse_other_vocabulary(request.vocabulary_digest)
        with _translated():
            if not 1 <= len(request.runs) <= MAX_RUNS:
                raise InputRefused(f"runs: {len(request.runs)} of them: accepted: 1 to {MAX_RUNS}", "runs")
        vocabulary, keep = self._tokenizer.vocabulary, request.keep_special_tokens
        decoded = await asyncio.to_thread(lambda: [vocabulary.decode(run.token_ids, keep) for run in request.runs])
        return tokenizer_pb2.DecodeResponse(texts=[text for text, _ in decoded], raw=[raw for _, raw in decoded])

    async def Detokenize(
        self,
        request_iterator: AsyncIterator[tokenizer_pb2.DetokenizeRequest],
        context: grpc.aio.ServicerContext[tokenizer_pb2.DetokenizeRequest, tokenizer_pb2.DetokenizeResponse],
    ) -> AsyncIterator[tokenizer_pb2.DetokenizeResponse]:
        """Turn growing id sequences into text; news of a sequence melt together while the caller is slow."""
        outbox = Outbox()
        sequences = Sequences(
            self._tokenizer.vocabulary, self._tokenizer.identity.vocabulary_digest, outbox, self.tally, _report
        )
        self._streams.add(sequences)
        self.tally.num_streams += 1
        if self._draining:
            sequences.drain()
        reader = asyncio.create_task(_feed(request_iterator, sequences, outbox))
        try:
            while taken := await outbox.take():
                for serial, news in taken:
                    sequences.acknowledge(serial, news.watermark)
                yield tokenizer_pb2.DetokenizeResponse(news=[write_news(news) for _, news in taken])
            if reader.done():
                reader.result()  # raises what ended it
        finally:
            self._streams.discard(sequences)
            self.tally.num_streams -= 1
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def PrepareGrammar(
        self,
        request: tokenizer_pb2.PrepareGrammarRequest,
        context: grpc.aio.ServicerContext[tokenizer_pb2.PrepareGrammarRequest, tokenizer_pb2.PrepareGrammarResponse],
    ) -> tokenizer_pb2.PrepareGrammarResponse:
        """Check a grammar and bring it into the worker's language."""
        with _translated():
            source = read_grammar(request.grammar)
        return tokenizer_pb2.PrepareGrammarResponse(
            grammar=await self._prepared(source, "grammar", request.max_token_count)
        )

    async def DescribeTokenizer(
        self,
        request: tokenizer_pb2.DescribeTokenizerRequest,
        context: grpc.aio.ServicerContext[
            tokenizer_pb2.DescribeTokenizerRequest, tokenizer_pb2.DescribeTokenizerResponse
        ],
    ) -> tokenizer_pb2.DescribeTokenizerResponse:
        """Say what this tokenizer is."""
        identity, vocabulary = self._tokenizer.identity, self._tokenizer.vocabulary
        return tokenizer_pb2.DescribeTokenizerResponse(
            model=identity.model,
            version=identity.version,
            vocabulary_digest=identity.vocabulary_digest,
            tokenizer_digest=identity.tokenizer_digest,
            vocabulary_size=vocabulary.size,
            end_token_ids=vocabulary.end_token_ids,
            has_chat_template=identity.has_chat_template,
            answer_format=write_form(self._tokenizer.chat.form),
        )

    async def _prepared(self, source: GrammarSource, parameter: str, max_tokens: int) -> sampling_pb2.Grammar:
        """A grammar for workers, of which a text has room in so many tokens (0: any); ``parameter`` holds it."""
        with _translated(parameter), self._times.grammar.time():
            return write_grammar(await self._tokenizer.grammars.prepare(source, max_tokens))

    @property
    def _tokenizer(self) -> Tokenizer:
        if self._attached is None:
            raise MeshError(Reason.NOT_READY, "the tokenizer is being read; try again", retry_after_s="1")
        return self._attached

    def _refuse_other_vocabulary(self, digest: str) -> None:
        mine = self._tokenizer.identity.vocabulary_digest
        if digest != mine:
            raise MeshError(
                Reason.VOCABULARY_MISMATCH,
                f"the ids are of vocabulary {digest or '(none)'}; this tokenizer's is {mine}",
                vocabulary=mine,
            )


def _report(error: Exception) -> None:
    logs.get().error("tokenizer.decode_failed", exc_info=error)


async def _feed(requests: AsyncIterator[tokenizer_pb2.DetokenizeRequest], sequences: Sequences, outbox: Outbox) -> None:
    try:
        async for request in requests:
            for frame in request.frames:
                await _obey(frame, sequences)
    finally:
        outbox.end()


async def _obey(frame: tokenizer_pb2.SequenceFrame, sequences: Sequences) -> None:
    match frame.WhichOneof("frame"):
        case "append":
            await sequences.append(frame.sequence_id, frame.append.token_ids)
        case "open":
            await sequences.open(frame.sequence_id, read_opening(frame.open))
        case "close":
            await sequences.close(frame.sequence_id)
        case _:
            raise MeshError(Reason.PARAMETER_INVALID, "frame: none of open, append, close", parameter="frame")


def _refuse_long(ids: list[int], max_tokens: int, parameter: str) -> None:
    if max_tokens and len(ids) > max_tokens:
        raise PromptTooLong(len(ids), max_tokens, parameter)


@contextlib.contextmanager
def _translated(parameter: str = "") -> Iterator[None]:
    """The room's errors as the mesh's; ``parameter`` is to blame where an error names none."""
    try:
        yield
    except PromptTooLong as error:
        counts = {"token_count": str(error.num_tokens), "max_token_count": str(error.max_tokens)}
        if error.at_least:
            counts["at_least"] = "true"
        raise MeshError(Reason.PROMPT_TOO_LONG, str(error), parameter=error.parameter, **counts) from error
    except NotShown as error:
        raise MeshError(Reason.PARAMETER_UNSUPPORTED, str(error), parameter=error.parameter) from error
    except InputRefused as error:
        raise MeshError(Reason.PARAMETER_INVALID, str(error), parameter=error.parameter) from error
    except TemplateArgumentUnknown as error:
        raise MeshError(Reason.TEMPLATE_ARGUMENT_UNKNOWN, str(error), parameter=error.parameter) from error
    except TokenizerError as error:
        parameter = error.parameter or parameter
        facts = {"parameter": parameter} if parameter else {}
        raise MeshError(REASONS[type(error)], str(error), **facts) from error
