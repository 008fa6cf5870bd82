"""A control plane, echo services that announce themselves to it, and callers in processes of their own."""

import asyncio
import json
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
from control_builders import ready
from serin.control.v1 import registry_pb2
from serin_control.assembly import Control
from serin_control.declared import InitialFile
from serin_control.instance import Service, Status
from serin_mesh.announce import Announcement
from serin_mesh.errors import MeshError, Reason
from serin_mesh.host import ServiceHost
from serin_mesh.load import LoadReport
from serin_mesh.readiness import Readiness
from serin_mesh.settings import ServiceSettings
from serin_mesh.testing import running

CLIENT = Path(__file__).with_name("control_xds_client.py")


@asynccontextmanager
async def controlled(yaml: str, store=None, *, port: int = 0, tls_dir: Path | None = None, **options):
    """A control plane in this process; yields it and its address."""
    control = Control(store, initial=InitialFile("serin.yaml", yaml) if yaml else None, **options)
    await control.start()
    settings = ServiceSettings(port=port, instance="control", tls_dir=tls_dir, drain_grace_s=1, drain_notice_s=0)
    async with running(control.register, "control", settings=settings) as server:
        loop = asyncio.create_task(control.run())
        try:
            yield control, server.address
        finally:
            loop.cancel()
            await asyncio.gather(loop, return_exceptions=True)
            await control.save()


@asynccontextmanager
async def echo(
    control: str,
    name: str,
    service: Service = Service.WORKER,
    version: str = "v1",
    *,
    model: str = "small",
    status: Status | None = None,
    http_endpoint: str = "",
    load: LoadReport | None = None,
    fails: bool = False,
    holding: "Arrivals | None" = None,
    drain_notice_s: float = 0,
):
    """A service that answers with its name, announced as ready; yields its host.

    ``fails``: it answers with an error instead. ``holding`` counts calls that it leaves open.
    """
    artifact = f"{'7a' if service is Service.TOKENIZER else '3a'}{version.encode().hex()}"
    said = status or ready(service, artifact)
    readiness = Readiness()
    settings = ServiceSettings(
        control=control, instance=name, version=version, drain_grace_s=1, drain_notice_s=drain_notice_s
    )
    announcement = Announcement(
        model="" if service in (Service.CACHE, Service.GATEWAY) else model, http_endpoint=http_endpoint
    )

    async def say(request, context):
        if fails:
            raise MeshError(Reason.INTERNAL, "as told")
        return name.encode()

    async def hold(request, context):
        if holding is not None:
            holding.arrive()
        await asyncio.Event().wait()

    handlers = {"Say": say, "Hold": hold}
    methods = {method: grpc.unary_unary_rpc_method_handler(handler) for method, handler in handlers.items()}

    def register(server):
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("echo.Echo", methods),))

    async with ServiceHost(
        settings,
        str(service),
        register,
        readiness=readiness,
        announce=announcement,
        load=(lambda: load) if load else None,
        metrics_http=False,
    ) as host:
        readiness.ready(
            digests=registry_pb2.Digests(
                artifact=said.digests.artifact, vocabulary=said.digests.vocabulary, kv=said.digests.kv
            ),
            capacity=registry_pb2.Capacity(
                sequence_count=said.capacity.num_sequences,
                block_size=said.capacity.block_size,
                context_length=said.capacity.context_length,
            ),
        )
        yield host


class Arrivals:
    """Counts, and tells when there are enough."""

    def __init__(self) -> None:
        self._num = 0
        self._news = asyncio.Event()

    def arrive(self) -> None:
        """One more."""
        self._num += 1
        self._news.set()

    async def until(self, number: int) -> None:
        """Wait until so many arrived."""
        while self._num < number:
            self._news.clear()
            await self._news.wait()


class Caller:
    """A caller in a process of its own, asked a line at a time."""

    def __init__(self, process: asyncio.subprocess.Process, control: str) -> None:
        self._process = process
        self.control = control

    async def call(self, target: str, calls: int = 1, **metadata: str) -> dict[str, int]:
        """Call so often; how often each answered, and errors by reason."""
        return (await self.ask(target, calls, **metadata))["counts"]

    async def ask(self, target: str, calls: int = 1, **metadata: str) -> dict:
        """As :meth:`call`, with the messages of errors."""
        return await self._tell({"target": target, "calls": calls, "metadata": _pairs(metadata)})

    async def converse(self, target: str, then: str, calls: int) -> dict[str, int]:
        """Two calls in each conversation, the second on the lane of the first; how often each answered the second."""
        return (await self._tell({"target": target, "then": then, "calls": calls}))["counts"]

    async def hold(self, target: str, calls: int, **metadata: str) -> None:
        """Begin calls that stay open."""
        await self._tell({"hold": True, "target": target, "calls": calls, "metadata": _pairs(metadata)})

    async def cancel(self) -> dict[str, int]:
        """Cancel them; how each ended."""
        return (await self._tell({"cancel": True}))["counts"]

    async def _tell(self, request: dict) -> dict:
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        line = await self._process.stdout.readline()
        assert line, "the caller's process ended"
        return json.loads(line)


def _pairs(metadata: dict[str, str]) -> list[tuple[str, str]]:
    return [(key.replace("_", "-"), value) for key, value in metadata.items()]


@asynccontextmanager
async def caller(control: str):
    """A caller of `xds:///` targets of this control plane."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(CLIENT), control, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield Caller(process, control)
    finally:
        process.stdin.close()
        await process.wait()


async def topology_where(control: Control, holds):
    """Wait for a topology of which something holds, and until it is published."""
    async for topology in control.plane.topologies.watch():
        if holds(topology):
            return topology
    raise AssertionError


def lanes(topology, model: str = "small") -> dict[str, tuple[str, int]]:
    """Lane and weight by worker version."""
    for one in topology.models:
        if one.plan.name == model:
            return {lane.members[1].version: (lane.id, lane.weight) for lane in one.lanes}
    return {}
