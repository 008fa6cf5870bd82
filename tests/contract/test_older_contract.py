"""Services of this version beside versions of an older contract: everything that those knew works, both ways.

`recorded/` holds contracts as they were; each file stays as it is. The services here are real and of this version;
between any two stands a proxy that knows the older contract only, so that each meets the other as an older version.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
import pytest
from google.protobuf.message import Message
from harness.asking import TINY, greedy
from harness.eventually import eventually
from harness.instances import endpoint_of
from harness.older_contract import OlderContract, through
from harness.running_mesh import RunningMesh
from harness.stream_grammar import check_grammar
from openai import AsyncOpenAI
from prometheus_client import CollectorRegistry
from serin.cache.v1 import cache_pb2_grpc
from serin.control.v1 import registry_pb2, rollout_pb2, rollout_pb2_grpc
from serin.generation.v1 import chat_pb2, sampling_pb2
from serin.inference.v1 import inference_pb2, inference_pb2_grpc
from serin_cache_svc.assembly import Cache, assembled
from serin_cache_svc.lane_workers import worker_changes
from serin_cache_svc.store.memory_store import MemoryAnswerStore
from serin_cli.__main__ import main
from serin_control.assembly import Control
from serin_control.declared import InitialFile
from serin_control.registry import LeaseTerms
from serin_control.testing import ScriptedCourt
from serin_gateway.house import House
from serin_gateway.metrics import GatewayMetrics
from serin_gateway.rpc.service import InferenceService
from serin_gateway.settings import GatewaySettings
from serin_gateway.upstream.lanes import PublishedCatalog
from serin_gateway.upstream.targets import FixedTargets
from serin_mesh.announce import Announcement
from serin_mesh.lanes import LaneWatch
from serin_mesh.readiness import Readiness
from serin_mesh.settings import ServiceSettings
from serin_mesh.testing import running

RECORDED = sorted((Path(__file__).parent / "recorded").glob("*.binpb"))
DEADLINE_S = 30.0
SECRET = b"s" * 32
LONG = "Say it again, and again, and again, for as long as it takes to fill more than one block of the cache."
SCHEMA = (
    '{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": false}'
)


@pytest.fixture(params=RECORDED, ids=lambda file: file.stem)
def contract(request: pytest.FixtureRequest) -> OlderContract:
    """Each recorded contract."""
    return OlderContract(request.param)


@asynccontextmanager
async def gateway(mesh: RunningMesh, contract: OlderContract) -> AsyncIterator[tuple[str, Cache]]:
    """A gateway and a cache of their own, amid the mesh's services as an older contract draws them; its address.

    Gateway and cache meet through it too, and so do cache and workers.
    """
    async with AsyncExitStack() as stack:

        async def older(address: str, edit=None) -> str:
            return await stack.enter_async_context(through(contract, address, edit))

        worker = await endpoint_of(mesh, registry_pb2.SERVICE_KIND_WORKER, TINY)
        tokenizer = await endpoint_of(mesh, registry_pb2.SERVICE_KIND_TOKENIZER, TINY)
        worker_through = await older(worker)

        def moved(message: Message) -> None:
            """The worker is where an older contract reaches it."""
            for model in getattr(message, "models", ()):
                for lane in getattr(model, "lanes", ()):
                    for endpoint in (one for member in lane.members for one in member.endpoints):
                        if endpoint.endpoint == worker:
                            endpoint.endpoint = worker_through

        settings = GatewaySettings(
            instance="gateway-amid-older",
            control=await older(mesh.control, moved),
            state_redis=mesh.record["state_redis"],
        )
        watch = await stack.enter_async_context(LaneWatch(settings))
        await watch.first()
        cache = await stack.enter_async_context(
            assembled(MemoryAnswerStore(), worker_changes(watch.changes()), settings, secret=SECRET, budget_s=5.0)
        )
        served = await stack.enter_async_context(
            running(lambda server: cache_pb2_grpc.add_CacheServiceServicer_to_server(cache.service, server), "cache")
        )
        addresses = {f"worker.{TINY}": worker_through, f"tokenizer.{TINY}": await older(tokenizer)}
        targets = FixedTargets({**addresses, "cache": await older(served.address)})
        secret = (mesh.state / "mesh.secret").read_bytes().strip()
        house = House(settings, secret, PublishedCatalog(watch), targets, GatewayMetrics(CollectorRegistry()))
        await stack.enter_async_context(house)
        service = InferenceService(house.collaborators)
        host = await stack.enter_async_context(
            running(
                lambda server: inference_pb2_grpc.add_InferenceServiceServicer_to_server(service, server), "gateway"
            )
        )
        yield host.address, cache


async def asked(mesh: RunningMesh, address: str, text: str, **fields) -> str:
    """The answers to a question at a gateway, as text, choice by choice; its events are in order."""
    cached = fields.pop("allow_cached_answer", False)
    grammar = fields.pop("grammar", None)
    request = inference_pb2.GenerateRequest(
        model=TINY,
        chat=inference_pb2.Chat(
            messages=[chat_pb2.ChatMessage(role="user", content=[chat_pb2.ContentPart(text=text)])]
        ),
        sampling=sampling_pb2.SamplingParameters(**{"temperature": 0, "max_tokens": 16, **fields}),
        allow_cached_answer=cached,
        grammar=grammar,
    )
    metadata = (("authorization", f"Bearer {mesh.key}"),)
    async with grpc.aio.insecure_channel(address) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        events = [event async for event in stub.Generate(request, timeout=DEADLINE_S, metadata=metadata)]
    check_grammar(events, num_choices=request.sampling.choice_count or 1)
    deltas = [event.delta for event in events if event.WhichOneof("event") == "delta"]
    return "".join(delta.text for delta in sorted(deltas, key=lambda delta: delta.choice_index))  # stable: as they came


async def test_a_gateway_and_a_cache_amid_older_services(mesh: RunningMesh, client: AsyncOpenAI, contract):
    """Answers are those that the mesh gives; recalls, grammars, choices and observations go their ways.

    Control plane, tokenizer, worker, cache and gateway each meet every other one as an older version.
    """
    usual = (await client.chat.completions.create(**greedy(LONG, max_tokens=16))).choices[0].message.content
    async with gateway(mesh, contract) as (address, cache):
        for _ in range(2):
            assert await asked(mesh, address, LONG, allow_cached_answer=True) == usual
        async with through(contract, address) as as_an_older_caller:
            assert await asked(mesh, as_an_older_caller, LONG) == usual
        drawn = [await asked(mesh, address, "Draw.", temperature=1.0, seed=5, choice_count=2) for _ in range(2)]
        assert drawn[0] == drawn[1]
        grammar = sampling_pb2.Grammar(kind=sampling_pb2.GRAMMAR_KIND_JSON_SCHEMA, text=SCHEMA)
        assert (await asked(mesh, address, "JSON.", grammar=grammar, max_tokens=64)).startswith("{")

        async def blocks() -> int:
            return cache.index.num_blocks

        assert await eventually(blocks, bool, "the cache's view of the worker's blocks")
        reported = "ReportObservations", grpc.StatusCode.OK

        async def reports() -> int:
            return contract.ended[reported]

        assert await eventually(reports, bool, "a report to the control plane")
        assert (cache.tally.num_answer_misses, cache.tally.num_answer_hits) == (1, 1)
    assert {"WatchLanes", "Generate", "Render", "PutAnswer"} <= contract.left_out.keys()
    wrong = {
        (method, code) for method, code in contract.ended if code not in (grpc.StatusCode.OK, grpc.StatusCode.CANCELLED)
    }
    assert not wrong


async def test_services_and_people_at_an_older_control_plane(contract, capsys):
    """Versions announce themselves and form lanes; a rollout is started, shown and aborted."""
    yaml = "models: {small: {versions: {v1: {path: /m/v1, weight: 1}, v2: {path: /m/v2, weight: 0}}}}\n"
    control = Control(
        court=ScriptedCourt(), initial=InitialFile("serin.yaml", yaml), terms=LeaseTerms(3_600.0, 3_600.0)
    )
    await control.start()
    async with AsyncExitStack() as stack:
        host = await stack.enter_async_context(running(control.register, "control"))
        loop = asyncio.create_task(control.run())
        stack.callback(loop.cancel)
        address = await stack.enter_async_context(through(contract, host.address))
        for service, version in (("tokenizer", "v1"), ("worker", "v1"), ("worker", "v2")):
            readiness = ready_as(service, version)
            settings = ServiceSettings(
                instance=f"{service}-{version}", version=version, control=address, drain_grace_s=1, drain_notice_s=0
            )
            announcement = Announcement(model="small")
            await stack.enter_async_context(
                running(lambda server: None, service, settings=settings, readiness=readiness, announce=announcement)
            )
        async for topology in control.plane.topologies.watch():
            if topology.models and topology.models[0].lanes:
                break

        async def serin(*arguments: str) -> tuple[int, str]:
            code = await asyncio.to_thread(main, [*arguments, "--control", address])
            return code, capsys.readouterr().out

        async def started() -> int:
            asked_for = ("--model", "small", "--service", "worker", "--to", "v2", "--intent", "same")
            return (await serin("rollout", "start", *asked_for))[0]

        assert await eventually(started, lambda code: code == 0, "both versions are announced") == 0
        async with grpc.aio.insecure_channel(address) as channel:
            stub = rollout_pb2_grpc.RolloutServiceStub(channel)
            watch = stub.WatchRollout(rollout_pb2.WatchRolloutRequest(rollout_id="small-1"), timeout=DEADLINE_S)
            async for seen in watch:
                if seen.rollout.weight_percent == 1.0:
                    break
            watch.cancel()
        code, out = await serin("rollout", "abort", "small-1")
        assert (code, "small-1 is aborted: Aborted at 1 %" in out) == (0, True)
        code, out = await serin("rollout", "history")
        assert (code, [word for word in ("start", "step", "abort") if word in out]) == (0, ["start", "step", "abort"])


def ready_as(service: str, version: str) -> Readiness:
    """What a version says of itself: its digests, and of a worker what it can bear."""
    readiness = Readiness()
    is_worker = service == "worker"
    readiness.ready(
        digests=registry_pb2.Digests(
            artifact=f"{'3a' if is_worker else '7a'}{version.encode().hex()}",
            vocabulary="aa",
            kv="cc" if is_worker else "",
            numerics_class="cpu",
        ),
        capacity=registry_pb2.Capacity(sequence_count=8, block_count=64, block_size=16, context_length=512)
        if is_worker
        else None,
    )
    return readiness
