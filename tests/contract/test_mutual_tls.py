"""Who may talk to whom off this machine: certificates of the mesh's authority, each for its own service alone."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from harness.service_process import service_process
from harness.wire_errors import error_info
from serin.control.v1 import config_pb2, config_pb2_grpc, lane_pb2, lane_pb2_grpc, registry_pb2, registry_pb2_grpc
from serin_mesh.authority import Authority
from serin_mesh.channels import connect
from serin_mesh.errors import MeshError, Reason

DECLARATION = "models:\n  small:\n    path: /nowhere\n    workers: 0\n    tokenizers: 0\n"
DEADLINE_S = 60.0


@dataclass(frozen=True)
class House:
    """A control plane with mutual TLS, and the certificates around it."""

    address: str
    certs: Path
    authority: Authority


@dataclass(frozen=True)
class Who:
    """What channels need to know of a process: its certificates."""

    tls_dir: Path | None
    control: str = ""
    instance: str = "test"


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Authority]:
    """An identity for each service, one without a name of the mesh, and one of a foreign authority."""
    folder = tmp_path_factory.mktemp("certs")
    authority = Authority.create()
    for service in ("control", "worker", "tokenizer", "gateway", "cache", "cli"):
        authority.issue(service, folder / service, models=["small"])
    foreign = Authority.create("somebody else's authority")
    foreign.issue("gateway", folder / "foreign")
    # Shows the foreign certificate, but trusts the mesh's authority: its handshake fails at the server.
    (folder / "foreign" / "ca.pem").write_bytes(authority.pem)
    return folder, authority


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(certs: tuple[Path, Authority], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """A real control plane as a process."""
    folder, authority = certs
    home = tmp_path_factory.mktemp("control")
    declared = home / "serin.yaml"
    declared.write_text(DECLARATION, encoding="utf-8")
    flags = ("--config-file", str(declared), "--tls-dir", str(folder / "control"))
    async with service_process(
        "serin_control", *flags, folder=home, service="control", tls_dir=folder / "gateway"
    ) as address:
        yield House(address, folder, authority)


async def lanes(channel: grpc.aio.Channel) -> lane_pb2.WatchLanesResponse:
    """The first answer of a call that every service of the mesh may make."""
    call = lane_pb2_grpc.LaneServiceStub(channel).WatchLanes(lane_pb2.WatchLanesRequest(), timeout=DEADLINE_S)
    try:
        return await anext(aiter(call))
    finally:
        call.cancel()


async def announce(channel: grpc.aio.Channel, request: registry_pb2.AnnounceRequest) -> registry_pb2.AnnounceResponse:
    """The first answer to an announcement."""

    async def requests() -> AsyncIterator[registry_pb2.AnnounceRequest]:
        yield request

    call = registry_pb2_grpc.RegistryServiceStub(channel).Announce(requests(), timeout=DEADLINE_S)
    return await anext(aiter(call))


async def test_a_service_of_the_mesh_is_let_in(house: House):
    """Both sides show certificates of the authority, and each names the service it should."""
    async with connect(house.address, Who(house.certs / "gateway"), service="control") as channel:
        assert "small" in [model.name for model in (await lanes(channel)).models]


@pytest.mark.parametrize("who", ["plain", "no certificate", "foreign"])
async def test_strangers_do_not_get_past_the_handshake(house: House, who: str):
    """Plain text, TLS without a certificate, a certificate of another authority: no call is ever served."""
    options = [("grpc.ssl_target_name_override", "control")]
    if who == "plain":
        channel = grpc.aio.insecure_channel(house.address)
    else:
        ca = (house.certs / "gateway" / "ca.pem").read_bytes()
        folder = house.certs / "foreign"
        pair = ((folder / "key.pem").read_bytes(), (folder / "cert.pem").read_bytes())
        credentials = grpc.ssl_channel_credentials(ca, *(pair if who == "foreign" else ()))
        channel = grpc.aio.secure_channel(house.address, credentials, options=options)
    async with channel:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await lanes(channel)
    assert failure.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_certificate_that_names_no_service_is_refused(house: House, tmp_path: Path):
    """A certificate of our authority whose name is no service of the mesh (a deeper path) gets no answer."""
    house.authority.issue("worker/../control", tmp_path / "odd")
    async with connect(house.address, Who(tmp_path / "odd"), service="control") as channel:
        with pytest.raises(MeshError) as failure:
            await lanes(channel)
    assert failure.value.reason is Reason.IDENTITY_REFUSED


@pytest.mark.parametrize("liar", ["tokenizer", "cache", "cli"])
async def test_nobody_announces_as_another_service(house: House, liar: str):
    """A worker is announced with a worker's certificate or not at all."""
    registration = registry_pb2.Registration(
        instance="impostor",
        service=registry_pb2.SERVICE_KIND_WORKER,
        model="small",
        version="v1",
        endpoint="127.0.0.1:9",
    )
    async with connect(house.address, Who(house.certs / liar), service="control") as channel:
        with pytest.raises(MeshError) as failure:
            await announce(channel, registry_pb2.AnnounceRequest(registration=registration))
    assert failure.value.reason is Reason.IDENTITY_REFUSED


async def test_only_operators_change_what_is_declared(house: House):
    """A worker's certificate does not apply a configuration; the command line's does."""
    more = DECLARATION + DECLARATION.partition("\n")[2].replace("small", "other")
    request = config_pb2.ApplyConfigRequest(yaml=more)
    async with connect(house.address, Who(house.certs / "worker"), service="control") as channel:
        with pytest.raises(MeshError) as failure:
            await config_pb2_grpc.ConfigServiceStub(channel).ApplyConfig(request, timeout=DEADLINE_S)
    assert failure.value.reason is Reason.IDENTITY_REFUSED
    async with connect(house.address, Who(house.certs / "cli"), service="control") as channel:
        applied = await config_pb2_grpc.ConfigServiceStub(channel).ApplyConfig(request, timeout=DEADLINE_S)
    assert applied.revision > 0


async def test_callers_check_the_server_too(house: House):
    """A server with another service's certificate is not talked to."""
    async with connect(house.address, Who(house.certs / "gateway"), service="worker") as channel:
        with pytest.raises(MeshError) as failure:
            await lanes(channel)
    assert failure.value.reason is Reason.UPSTREAM_UNAVAILABLE


async def test_the_refusal_is_a_status_of_the_table(house: House):
    """On the wire: PERMISSION_DENIED with one `ErrorInfo`, for callers without any code of ours.

    A unary call: on a request stream grpcio itself may put INTERNAL in the place of a status that came first.
    """

    def credentials(folder: Path) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(
            *((folder / name).read_bytes() for name in ("ca.pem", "key.pem", "cert.pem"))
        )

    options = [("grpc.ssl_target_name_override", "control")]
    request = config_pb2.ApplyConfigRequest(yaml="models: {}")
    folder = house.certs / "worker"
    async with grpc.aio.secure_channel(house.address, credentials(folder), options=options) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await config_pb2_grpc.ConfigServiceStub(channel).ApplyConfig(request, timeout=DEADLINE_S)
    assert failure.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert error_info(failure.value).reason == "IDENTITY_REFUSED"
