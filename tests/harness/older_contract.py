"""A contract as it was once, and a proxy that knows no other: whoever is reached through it meets an older version.

Every message is read and written anew by the older contract, and what was not in it is left out, in both directions; a
method that it lacks is not implemented. So of two services of today, each takes the other for one of then. Methods that
are not ours (health, xDS, load reports) pass as they are.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

OURS = "/serin."
Edit = Callable[[Message], None]


class OlderContract:
    """The contract in a file that `buf build --as-file-descriptor-set` wrote.

    ``left_out`` counts the messages that lost something, by the name of their method; ``ended`` how calls ended.
    """

    def __init__(self, file: Path) -> None:
        pool, whole = descriptor_pool.DescriptorPool(), descriptor_pb2.FileDescriptorSet()
        whole.ParseFromString(file.read_bytes())
        for one in whole.file:
            pool.Add(one)
        self._methods = {
            f"/{service.full_name}/{method.name}": method
            for one in whole.file
            for service in pool.FindFileByName(one.name).services_by_name.values()
            for method in service.methods
        }
        self.left_out: Counter[str] = Counter()
        self.ended: Counter[tuple[str, grpc.StatusCode]] = Counter()

    def knows(self, method: str) -> bool:
        """Whether it has a method, or the method is not ours."""
        return not method.startswith(OURS) or method in self._methods

    def request(self, method: str, data: bytes) -> bytes:
        """What is left of a request."""
        return self._older(method, data, "input_type", None)

    def response(self, method: str, data: bytes, edit: Edit | None) -> bytes:
        """What is left of a response; ``edit`` changes it."""
        return self._older(method, data, "output_type", edit)

    def _older(self, method: str, data: bytes, side: str, edit: Edit | None) -> bytes:
        if not method.startswith(OURS):
            return data
        message = message_factory.GetMessageClass(getattr(self._methods[method], side)).FromString(data)
        message.DiscardUnknownFields()
        left = message.SerializeToString()
        if len(left) < len(data):
            self.left_out[method.rpartition("/")[2]] += 1
        if edit is None:
            return left
        edit(message)
        return message.SerializeToString()


class _Proxy(grpc.GenericRpcHandler):
    def __init__(self, contract: OlderContract, channel: grpc.aio.Channel, edit: Edit | None) -> None:
        self._contract, self._channel, self._edit = contract, channel, edit

    def service(self, handler_call_details: Any) -> grpc.RpcMethodHandler | None:
        """A call of any kind, as messages in both directions."""
        method = handler_call_details.method
        if not self._contract.knows(method):
            return None

        async def pass_on(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            async def older() -> AsyncIterator[bytes]:
                async for request in requests:
                    yield self._contract.request(method, request)

            call = self._channel.stream_stream(method)(
                older(), timeout=context.time_remaining(), metadata=_theirs(context.invocation_metadata())
            )
            try:
                await context.send_initial_metadata(_theirs(await call.initial_metadata()))
                async for response in call:
                    yield self._contract.response(method, response, self._edit)
                context.set_trailing_metadata(_theirs(await call.trailing_metadata()))
                self._contract.ended[method.rpartition("/")[2], grpc.StatusCode.OK] += 1
            except grpc.aio.AioRpcError as error:
                self._contract.ended[method.rpartition("/")[2], error.code()] += 1
                await context.abort(error.code(), error.details() or "", _theirs(error.trailing_metadata()))
            finally:
                call.cancel()

        return grpc.stream_stream_rpc_method_handler(pass_on)


@asynccontextmanager
async def through(contract: OlderContract, address: str, edit: Edit | None = None) -> AsyncIterator[str]:
    """An address at which whoever is at ``address`` is reached through an older contract."""
    async with grpc.aio.insecure_channel(address) as channel:
        server = grpc.aio.server(handlers=[_Proxy(contract, channel, edit)])
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            await server.stop(None)


def _theirs(metadata: Iterable[tuple[str, str | bytes]] | None) -> tuple[tuple[str, str | bytes], ...]:
    """Metadata without what gRPC itself adds."""
    return tuple((key, value) for key, value in metadata or () if key != "user-agent" and not key.startswith("grpc-a"))
