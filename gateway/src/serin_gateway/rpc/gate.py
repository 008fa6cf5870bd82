"""Who has no key is refused before a message of theirs is taken in: up to 64 MiB each, of any number of strangers.

gRPC reads the message of a call before it asks the method. Knows nothing about methods.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from serin_mesh.errors import MeshError, Reason, to_status

from serin_gateway.collaborators import Collaborators
from serin_gateway.pipeline import Request
from serin_gateway.rpc.arrival import arrival_of, key_in, texts_of

_GUARDED = "/serin.inference.v1.InferenceService/"


class KeyGate(grpc.aio.ServerInterceptor):
    """Stands before the other layers of the gateway's gRPC server.

    Args:
        house: what requests work with.
    """

    def __init__(self, house: Collaborators) -> None:
        self._house = house
        self._refusing: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(self._refuse)

    async def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]]",
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """The method, or its refusal, which leaves messages unread."""
        is_guarded = handler_call_details.method.startswith(_GUARDED)
        if is_guarded and not await self._is_known(handler_call_details):
            return self._refusing
        return await continuation(handler_call_details)

    async def _is_known(self, details: grpc.HandlerCallDetails) -> bool:
        pairs: Any = details.invocation_metadata  # declared as one pair, and really pairs
        try:
            key = key_in(texts_of(pairs or ()))
            if key is not None or not self._house.catalog.current().policy.allow_anonymous:
                await self._house.authenticator.identify(key)
        except MeshError:
            return False
        return True

    async def _refuse(self, messages: AsyncIterator[bytes], context: "grpc.aio.ServicerContext[Any, Any]") -> None:
        await context.abort_with_status(to_status(await self._refusal(context)))

    async def _refusal(self, context: "grpc.aio.ServicerContext[Any, Any]") -> MeshError:
        """Why the method itself would have refused a call."""
        try:
            request = Request(self._house, arrival_of(context))
        except MeshError as refusal:
            return refusal.with_traceback(None)
        try:
            await request.authenticate(ability=None)
            raise MeshError(Reason.AUTH_UNAVAILABLE, "the key could not be checked; try again", retry_after_s="1")
        except MeshError as refusal:
            await request.settle(refusal)
            return refusal.with_traceback(None)
        except BaseException as cancelled:
            await request.settle(cancelled)
            raise
