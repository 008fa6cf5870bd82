"""Announcements: every control plane knows each instance, its state at once, and its leaving."""

import asyncio
import itertools

import pytest
from serin.control.v1 import registry_pb2
from serin_mesh.advertise import NotReachable, advertised_endpoint
from serin_mesh.announce import Announcement
from serin_mesh.errors import MeshError, Reason
from serin_mesh.readiness import Readiness
from serin_mesh.settings import ServiceSettings
from serin_mesh.testing import ControlTwin, running

STARTING = registry_pb2.INSTANCE_STATE_STARTING
READY = registry_pb2.INSTANCE_STATE_READY
DRAINING = registry_pb2.INSTANCE_STATE_DRAINING


def settings_for(*controls, **changes) -> ServiceSettings:
    """Settings of an instance that announces itself to these."""
    addresses = ",".join(control.address for control in controls)
    return ServiceSettings(control=addresses, instance="w1", drain_notice_s=0, drain_grace_s=5, **changes)


async def test_the_life_of_an_instance(echo) -> None:
    """STARTING with progress, READY with digests and capacity, a stall, DRAINING, and then it is gone."""
    twin, alive = ControlTwin(), [True]
    readiness = Readiness(probe=lambda: alive[0])
    readiness.starting("loading weights", 0.5)
    announcement = Announcement(model="small", written_format=2, read_formats=(2, 1))
    async with running(twin.register, "control") as control:
        options = {"settings": settings_for(control), "readiness": readiness, "metrics_http": True}
        async with running(echo.register, announce=announcement, **options) as server:
            said = await twin.state_of("w1", STARTING)
            assert (said.heartbeat.activity, said.heartbeat.progress) == ("loading weights", 0.5)
            assert not said.heartbeat.HasField("digests")
            registration = said.registration
            assert (registration.service, registration.model) == (registry_pb2.SERVICE_KIND_WORKER, "small")
            assert (registration.version, registration.endpoint) == ("v1", server.address)
            assert registration.http_endpoint == server.metrics_address
            assert (registration.formats.written, list(registration.formats.read)) == (2, [2, 1])

            readiness.ready(digests=registry_pb2.Digests(kv="k"), capacity=registry_pb2.Capacity(block_size=16))
            said = await twin.state_of("w1", READY)
            assert (said.heartbeat.digests.kv, said.heartbeat.capacity.block_size) == ("k", 16)

            alive[0] = False
            readiness.probe()
            assert (await twin.state_of("w1", STARTING)).heartbeat.activity == "not answering"
            alive[0] = True
            readiness.probe()
            await twin.state_of("w1", READY)

            readiness.draining()
            await twin.state_of("w1", DRAINING)
        await twin.withdrawn("w1")


async def test_heartbeats_come_at_the_interval_asked_for(echo) -> None:
    """Without news a heartbeat still comes, as often as the control plane wants."""
    twin = ControlTwin(heartbeat_s=0.01)
    async with (
        running(twin.register, "control") as control,
        running(echo.register, settings=settings_for(control), announce=Announcement()),
    ):
        await twin.state_of("w1", READY)
        await twin.heard(num_heartbeats=5)


async def test_every_control_plane_is_told(echo) -> None:
    """Two control planes, one of them not there at first."""
    one, other = ControlTwin(), ControlTwin()
    async with running(one.register, "control") as first, running(other.register, "control") as second:
        async with running(echo.register, settings=settings_for(first, second), announce=Announcement()):
            await one.state_of("w1", READY)
            await other.state_of("w1", READY)
        await one.withdrawn("w1")
        await other.withdrawn("w1")


async def test_a_control_plane_that_restarts_hears_again(echo) -> None:
    """The announcement is repeated on the same address with the same name."""
    twin = ControlTwin()
    async with running(twin.register, "control") as control:
        settings = settings_for(control)
        port = control.port
        server = running(echo.register, settings=settings, announce=Announcement())
        await server.__aenter__()
        await twin.state_of("w1", READY)
    again = ControlTwin()
    try:
        async with running(again.register, "control", settings=ServiceSettings(port=port, drain_grace_s=1)):
            await again.state_of("w1", READY)
            await server.__aexit__(None, None, None)
            await again.withdrawn("w1")
    finally:
        assert not again.instances


async def test_a_refusal_is_logged_with_its_reason_and_tried_again(echo, quiet_logs) -> None:
    """The service goes on; whoever looks sees why it gets no traffic."""
    refusals = [0]
    accepted = asyncio.Event()

    class Strict(ControlTwin):
        async def Announce(self, requests, context):  # noqa: N802
            refusals[0] += 1
            if refusals[0] < 3:
                raise MeshError(Reason.REGISTRATION_INVALID, "model: '': accepted: a name")
            accepted.set()
            async for answer in super().Announce(requests, context):
                yield answer

    async with (
        running(Strict().register, "control") as control,
        running(echo.register, settings=settings_for(control), announce=Announcement()),
    ):
        await accepted.wait()
    broken = [line for line in quiet_logs if line["event"] == "announce.broken"]
    assert [line["reason"] for line in broken[:2]] == ["REGISTRATION_INVALID"] * 2
    assert broken[0]["log_level"] == "error"


async def test_refusals_that_repeat_themselves_come_further_and_further_apart(echo, monkeypatch) -> None:
    """A registration that is accepted, and whose first heartbeat is refused, is no reason to begin the pauses anew."""
    monkeypatch.setattr("serin_mesh.announce.FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr("serin_mesh.announce.MAX_PAUSE_S", 0.16)
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    refused_at = []
    enough = asyncio.Event()

    class Strict(ControlTwin):
        async def Announce(self, requests, context):  # noqa: N802
            async for answer in super().Announce(requests, context):
                if self.num_heartbeats > len(refused_at):
                    refused_at.append(asyncio.get_running_loop().time())
                    if len(refused_at) == 8:
                        enough.set()
                    raise MeshError(Reason.VERSION_MISMATCH, "another KV digest")
                yield answer

    async with (
        running(Strict().register, "control") as control,
        running(echo.register, settings=settings_for(control), announce=Announcement()),
        asyncio.timeout(60),
    ):
        await enough.wait()
    pauses = [after - before for before, after in itertools.pairwise(refused_at)]
    assert pauses[4] >= 0.16, "0.01 s doubled four times"
    assert min(pauses[4:]) >= 0.16, pauses


async def test_what_is_advertised_is_a_numeric_address(monkeypatch) -> None:
    """Names resolve; the wildcard becomes this machine's address; one that nobody can dial is refused."""
    assert await advertised_endpoint("localhost", 7) in ("127.0.0.1:7", "[::1]:7")
    assert await advertised_endpoint("::1", 7) == "[::1]:7"
    monkeypatch.setattr("socket.gethostname", lambda: "10.1.2.3")
    assert await advertised_endpoint("0.0.0.0", 7) == "10.1.2.3:7"
    monkeypatch.setattr("socket.gethostname", lambda: "127.0.1.1")
    with pytest.raises(NotReachable, match="--advertise-host"):
        await advertised_endpoint("0.0.0.0", 7)
    with pytest.raises(NotReachable, match=r"no\.such\.host\.invalid"):
        await advertised_endpoint("no.such.host.invalid", 7)
