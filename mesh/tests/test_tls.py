"""Mutual TLS: who may talk to whom, and new certificates while calls run."""

import asyncio
from pathlib import Path

import grpc
import pytest
from serin.control.v1 import registry_pb2
from serin_mesh import health
from serin_mesh.announce import Announcement
from serin_mesh.authority import Authority
from serin_mesh.call import caller
from serin_mesh.channels import connect
from serin_mesh.errors import MeshError, Reason
from serin_mesh.settings import ServiceSettings
from serin_mesh.testing import ControlTwin, running
from serin_mesh.tls import IdentityFiles, TlsError, peer_service


@pytest.fixture(scope="module")
def authority() -> Authority:
    """One authority for all tests."""
    return Authority.create()


@pytest.fixture
def certs(authority: Authority, tmp_path: Path):
    """Issues an identity and gives its folder."""

    def issue(service: str, by: Authority = authority, **options) -> Path:
        folder = tmp_path / service
        by.issue(service, folder, **options)
        return folder

    return issue


def client(folder: Path | None) -> ServiceSettings:
    """Settings of a client with this identity."""
    return ServiceSettings(tls_dir=folder)


async def ask(address: str, folder: Path | None, stub_of, service: str = "worker", text: bytes = b"x") -> bytes:
    """Make one call with an identity."""
    async with connect(address, client(folder), service=service, deadline_s=5) as channel:
        return await stub_of(channel).unary(text)


async def test_a_handler_knows_its_caller(echo, stub_of, certs, quiet_logs) -> None:
    """The caller is who its certificate says, in handler and log; nobody is trusted for being local."""

    async def unary(request, context):
        who = caller()
        return f"{who.service} {who.trusted} {who.is_any('gateway')} {who.is_any('cache')}".encode()

    echo.unary = unary
    async with running(echo.register, tls_dir=certs("worker")) as server:
        assert await ask(server.address, certs("gateway"), stub_of) == b"gateway False True False"
    (line,) = (line for line in quiet_logs if line["event"] == "rpc.finished")
    assert line["caller"] == "gateway"


async def test_strangers_are_refused(echo, stub_of, certs) -> None:
    """No certificate, another authority's, or plain text: the handshake fails and no handler runs."""
    async with running(echo.register, tls_dir=certs("worker")) as server:
        stranger = certs("stranger", by=Authority.create())
        with pytest.raises(MeshError) as caught:
            await ask(server.address, stranger, stub_of)
        assert caught.value.reason is Reason.UPSTREAM_UNAVAILABLE
        with pytest.raises(MeshError):
            await ask(server.address, None, stub_of)
        anonymous = grpc.ssl_channel_credentials((certs("worker") / "ca.pem").read_bytes())
        override = [("grpc.ssl_target_name_override", "worker")]
        async with grpc.aio.secure_channel(server.address, anonymous, options=override) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub_of(channel).unary(b"x", timeout=5)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert not echo.contexts


async def test_a_server_that_is_somebody_else_is_refused(echo, stub_of, certs) -> None:
    """Behind the address of a worker there must be a worker."""
    async with running(echo.register, service="cache", tls_dir=certs("cache")) as server:
        with pytest.raises(MeshError) as caught:
            await ask(server.address, certs("gateway"), stub_of, service="worker")
        assert caught.value.reason is Reason.UPSTREAM_UNAVAILABLE
        assert await ask(server.address, certs("gateway"), stub_of, service="cache") == b"x"
    assert len(echo.contexts) == 1


async def test_methods_are_for_those_they_are_meant_for(echo, stub_of, certs) -> None:
    """A method's own row beats its service's; who is not in it gets IDENTITY_REFUSED; health is for all."""
    callers = {"/serin.test.v1.EchoService/": {"gateway"}, "/serin.test.v1.EchoService/Stream": {"cache"}}
    async with running(echo.register, tls_dir=certs("worker"), callers=callers) as server:
        async with connect(server.address, client(certs("gateway")), service="worker") as channel:
            assert await stub_of(channel).unary(b"x") == b"x"
            with pytest.raises(MeshError) as caught:
                async for _ in stub_of(channel).stream(b"x"):
                    pass
        assert caught.value.reason is Reason.IDENTITY_REFUSED
        assert caught.value.status.grpc is grpc.StatusCode.PERMISSION_DENIED
        assert "Stream is for cache; the caller is gateway" in caught.value.message
        async with connect(server.address, client(certs("cache")), service="worker") as channel:
            assert [m async for m in stub_of(channel).stream(b"x")] == [b"x"] * 3
            with pytest.raises(MeshError):
                await stub_of(channel).unary(b"x")
        assert await health.check(server.address, "worker", tls_dir=certs("cli")) == "SERVING"


async def test_a_signed_certificate_that_is_no_service_is_refused(echo, stub_of, certs) -> None:
    """The handshake is fine, the name is not: IDENTITY_REFUSED, and no handler runs."""
    async with running(echo.register, tls_dir=certs("worker")) as server:
        with pytest.raises(MeshError) as caught:
            await ask(server.address, certs("worker/odd"), stub_of)
    assert caught.value.reason is Reason.IDENTITY_REFUSED
    assert not echo.contexts


def test_only_one_name_of_the_mesh_is_an_identity() -> None:
    """Being signed is not enough: the certificate must name exactly one service of the mesh."""
    assert peer_service({"peer_spiffe_id": [b"spiffe://serin/worker"]}) == "worker"
    for names in ([], [b"spiffe://other/worker"], [b"spiffe://serin/"], [b"spiffe://serin/a/b"]):
        assert peer_service({"peer_spiffe_id": names}) is None
    assert peer_service({"peer_spiffe_id": [b"spiffe://serin/a", b"spiffe://serin/b"]}) is None


async def test_announcing_with_identities(echo, certs) -> None:
    """The control plane is checked by its identity, whatever its address."""
    twin = ControlTwin()
    async with running(twin.register, "control", tls_dir=certs("control")) as control:
        settings = ServiceSettings(control=control.address, instance="w1", tls_dir=certs("worker"), drain_notice_s=0)
        async with running(echo.register, settings=settings, announce=Announcement()):
            await twin.state_of("w1", registry_pb2.INSTANCE_STATE_READY)
        await twin.withdrawn("w1")


async def test_certificates_rotate_under_load(echo, stub_of, certs, authority, monkeypatch) -> None:
    """Server and client get new identities while calls run: no call fails, and new connections use the new ones."""
    monkeypatch.setattr("serin_mesh.live_channel.LOOK_EVERY_S", 0.0)
    serials = set()

    async def unary(request, context):
        serials.add(b"".join(context.auth_context()["x509_pem_cert"]))
        return request

    echo.unary = unary
    mine, theirs = certs("gateway"), certs("worker")
    async with (
        running(echo.register, tls_dir=theirs) as server,
        connect(server.address, client(mine), service="worker") as channel,
    ):
        stub = stub_of(channel)
        held = stub.chat()
        await held.write(b"before")
        assert await held.read() == b"before"
        for _ in range(3):
            assert await asyncio.gather(*(stub.unary(b"x") for _ in range(10))) == [b"x"] * 10
            authority.issue("gateway", mine)
            authority.issue("worker", theirs)
        assert await stub.unary(b"x") == b"x"
        await held.write(b"after")  # a stream goes on over its old connection
        assert await held.read() == b"after"
        await held.done_writing()
        assert await held.read() is grpc.aio.EOF
    assert len(serials) == 4


async def test_a_new_authority_takes_over_without_a_restart(echo, stub_of, certs, tmp_path, monkeypatch) -> None:
    """First both authorities are trusted, then identities change, then the old one is no longer trusted."""
    monkeypatch.setattr("serin_mesh.live_channel.LOOK_EVERY_S", 0.0)
    old_stranger = certs("cache")
    mine, theirs, new = certs("gateway"), certs("worker"), Authority.create("new")
    async with running(echo.register, tls_dir=theirs) as server:
        async with connect(server.address, client(mine), service="worker") as channel:
            stub = stub_of(channel)
            assert await stub.unary(b"x") == b"x"
            for folder in (mine, theirs):
                (folder / "ca.pem").write_bytes((folder / "ca.pem").read_bytes() + new.pem)
            assert await stub.unary(b"x") == b"x"
            new.issue("worker", theirs)
            (theirs / "ca.pem").write_bytes((old_stranger / "ca.pem").read_bytes() + new.pem)
            assert await stub.unary(b"x") == b"x"
            new.issue("gateway", mine)
            assert await stub.unary(b"x") == b"x"
            (theirs / "ca.pem").write_bytes(new.pem)
            assert await stub.unary(b"x") == b"x"
        with pytest.raises(MeshError):
            await ask(server.address, old_stranger, stub_of)


def test_half_written_files_are_not_used(certs) -> None:
    """While files are being replaced the last good identity stays in force."""
    folder = certs("worker")
    files = IdentityFiles(folder)
    good = files.current()
    assert files.current() is good
    (folder / "cert.pem").write_bytes(b"-----BEGIN CERT")
    assert files.current() is good
    (folder / "cert.pem").unlink()
    assert files.current() is good
    (folder / "cert.pem").write_bytes((certs("cache") / "cert.pem").read_bytes())  # a new certificate, its key to come
    assert files.current() is good
    certs("worker")
    assert files.current() is not good


@pytest.mark.parametrize(("name", "content"), [("ca.pem", None), ("key.pem", b"not pem")])
def test_a_bad_folder_is_refused_by_file(certs, name: str, content: bytes | None) -> None:
    """The error names the file and who makes it."""
    folder = certs("worker")
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(TlsError, match=rf"{name}.*serin certs"):
        IdentityFiles(folder)
