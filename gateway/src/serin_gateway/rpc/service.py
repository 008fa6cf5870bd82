"""`serin.inference.v1.InferenceService`: the nine verbs over gRPC. Translates, and decides nothing."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import grpc
from google.protobuf.message import Message
from serin.inference.v1 import inference_pb2, inference_pb2_grpc
from serin_mesh.call import LANE_KEY
from serin_mesh.errors import MeshError, Reason

from serin_gateway import outbox
from serin_gateway.ask import refuse
from serin_gateway.collaborators import Collaborators
from serin_gateway.embedding import embed
from serin_gateway.events import Completed, Started
from serin_gateway.ignored import IGNORED_KEY, ignored_text
from serin_gateway.keys.authenticator import Caller
from serin_gateway.keys.records import Ability
from serin_gateway.pipeline import Request
from serin_gateway.routing.names import known_names
from serin_gateway.rpc.arrival import DEFAULT_TIMEOUT_S, arrival_of
from serin_gateway.rpc.asks import (
    count_ask,
    detokenize_ask,
    echo_messages,
    embedding_ask,
    event_message,
    generate_ask,
    tokenize_ask,
    usage_message,
)
from serin_gateway.rpc.models import model_descriptions
from serin_gateway.rpc.repeatable import IDEMPOTENCY_KEY, REPEATED, Asked, Method, Said, repeatable
from serin_gateway.rpc.unknown_fields import drop_unknown_fields
from serin_gateway.tokenization import detokenize, tokenize


class InferenceService(inference_pb2_grpc.InferenceServiceServicer):
    """The front door for gRPC callers.

    Args:
        house: what requests work with.
        timeout_s: longest time for one answer.
    """

    def __init__(self, house: Collaborators, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self._house = house
        self._timeout_s = timeout_s

    async def Generate(  # type: ignore[override]  # noqa: N802 - the contract's name; writes by itself, with a bound
        self, request: inference_pb2.GenerateRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> None:
        """Stream an answer."""
        async with (
            self._request(context, "generate") as work,
            aclosing(self._answers(context, work, request, GENERATE)) as answers,
        ):
            async for answer in answers:
                if answer.HasField("started"):
                    _tell_lane(context, work, answer.started.lane)
                    _tell_ignored(context, answer.started.ignored_fields)
                await _write(context, answer)

    async def CountTokens(  # noqa: N802
        self, request: inference_pb2.CountTokensRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> inference_pb2.CountTokensResponse:
        """Count the tokens of a prompt."""
        async with self._request(context, "count_tokens") as work:
            await _authenticate(context, work, request)
            count = await work.count(count_ask(request))
            _tell_ignored(context, work.receipt.ignored)
            return inference_pb2.CountTokensResponse(token_count=count)

    async def Tokenize(  # noqa: N802
        self, request: inference_pb2.TokenizeRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> inference_pb2.TokenizeResponse:
        """Tell the ids of a prompt."""
        async with self._request(context, "tokenize") as work:
            await _authenticate(context, work, request)
            found = await tokenize(
                work,
                tokenize_ask(request),
                add_special_tokens=not request.omit_special_tokens,
                want_bytes=request.want_token_bytes,
            )
            _tell_ignored(context, work.receipt.ignored)
            return inference_pb2.TokenizeResponse(
                token_ids=found.token_ids,
                context_length=found.context_length,
                token_bytes=found.token_bytes,
                lane=work.receipt.lane,
            )

    async def Detokenize(  # noqa: N802
        self, request: inference_pb2.DetokenizeRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> inference_pb2.DetokenizeResponse:
        """Tell the text of ids."""
        async with self._request(context, "detokenize") as work:
            await _authenticate(context, work, request)
            text = await detokenize(work, detokenize_ask(request))
            return inference_pb2.DetokenizeResponse(text=text, lane=work.receipt.lane)

    async def ListModels(  # noqa: N802
        self, request: inference_pb2.ListModelsRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> inference_pb2.ListModelsResponse:
        """List the models that may be asked."""
        async with self._request(context, "models.list") as work:
            caller = await _authenticate(context, work, request, Ability.MODELS)
            catalog = self._house.catalog.current()
            names, serves = known_names(catalog, caller), self._house.placement.serves
            return inference_pb2.ListModelsResponse(models=model_descriptions(catalog, names, serves))

    async def SendFeedback(  # noqa: N802
        self, request: inference_pb2.SendFeedbackRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> inference_pb2.SendFeedbackResponse:
        """Take what the caller thinks of an answer."""
        async with self._request(context, "feedback") as work:
            caller = await _authenticate(context, work, request, Ability.FEEDBACK)
            if not request.HasField("score"):
                raise refuse("score", "is missing")
            counted = await self._house.feedback.give(caller.tenant, request.request_id, request.score)
            return inference_pb2.SendFeedbackResponse(counted=counted)

    async def Embed(  # noqa: N802
        self, request: inference_pb2.EmbedRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> inference_pb2.EmbedResponse:
        """Compute a vector for each input."""
        async with (
            self._request(context, "embed") as work,
            aclosing(self._answers(context, work, request, EMBED)) as answers,
        ):
            answer = await anext(answers)
            _tell_lane(context, work, answer.lane)
            return answer

    async def _answers(
        self, context: "grpc.aio.ServicerContext[Any, Any]", work: Request, request: Asked, method: Method[Asked, Said]
    ) -> AsyncGenerator[Said, None]:
        """What a method answers; under an `idempotency-key`, what was made for the first call of it."""
        await _authenticate(context, work, request)
        key = _idempotency_key(context)
        if key is None:
            answers = method.answers(work, request)
        else:
            answers = repeatable(self._house.idempotency, work, key, request, method)
        async with aclosing(answers):
            async for answer in answers:
                yield answer

    @asynccontextmanager
    async def _request(self, context: "grpc.aio.ServicerContext[Any, Any]", operation: str) -> AsyncIterator[Request]:
        """A request that is settled in the end, however it ends."""
        work = Request(self._house, arrival_of(context, self._timeout_s))
        work.receipt.operation = operation
        _tell_ignored(context, work.arrival.ignored)
        ended_by: BaseException | None = None
        try:
            yield work
        except BaseException as error:
            ended_by = error
            raise
        finally:
            if not work.outlives_caller:
                await work.settle(ended_by)
            ended_by = None  # its traceback holds this frame, and what was asked: it must not wait for a collection


async def _write(context: "grpc.aio.ServicerContext[Any, Any]", message: Message) -> None:
    """Write one message of a stream.

    Raises:
        MeshError: CANCELLED, its reader has stopped reading.
    """
    try:
        async with asyncio.timeout(outbox.SLOW_READER_TIMEOUT_S):
            await context.write(message)
    except TimeoutError:
        raise MeshError(Reason.CANCELLED, "the client has stopped reading") from None


async def _generated(
    work: Request, request: inference_pb2.GenerateRequest
) -> AsyncGenerator[inference_pb2.GenerateResponse, None]:
    made = await work.begin(generate_ask(request))
    events = await made.take()
    receipt = work.receipt
    started = inference_pb2.GenerationStarted(
        request_id=receipt.request_id,
        model=receipt.model,
        lane=receipt.lane,
        route=receipt.route,
        ignored_fields=receipt.ignored,
    )
    yield inference_pb2.GenerateResponse(started=started)
    while True:
        for event in events:
            if isinstance(event, Completed):
                await work.settle()
            if isinstance(event, Started) and request.echo:
                for echo in echo_messages(event):
                    yield echo
            elif (message := event_message(event)) is not None:
                yield message
        if isinstance(events[-1], Completed):
            return
        events = await made.take()


async def _embedded(
    work: Request, request: inference_pb2.EmbedRequest
) -> AsyncGenerator[inference_pb2.EmbedResponse, None]:
    vectors = await embed(work, embedding_ask(request))
    await work.settle()
    yield inference_pb2.EmbedResponse(
        embeddings=[inference_pb2.Embedding(values=vector) for vector in vectors],
        usage=usage_message(work.receipt.usage),
        lane=work.receipt.lane,
    )


GENERATE = Method(b"grpc", _generated, inference_pb2.GenerateResponse.FromString)
EMBED = Method(b"grpc.embed", _embedded, inference_pb2.EmbedResponse.FromString)


def _idempotency_key(context: "grpc.aio.ServicerContext[Any, Any]") -> str | None:
    key = dict(context.invocation_metadata() or ()).get(IDEMPOTENCY_KEY)
    return key if isinstance(key, str) else None


def _tell_lane(context: "grpc.aio.ServicerContext[Any, Any]", work: Request, lane: str) -> None:
    """In the trailer, not before: an internal caller's channel would send it back, and only operators may pin one."""
    is_repeat = _idempotency_key(context) is not None and not work.outlives_caller
    _tell(context, (LANE_KEY, lane), *((REPEATED,) if is_repeat else ()))


def _tell_ignored(context: "grpc.aio.ServicerContext[Any, Any]", names: Sequence[str]) -> None:
    """What was given and had no effect, if there is any."""
    if names:
        _tell(context, (IGNORED_KEY, ignored_text(names)))


def _tell(context: "grpc.aio.ServicerContext[Any, Any]", *pairs: tuple[str, str]) -> None:
    """More for the trailer, beside what is there."""
    context.set_trailing_metadata((*(context.trailing_metadata() or ()), *pairs))


async def _authenticate(
    context: "grpc.aio.ServicerContext[Any, Any]",
    work: Request,
    request: Message,
    ability: Ability = Ability.INFERENCE,
) -> Caller:
    """Who calls; what they sent is within bounds, and every field of it is known.

    Raises:
        MeshError: as `Request.authenticate`; BODY_TOO_LARGE or PARAMETER_UNKNOWN.
    """
    caller = await work.authenticate(ability=ability)
    wire = request.SerializeToString()
    _check_size(work, len(wire))
    unknown = drop_unknown_fields(request, wire)
    if unknown and caller.unknown == "refuse":
        raise refuse(
            unknown[0],
            "this field is not known here: it is a newer version's; leave it out, or update the mesh",
            Reason.PARAMETER_UNKNOWN,
        )
    _tell_ignored(context, unknown)
    return caller


def _check_size(work: Request, num_bytes: int) -> None:
    """What the mesh's policy allows the body of a request holds for a message too."""
    most = work.max_body_bytes
    if num_bytes > most:
        raise MeshError(
            Reason.BODY_TOO_LARGE,
            f"the request has {num_bytes} bytes; accepted: at most {most}",
            byte_count=str(num_bytes),
            max_byte_count=str(most),
        )
