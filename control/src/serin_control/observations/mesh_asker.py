"""Asks a lane over the mesh: its tokenizer renders, a worker of it generates, the tokenizer decodes.

Instances are dialled where the lane says they are, so that a question meets exactly this lane, and no caller's session
moves for it. Questions run at a low priority and in no tenant's cache. Knows nothing about what is asked or why.
"""

import random
import secrets
from collections.abc import Sequence

from serin.generation.v1 import chat_pb2, sampling_pb2, tokens_pb2
from serin.tokenizer.v1 import tokenizer_pb2, tokenizer_pb2_grpc
from serin.worker.v1 import worker_pb2, worker_pb2_grpc
from serin_mesh.call import LANE_KEY, VOCABULARY_KEY
from serin_mesh.channels import ChannelSettings, MeshChannel, connect
from serin_mesh.errors import MeshError, Reason

from serin_control.instance import Service
from serin_control.lanes import Lane
from serin_control.latest import Latest
from serin_control.observations.asking import LaneAway, LaneFailed
from serin_control.rollouts.golden_set import GoldenCase
from serin_control.topology import Topology

Metadata = tuple[tuple[str, str | bytes], ...]

PRIORITY = -50
TENANT_KEY = "golden"
TIMEOUT_S = 60.0
_AWAY = frozenset(
    {
        Reason.UPSTREAM_UNAVAILABLE,
        Reason.NOT_READY,
        Reason.QUEUE_FULL,
        Reason.LANE_GONE,
        Reason.CANCELLED,
        Reason.DEADLINE_EXCEEDED,  # at a low priority a busy lane may take that long
    }
)


class MeshAsker:
    """Asks lanes of the topology in force.

    Args:
        settings: TLS and identity of this process.
        topologies: where lanes are.
    """

    def __init__(self, settings: ChannelSettings, topologies: Latest[Topology]) -> None:
        self._settings = settings
        self._topologies = topologies

    async def ask(self, model: str, lane: str, case: GoldenCase) -> str:
        """The lane's answer, greedily."""
        found = self._lane(model, lane)
        try:
            async with self._dial(found, Service.TOKENIZER) as tokenizer, self._dial(found, Service.WORKER) as worker:
                return await _answer(found, case, tokenizer, worker)
        except MeshError as error:
            if error.reason in _AWAY:
                raise LaneAway(error.message) from error
            raise LaneFailed(f"{error.reason}: {error.message}") from error

    def _lane(self, model: str, lane: str) -> Lane:
        topology = self._topologies.value
        for one in topology.models if topology else ():
            if one.plan.name == model:
                for found in one.lanes:
                    if found.id == lane:
                        return found
        raise LaneAway(f"model {model} has no lane {lane}")

    def _dial(self, lane: Lane, service: Service) -> MeshChannel:
        """A channel to an instance of a lane's member, at random."""
        members = [member for member in lane.members if member.service is service]
        taking = [one for member in members for one in member.instances if one.takes_calls]
        if not taking:
            raise LaneAway(f"no {service} of lane {lane.id} takes calls")
        endpoint = random.choice(taking).registration.endpoint
        return connect(endpoint, self._settings, echo_lane=False, service=str(service))


async def _answer(lane: Lane, case: GoldenCase, tokenizer_at: MeshChannel, worker_at: MeshChannel) -> str:
    metadata = ((LANE_KEY, lane.id), (VOCABULARY_KEY, lane.vocabulary))
    tokenizer = tokenizer_pb2_grpc.TokenizerServiceStub(tokenizer_at)
    prompt = await _prompt(tokenizer, case, metadata)
    request = worker_pb2.GenerateRequest(
        request_id=f"golden-{secrets.token_hex(8)}",
        vocabulary_digest=lane.vocabulary,
        prompt=prompt,
        sampling=sampling_pb2.SamplingParameters(temperature=0.0, max_tokens=case.max_tokens, choice_count=1),
        tenant_key=TENANT_KEY,
        priority=PRIORITY,
    )
    ids: list[int] = []
    is_complete = False
    worker = worker_pb2_grpc.WorkerServiceStub(worker_at)
    async for event in worker.Generate(request, timeout=TIMEOUT_S, metadata=metadata):
        ids += event.delta.token_ids
        is_complete |= event.WhichOneof("event") == "summary"
    if not is_complete:
        raise MeshError(Reason.UPSTREAM_UNAVAILABLE, "the worker's stream ended without a summary")
    if not ids:
        return ""
    run = tokens_pb2.TokenRun(token_ids=ids)
    decoded = await tokenizer.Decode(
        tokenizer_pb2.DecodeRequest(runs=[run], vocabulary_digest=lane.vocabulary), metadata=metadata
    )
    return str(decoded.texts[0])


async def _prompt(
    tokenizer: "tokenizer_pb2_grpc.TokenizerServiceAsyncStub", case: GoldenCase, metadata: Metadata
) -> Sequence[tokens_pb2.Segment]:
    if case.prompt is not None:
        encoded = await tokenizer.Encode(tokenizer_pb2.EncodeRequest(texts=[case.prompt]), metadata=metadata)
        return [tokens_pb2.Segment(tokens=encoded.runs[0])]
    messages = [
        chat_pb2.ChatMessage(role=role, content=[chat_pb2.ContentPart(text=text)]) for role, text in case.messages
    ]
    rendered = await tokenizer.Render(tokenizer_pb2.RenderRequest(messages=messages), metadata=metadata)
    return rendered.segments
