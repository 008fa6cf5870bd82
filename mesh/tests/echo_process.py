"""A whole service as a process, for tests: echoes bytes, or holds a stream until SIGUSR1."""

import asyncio
import signal
from typing import Any

import grpc
from pydantic import Field
from serin_mesh.readiness import Readiness
from serin_mesh.server import run_main, serve
from serin_mesh.settings import ServiceSettings, load_settings


class EchoSettings(ServiceSettings):
    """Settings of the service."""

    startup_fails: bool = Field(False, description="fail while starting")
    startup_hangs: bool = Field(False, description="never become ready")


def main(argv: list[str] | None = None) -> int:
    """Run the process."""
    settings = load_settings(EchoSettings, argv, "serin-echo")
    return run_main("serin-echo", run(settings))


async def run(settings: EchoSettings) -> None:
    """Serve until asked to stop."""
    readiness = Readiness()
    go = asyncio.Event()

    async def unary(request: bytes, context: Any) -> bytes:
        return request

    async def stream(request: bytes, context: Any) -> Any:
        yield b"before"
        await go.wait()
        yield b"after"

    def register(server: grpc.aio.Server) -> None:
        methods = {
            "Unary": grpc.unary_unary_rpc_method_handler(unary),
            "Stream": grpc.unary_stream_rpc_method_handler(stream),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("serin.test.v1.EchoService", methods),))

    async def startup() -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, go.set)
        if settings.startup_fails:
            raise FileNotFoundError(2, "No such file or directory", "weights.safetensors")
        if settings.startup_hangs:
            await asyncio.Event().wait()
        readiness.ready()

    await serve(settings, "worker", register, readiness=readiness, startup=startup)


if __name__ == "__main__":
    raise SystemExit(main())
