"""Echo services that announce two versions of a model: a tokenizer and a worker each. Run as a process.

python tests/bench/control_services.py CONTROL
"""

import asyncio
import signal
import sys
from contextlib import AsyncExitStack

import grpc
from serin.control.v1 import registry_pb2
from serin_mesh.announce import Announcement
from serin_mesh.host import ServiceHost
from serin_mesh.readiness import Readiness
from serin_mesh.settings import ServiceSettings


async def main(control: str) -> None:
    """Serve until told to stop."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with AsyncExitStack() as stack:
        for version in (1, 2):
            for service in ("tokenizer", "worker"):
                await stack.enter_async_context(_service(control, service, version))
        await stop.wait()


def _service(control: str, service: str, version: int) -> ServiceHost:
    name = f"{service[0]}{version}"
    readiness = Readiness()

    async def say(request: bytes, context: object) -> bytes:
        return name.encode()

    methods = {"Say": grpc.unary_unary_rpc_method_handler(say)}

    def register(server: grpc.aio.Server) -> None:
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("echo.Echo", methods),))

    digests = registry_pb2.Digests(artifact=f"{service.encode().hex()}0{version}", vocabulary="aa" * 16)
    if service == "worker":
        digests.kv = f"cc0{version}"
    readiness.ready(
        digests=digests, capacity=registry_pb2.Capacity(sequence_count=8, block_size=16, context_length=512)
    )
    settings = ServiceSettings(
        control=control, instance=name, version=f"v{version}", log_level="warning", drain_grace_s=1, drain_notice_s=0
    )
    return ServiceHost(
        settings, service, register, readiness=readiness, announce=Announcement(model="small"), metrics_http=False
    )


asyncio.run(main(sys.argv[1]))
