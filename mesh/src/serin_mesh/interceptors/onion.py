"""Builds the layers around the handlers of a server, once for each method.

Knows what a handler is, and nothing about what any layer does.
"""

import inspect
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from serin_mesh.errors import MeshError, Reason, to_status
from serin_mesh.interceptors.rpc import Rpc

Handle = Callable[[Rpc], Awaitable[Any]]
"""Serves a whole call: returns the response, or has written all responses of a stream."""

Layer = Callable[[Handle], Handle]
"""Wraps one way to serve a call into another."""

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class Onion(grpc.aio.ServerInterceptor):
    """Wraps every method of a server into the same layers, outermost first."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._layers = tuple(layers)
        self._wrapped: dict[str, Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], "Awaitable[Handler | None]"],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """The wrapped handler of a method; of those that nobody serves a refusal, which leaves messages unread."""
        method = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            handler = await continuation(handler_call_details)
            if handler is None:  # not kept: strangers may make up any number of names
                return _NOBODY
            wrapped = self._wrapped[method] = self._wrap(method, handler)
        return wrapped

    def around(self, handle: Handle) -> Handle:
        """The layers around another way to serve calls."""
        for layer in reversed(self._layers):
            handle = layer(handle)
        return handle

    def _wrap(self, method: str, handler: Handler) -> Handler:
        handle = self.around(_innermost(handler))

        async def serve(request: Any, context: "grpc.aio.ServicerContext[Any, Any]") -> Any:
            _serving.set(self)
            rpc = Rpc.arrived(method, request, context)
            del request  # it is the call's now, which lets it go when it has failed
            return await handle(rpc)

        make = _MAKERS[bool(handler.request_streaming), bool(handler.response_streaming)]
        read = handler.request_deserializer
        if read is not None and not handler.request_streaming:
            read = _forgiving(read)
        return make(serve, read, handler.response_serializer)


async def _refuse(messages: Any, context: "grpc.aio.ServicerContext[Any, Any]") -> None:
    """What gRPC itself would say, with our ErrorInfo. It passes no layer: these count and name methods that exist."""
    error = MeshError(Reason.NOT_IMPLEMENTED, "nothing here serves this method; check its package, service and name")
    await context.abort_with_status(to_status(error))


_NOBODY: Handler = grpc.stream_stream_rpc_method_handler(_refuse)


_serving: ContextVar[Onion] = ContextVar("serin_onion")


def serving_onion() -> Onion:
    """The layers that the call being served has passed; none outside of served calls."""
    return _serving.get(Onion(()))


class _Unreadable:
    """Stands for a message that is none, until the layers have been passed: gRPC would call it a crash of ours."""


def _forgiving(read: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def forgiving(data: bytes) -> Any:
        try:
            return read(data)
        except DecodeError:
            return _Unreadable()

    return forgiving


def _request(rpc: Rpc) -> Any:
    if isinstance(rpc.request, _Unreadable):
        raise MeshError(Reason.MALFORMED_BODY, f"what was sent is no message of {rpc.method[1:]}")
    return rpc.request


def _innermost(handler: Handler) -> Handle:
    function: Any = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    if not handler.response_streaming:

        async def answer(rpc: Rpc) -> Any:
            return await function(_request(rpc), rpc.context)

        return answer

    async def stream(rpc: Rpc) -> None:
        responses = function(_request(rpc), rpc.context)
        if inspect.isawaitable(responses):
            await responses  # it writes by itself
            return
        write = rpc.context.write
        async with aclosing(responses):
            async for response in responses:
                await write(response)

    return stream


_MAKERS: dict[tuple[bool, bool], Callable[..., Handler]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}
