"""The edge of a local mesh, the real Envoy: REST, gRPC and the SDK through TLS on one port; what it writes down."""

import json
import ssl

import grpc
import httpx
import pytest
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.service.discovery import v3 as discovery
from envoy_data_plane.google.rpc import Status
from harness.asking import greedy
from harness.eventually import eventually
from harness.running_mesh import RunningMesh
from harness.two_vocabularies import PAIR
from openai import AsyncOpenAI
from serin.inference.v1 import inference_pb2, inference_pb2_grpc
from serin_control.xds.resources import Kind
from serin_control.xds.server import SERVICE


async def access_log(mesh: RunningMesh, request_id: str) -> dict:
    """The line that the edge wrote about a request."""
    log = mesh.state / "logs" / "edge.log"

    async def lines() -> list[dict]:
        records = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
        return [record for record in records if record.get("request_id") == request_id]

    found = await eventually(lines, bool, f"a line about {request_id} in {log}")
    assert len(found) == 1
    return found[0]


async def test_the_sdk_streams_through_tls(edged: RunningMesh, openai: AsyncOpenAI):
    """What `serin env` prints is all that OpenAI's SDK needs; a stream arrives in pieces and whole."""
    assert str(openai.base_url).startswith("https://")
    stream = await openai.chat.completions.create(**greedy("Through TLS.", model=PAIR, max_tokens=24), stream=True)
    texts = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert len(texts) > 5
    assert len("".join(texts)) >= 24
    assert sorted(model.id for model in (await openai.models.list()).data) == [PAIR]


async def test_rest_over_both_http_versions(edged: RunningMesh, trust: ssl.SSLContext):
    """HTTP/2 and HTTP/1.1 by what the caller offers; nobody gets further without a key, or to `/metrics`."""
    for http2, version in ((True, "HTTP/2"), (False, "HTTP/1.1")):
        async with httpx.AsyncClient(base_url=edged.record["edge"], verify=trust, http2=http2) as client:
            answer = await client.get("/v1/models", headers={"authorization": f"Bearer {edged.key}"})
            assert (answer.status_code, answer.http_version) == (200, version)
            for path in ("/v1/models", "/tokenize", "/detokenize"):
                assert (await client.get(path)).status_code == 401, path
            hidden = await client.get("/metrics")
            assert hidden.status_code == 404
            assert hidden.json()["error"]["message"] == "nothing is served here"


async def test_grpc_on_the_same_port(front_door: grpc.aio.Channel, bearer, edged: RunningMesh):
    """A stream of the inference service, with its summary, on the port that REST uses."""
    stub = inference_pb2_grpc.InferenceServiceStub(front_door)
    models = await stub.ListModels(inference_pb2.ListModelsRequest(), timeout=60, metadata=bearer)
    assert [model.name for model in models.models] == [PAIR]
    request = inference_pb2.GenerateRequest(model=PAIR, prompt="Over gRPC.", sampling={"max_tokens": 8})
    call = stub.Generate(request, timeout=30, metadata=bearer)
    events = [message.WhichOneof("event") async for message in call]
    assert (events[0], events[-1]) == ("started", "summary")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.ListModels(inference_pb2.ListModelsRequest(), timeout=60)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_the_access_log_names_lane_and_request(edged: RunningMesh, trust: ssl.SSLContext):
    """One JSON line: the caller's own request id, the lane, the gateway's version; no query, no key."""
    headers = {"authorization": f"Bearer {edged.key}", "x-request-id": "mine-1"}
    async with httpx.AsyncClient(base_url=edged.record["edge"], verify=trust, http2=True) as client:
        body = greedy("Write this down.", model=PAIR, max_tokens=2)
        answer = await client.post("/v1/chat/completions", json=body, headers=headers)
        queried = await client.get("/v1/models?secret=1", headers=headers | {"x-request-id": "mine-query"})
    assert (answer.status_code, answer.headers["x-request-id"]) == (200, "mine-1")
    line = await access_log(edged, "mine-1")
    assert line["lane"] == answer.headers["serin-lane"]
    assert (line["event"], line["status"], line["path"]) == ("edge.request", 200, "/v1/chat/completions")
    assert (line["cluster"], line["attempts"], line["protocol"]) == ("gateway-rest@v1", 1, "HTTP/2")
    assert line["duration_ms"] >= 0
    assert queried.status_code == 400  # the gateway knows no such parameter; the edge writes down none at all
    line = await access_log(edged, "mine-query")
    assert (line["status"], line["path"]) == (400, "/v1/models")
    assert "secret" not in json.dumps(line)
    assert edged.key not in (edged.state / "logs" / "edge.log").read_text()


async def test_grpc_calls_are_written_down_too(front_door: grpc.aio.Channel, bearer, edged: RunningMesh):
    """With the lane of the stream and the id that the gateway uses: the caller's, or one that the edge made."""
    stub = inference_pb2_grpc.InferenceServiceStub(front_door)
    request = inference_pb2.GenerateRequest(model=PAIR, prompt="Over gRPC.", sampling={"max_tokens": 2})
    started = []
    for own in ((), (("serin-request-id", "mine-2"),)):
        call = stub.Generate(request, timeout=30, metadata=(*bearer, *own))
        started += [message.started async for message in call if message.HasField("started")]
    assert started[1].request_id == "mine-2"
    for each in started:
        line = await access_log(edged, each.request_id)
        assert (line["lane"], line["grpc_status"]) == (each.lane, "OK")
        assert line["cluster"] == "gateway@v1"


async def test_request_ids_are_kept_or_made(edged: RunningMesh, trust: ssl.SSLContext):
    """A caller without an id is told the one that the edge made, and finds it in the log."""
    async with httpx.AsyncClient(base_url=edged.record["edge"], verify=trust) as client:
        answer = await client.get("/v1/models", headers={"authorization": f"Bearer {edged.key}"})
    line = await access_log(edged, answer.headers["x-request-id"])
    assert line["status"] == 200


def test_the_edge_is_a_process_like_the_others(edged: RunningMesh):
    """On the status board with its address, ready; its log is shown by `serin logs`."""
    rows = {row["name"]: row for row in edged.record["processes"]}
    assert rows["edge"]["phase"] == "ready"
    assert rows["edge"]["address"] == edged.record["edge"]
    assert edged.record["edge"] in edged.serin("status")
    assert edged.record["alarms"] == []
    edged.serin("logs", "edge")


async def test_a_refused_configuration_is_shown(edged: RunningMesh):
    """A client that refuses what it was sent (NACK) stands on `serin status` with name and reason while it is there."""
    sentence = "stubborn refuses the RouteConfiguration it was sent: too new"
    async with grpc.aio.insecure_channel(edged.control) as channel:
        call = channel.stream_stream(f"/{SERVICE}/StreamAggregatedResources")()
        ask = discovery.DiscoveryRequest(
            node=core.Node(id="stubborn"), type_url=Kind.ROUTES.value, resource_names=[f"worker.{PAIR}"]
        )
        await call.write(bytes(ask))
        sent = discovery.DiscoveryResponse.parse(await call.read())
        ask.response_nonce, ask.error_detail = sent.nonce, Status(code=3, message="too new")
        await call.write(bytes(ask))
        await eventually(lambda: alarms(edged), lambda said: sentence in said, "the alarm")
        assert f"alarm: {sentence}" in edged.serin("status")
        call.cancel()
    await eventually(lambda: alarms(edged), lambda said: sentence not in said, "no alarm")


async def alarms(mesh: RunningMesh) -> list[str]:
    """What stands wrong, as recorded."""
    return mesh.record["alarms"]
