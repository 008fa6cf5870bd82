"""The compose file describes a mesh that runs: each service by its own command, on loopback, with mutual TLS."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest
from harness.compose_file import ComposeService, read_compose, start_order
from harness.compose_run import ComposeRun
from harness.eventually import eventually
from openai import APIError, AsyncOpenAI
from serin.inference.v1 import inference_pb2, inference_pb2_grpc

ROOT = Path(__file__).resolve().parents[2]
ONE_SHOT = {"certs", "keys"}
OURS = {"control", "tokenizer-small", "cache-svc", "worker-small", "gateway"}
QUESTION = {"role": "user", "content": "What is the capital of France?"}
OTHERS = {"state-redis", "cache-redis", "envoy"}


@pytest.fixture(scope="module")
def services() -> dict[str, ComposeService]:
    """The services of the file, as on a machine without settings of its own."""
    return read_compose(ROOT / "docker-compose.yml", {})


@pytest.fixture(scope="module")
def running(services: dict[str, ComposeService], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposeRun]:
    """All of our services and their stores, up and healthy."""
    run = ComposeRun(services, ROOT, tmp_path_factory.mktemp("compose"))
    try:
        assert set(run.up()) == OURS | ONE_SHOT | OTHERS
        yield run
    finally:
        codes = run.down()
    assert {name: code for name, code in codes.items() if code != 0} == {}, "every service drains and ends well"


async def test_a_request_goes_through(running: ComposeRun):
    """A key from the `cli` service, a question through the gateway, a streamed answer."""
    key = running.run("cli", "key", "create", "--role", "app").split()[-1]
    base_url = f"https://{running.translation.address('gateway', '8080')}/v1"
    trust = ssl.create_default_context(cafile=running.translation.path(running.services["certs"], "/certs") / "ca.pem")
    async with (
        httpx.AsyncClient(verify=trust, timeout=60) as http,
        AsyncOpenAI(base_url=base_url, api_key=key, max_retries=0, http_client=http) as client,
    ):
        stream = await client.chat.completions.create(model="small", messages=[QUESTION], temperature=0, stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert text == "Paris"


async def test_a_request_goes_through_the_edge(running: ComposeRun):
    """The published port: Envoy, configured by the control plane alone, carries REST and gRPC to the gateway."""
    key = running.run("cli", "key", "create", "--role", "app").split()[-1]
    edge = running.translation.address("envoy", "8080")

    async def ask() -> str:
        async with AsyncOpenAI(base_url=f"http://{edge}/v1", api_key=key, max_retries=0, timeout=60) as client:
            try:
                answer = await client.chat.completions.create(model="small", messages=[QUESTION], temperature=0)
            except APIError as error:
                return str(error)
        return str(answer.choices[0].message.content)

    await eventually(ask, lambda text: text == "Paris", "an answer over REST through Envoy")
    request = inference_pb2.CountTokensRequest(model="small", prompt="abc")
    async with grpc.aio.insecure_channel(edge) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        counted = await stub.CountTokens(request, timeout=30, metadata=(("authorization", f"Bearer {key}"),))
    assert counted.token_count > 0


def test_every_service_of_ours_has_what_operations_need(services: dict[str, ComposeService]):
    """Health check, TLS, a mesh secret, a drain shorter than the grace Docker gives, no more rights than needed."""
    for name in OURS:
        service = services[name]
        assert service.health[:3] == ["python", "-m", "serin_mesh.health"], name
        assert service.environment["SERIN_TLS_DIR"] in service.mounts, name
        assert service.environment["SERIN_MESH_SECRET_FILE"].startswith("/secrets/"), name
        grace_s = float(service.raw["stop_grace_period"].removesuffix("s"))
        assert float(service.environment["SERIN_DRAIN_GRACE_S"]) < grace_s, name
        assert service.raw["read_only"] is True, name
        assert service.raw["cap_drop"] == ["ALL"], name
        assert service.build["args"]["SERVICE"] in ("control", "tokenizer-svc", "cache-svc", "worker", "gateway")


def test_no_service_sees_the_key_of_another(services: dict[str, ComposeService]):
    """Each identity is in a volume of its own; the authority's key is where certificates are made, and nowhere else."""
    holders: dict[str, set[str]] = {}
    for service in services.values():
        for source in service.mounts.values():
            if source.startswith("tls-") or source == "authority":
                holders.setdefault(source, set()).add(service.name)
    assert holders.pop("authority") == {"certs"}
    assert all(len(names - {"certs"}) == 1 for names in holders.values()), holders


def test_only_the_edge_is_published(services: dict[str, ComposeService]):
    """Nothing but the edge and the dashboards listens on the host, and those on loopback alone."""
    published = {name: service.raw["ports"] for name, service in services.items() if "ports" in service.raw}
    assert set(published) <= {"envoy", "grafana"}
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)


def test_stores_follow_their_policies(services: dict[str, ComposeService]):
    """State is kept and never evicted; the cache is bounded, evicts, and is not written down."""
    state, cache = (" ".join(services[name].command) for name in ("state-redis", "cache-redis"))
    assert "--appendonly yes" in state
    assert "--maxmemory-policy noeviction" in state
    assert "--appendonly no" in cache
    assert "--maxmemory 256mb" in cache
    assert "--maxmemory-policy allkeys-lru" in cache


def test_services_start_after_what_they_need(services: dict[str, ComposeService]):
    """The order is certificates and stores, control, services, gateway."""
    order = start_order(services)
    assert order.index("certs") < order.index("control")
    assert order.index("state-redis") < order.index("control")
    for name in ("tokenizer-small", "cache-svc", "worker-small"):
        assert order.index("control") < order.index(name) < order.index("gateway")


def test_mounted_files_exist(services: dict[str, ComposeService]):
    """Whatever is mounted from the repository is in it."""
    for service in services.values():
        for source in service.mounts.values():
            if source.startswith("."):
                assert (ROOT / source).exists(), f"{service.name} mounts {source}"
