"""A lane is asked by its own tokenizer and worker, over real sockets, plain and with certificates."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from control_builders import VOCABULARY, instance
from serin.generation.v1 import tokens_pb2
from serin.tokenizer.v1 import tokenizer_pb2, tokenizer_pb2_grpc
from serin.worker.v1 import worker_pb2, worker_pb2_grpc
from serin_control.config import parse_config
from serin_control.instance import Service
from serin_control.latest import Latest
from serin_control.observations.asking import LaneAway, LaneFailed
from serin_control.observations.mesh_asker import MeshAsker
from serin_control.plan import declared_plan
from serin_control.rollouts.golden_set import GoldenCase
from serin_control.topology import Topology, draw
from serin_mesh.errors import MeshError, Reason
from serin_mesh.settings import ServiceSettings
from serin_mesh.testing import running

PLAN = declared_plan(parse_config("models: {small: {path: x}}"))
CHAT = GoldenCase("chat", (("system", "be brief"), ("user", "hi")), "exact", "x", 5)
PLAIN = GoldenCase("plain", (("", "hi"),), "exact", "x", 5)


class Bytes(tokenizer_pb2_grpc.TokenizerServiceServicer):
    """A tokenizer whose ids are bytes."""

    async def Render(self, request, context):  # noqa: N802 - methods are named by the contract
        """Roles and texts, a line each."""
        text = "".join(f"{one.role}: {one.content[0].text}\n" for one in request.messages)
        run = tokens_pb2.TokenRun(token_ids=text.encode())
        return tokenizer_pb2.RenderResponse(segments=[tokens_pb2.Segment(tokens=run)], vocabulary_digest=VOCABULARY)

    async def Encode(self, request, context):  # noqa: N802
        """The bytes."""
        runs = [tokens_pb2.TokenRun(token_ids=text.encode()) for text in request.texts]
        return tokenizer_pb2.EncodeResponse(runs=runs, vocabulary_digest=VOCABULARY)

    async def Decode(self, request, context):  # noqa: N802
        """The text."""
        return tokenizer_pb2.DecodeResponse(texts=[bytes(run.token_ids).decode() for run in request.runs])


class Echo(worker_pb2_grpc.WorkerServiceServicer):
    """A worker that says its prompt backwards, a token an event; it may refuse, or end too early."""

    def __init__(self) -> None:
        self.requests: list[worker_pb2.GenerateRequest] = []
        self.metadata: list[dict] = []
        self.refuse: MeshError | None = None
        self.ends_early = False
        self.is_silent = False

    async def Generate(self, request, context) -> AsyncIterator[worker_pb2.GenerateResponse]:  # noqa: N802
        """Say it."""
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        if self.refuse is not None:
            raise self.refuse
        ids = list(request.prompt[0].tokens.token_ids)[::-1][: request.sampling.max_tokens]
        for token_id in [] if self.is_silent else ids:
            yield worker_pb2.GenerateResponse(delta=worker_pb2.GenerationDelta(token_ids=[token_id]))
        if not self.ends_early:
            yield worker_pb2.GenerateResponse(summary=worker_pb2.GenerationSummary())


class Lane:
    """A lane that runs here, and who asks it."""

    def __init__(self, asker: MeshAsker, worker: Echo, lane: str) -> None:
        self.asker = asker
        self.worker = worker
        self.lane = lane

    async def ask(self, case: GoldenCase) -> str:
        """Its answer."""
        return await self.asker.ask("small", self.lane, case)


@asynccontextmanager
async def running_lane(tls_dirs=None):
    """A tokenizer and a worker, as the topology names them."""
    worker = Echo()

    def dirs(service: str) -> ServiceSettings:
        tls = tls_dirs(service) if tls_dirs else None
        return ServiceSettings(tls_dir=tls, drain_grace_s=1, drain_notice_s=0)

    async with (
        running(
            lambda server: tokenizer_pb2_grpc.add_TokenizerServiceServicer_to_server(Bytes(), server),
            "tokenizer",
            settings=dirs("tokenizer"),
        ) as t,
        running(
            lambda server: worker_pb2_grpc.add_WorkerServiceServicer_to_server(worker, server),
            "worker",
            settings=dirs("worker"),
        ) as w,
    ):
        instances = [
            replace(one, registration=replace(one.registration, endpoint=host.address))
            for one, host in ((instance("t", Service.TOKENIZER), t), (instance("w"), w))
        ]
        topologies: Latest[Topology] = Latest()
        topologies.set(draw(PLAN, instances, {}).topology)
        (lane,) = topologies.value.models[0].lanes
        yield Lane(MeshAsker(dirs("control"), topologies), worker, lane.id)


async def test_a_question_goes_through_tokenizer_worker_and_tokenizer():
    """Rendered or encoded, greedily, at a low priority, in nobody's cache, on the lane and no other."""
    async with running_lane() as lane:
        assert await lane.ask(PLAIN) == "ih"
        assert await lane.ask(CHAT) == "\nih :"
        plain, chat = lane.worker.requests
        assert bytes(chat.prompt[0].tokens.token_ids) == b"system: be brief\nuser: hi\n"
        assert (plain.sampling.temperature, plain.sampling.max_tokens, plain.vocabulary_digest) == (0.0, 5, VOCABULARY)
        assert (plain.priority, plain.cache_group, plain.tenant_key) == (-50, "", "golden")
        assert {said["serin-lane"] for said in lane.worker.metadata} == {lane.lane}


async def test_an_empty_answer_is_an_answer():
    """Nothing is decoded then."""
    async with running_lane() as lane:
        lane.worker.is_silent = True
        assert await lane.ask(PLAIN) == ""


async def test_with_certificates(tls_dirs):
    """As the control plane, at services that want to know who calls."""
    async with running_lane(tls_dirs) as lane:
        assert await lane.ask(PLAIN) == "ih"


async def test_away_is_not_wrong():
    """A lane that is gone, a worker that is not ready or dies; a worker that computes nonsense is wrong."""
    async with running_lane() as lane:
        with pytest.raises(LaneAway, match="no lane"):
            await lane.asker.ask("small", "elsewhere", PLAIN)
        lane.worker.ends_early = True
        with pytest.raises(LaneAway, match="without a summary"):
            await lane.ask(PLAIN)
        for refused, kind in (
            (MeshError(Reason.NOT_READY, "loading"), LaneAway),
            (MeshError(Reason.QUEUE_FULL, "full"), LaneAway),
            (MeshError(Reason.DEADLINE_EXCEEDED, "late"), LaneAway),
            (MeshError(Reason.NUMERICS_FAILED, "NaN"), LaneFailed),
            (MeshError(Reason.PROMPT_TOO_LONG, "long"), LaneFailed),
        ):
            lane.worker.refuse = refused
            with pytest.raises(kind, match=refused.message):
                await lane.ask(PLAIN)
    with pytest.raises(LaneAway):
        await lane.ask(PLAIN)
