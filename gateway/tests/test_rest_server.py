"""REST over TLS, with certificates that change while it serves."""

import asyncio
import ssl

import httpx
import pytest
from serin_gateway.rest import server as module
from serin_gateway.rest.api import rest_endpoints
from serin_gateway.rest.door import Door
from serin_gateway.rest.server import RestServer
from serin_gateway.testing import MemoryHouse
from serin_mesh.authority import Authority
from serin_mesh.readiness import Readiness


async def served_certificate(port: int) -> bytes:
    """What a new connection is shown."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    await writer.wait_closed()
    return shown


async def test_https_follows_its_certificate(tmp_path, monkeypatch):
    """A client that trusts the authority is answered; a new certificate is shown without a restart."""
    monkeypatch.setattr(module, "LOOK_AT_CERTIFICATES_EVERY_S", 0.01)
    authority = Authority.create()
    authority.issue("gateway", tmp_path)
    door = Door(MemoryHouse().collaborators, rest_endpoints(Readiness()))
    async with RestServer(door, "127.0.0.1", 0, tls_dir=tmp_path, drain_grace_s=1) as server:
        trusting = ssl.create_default_context(cadata=authority.pem.decode())
        trusting.check_hostname = False
        async with httpx.AsyncClient(verify=trusting) as client:
            assert (await client.get(f"https://127.0.0.1:{server.port}/live")).status_code == 200
        with pytest.raises(httpx.ConnectError):
            async with httpx.AsyncClient() as stranger:
                await stranger.get(f"https://127.0.0.1:{server.port}/live")
        before = await served_certificate(server.port)
        (tmp_path / "cert.pem").write_text("half written")
        authority.issue("gateway", tmp_path)
        while await served_certificate(server.port) == before:  # noqa: ASYNC110 - nobody is told of it
            await asyncio.sleep(0.01)
