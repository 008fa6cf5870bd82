"""The ADS server over a real socket: refusals stand as alarms, streams end cleanly; what breaks is not published."""

import asyncio
from contextlib import asynccontextmanager

import grpc
from control_builders import instance, pair
from control_running import controlled
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.service.discovery import v3 as discovery
from envoy_data_plane.google.rpc import Status
from serin_control.alarms import Alarms
from serin_control.config import parse_config
from serin_control.instance import Service, State
from serin_control.latest import Latest
from serin_control.plan import declared_plan
from serin_control.topology import draw
from serin_control.xds import publisher as publisher_module
from serin_control.xds.edge import EdgeSettings
from serin_control.xds.publisher import Publisher
from serin_control.xds.resources import Audience, Kind
from serin_control.xds.server import SERVICE

CONFIG = "models: {small: {path: x}}"


class RawClient:
    """Speaks the protocol by hand."""

    def __init__(self, channel: grpc.aio.Channel, name: str, agent: str = "gRPC C-core") -> None:
        method = channel.stream_stream(
            f"/{SERVICE}/StreamAggregatedResources",
            request_serializer=bytes,
            response_deserializer=discovery.DiscoveryResponse.parse,
        )
        self._call = method()
        self._node = core.Node(id=name, user_agent_name=agent)

    async def ask(
        self, kind: Kind, *names: str, to: discovery.DiscoveryResponse | None = None, refuse: str = ""
    ) -> None:
        """Ask for names, answering a response if there is one."""
        request = discovery.DiscoveryRequest(
            node=self._node,
            type_url=kind.value,
            resource_names=list(names),
            response_nonce=to.nonce if to else "",
            version_info=to.version_info if to and not refuse else "",
            error_detail=Status(code=3, message=refuse) if refuse else None,
        )
        await self._call.write(request)

    async def next(self) -> discovery.DiscoveryResponse:
        """The next response."""
        return await self._call.read()

    def cancel(self) -> None:
        """Go away."""
        self._call.cancel()


@asynccontextmanager
async def served():
    """A control plane with a whole model in it, and a channel to it."""
    async with controlled(CONFIG) as (control, address), grpc.aio.insecure_channel(address) as channel:
        announce(control, *pair("v1"))
        yield control, channel


def announce(control, *instances) -> None:
    """Announce instances as they are."""
    for one in instances:
        ticket = control.plane.announce(one.registration)
        control.plane.beat(ticket, one.status)


async def alarms_become(control, holds) -> None:
    """Wait until the standing alarms, as watchers see them, are right."""
    async for standing in control.plane.standing.watch():
        if holds(standing.alarms):
            return


async def test_a_refusal_stands_as_an_alarm_until_a_better_version_is_taken():
    """NACK: named with client, kind and reason; the next good version clears it."""
    async with served() as (control, channel):
        client = RawClient(channel, "gateway-7")
        await client.ask(Kind.ROUTES, "worker.small")
        first = await client.next()
        assert [resource.type_url for resource in first.resources] == [Kind.ROUTES.value]
        await client.ask(Kind.ROUTES, "worker.small", to=first, refuse="no such action")
        sentence = "gateway-7 refuses the RouteConfiguration it was sent: no such action"
        await alarms_become(control, lambda alarms: sentence in alarms)
        assert control.ads.num_refusing == 1
        announce(control, *pair("v2"))
        await control.plane.declared.apply(
            "models: {small: {versions: {v1: {path: x, weight: 1}, v2: {path: y, weight: 1}}}}"
        )
        second = await client.next()
        assert second.version_info != first.version_info
        await client.ask(Kind.ROUTES, "worker.small", to=second)
        await alarms_become(control, lambda alarms: sentence not in alarms)
        client.cancel()


async def test_a_refusal_goes_with_its_client():
    """Nobody is left to take a better version: the alarm ends with the stream, and the stream leaves nothing behind."""
    async with served() as (control, channel):
        client = RawClient(channel, "gateway-7")
        await client.ask(Kind.LISTENER, "worker.small")
        await client.ask(Kind.LISTENER, "worker.small", to=await client.next(), refuse="no")
        await alarms_become(control, lambda alarms: len(alarms) == 1)
        client.cancel()
        await alarms_become(control, lambda alarms: not alarms)
        assert (control.ads.num_streams, control.ads.num_refusing) == (0, 0)


async def test_audiences_see_their_own_listeners():
    """Envoy gets real listeners, `xds:///` clients get targets; kinds that the mesh does not use are never answered."""
    async with served() as (control, channel):
        assert not control.ads.has_edge()
        envoy = RawClient(channel, "edge", agent="envoy")
        await envoy.ask(Kind.LISTENER)
        assert len((await envoy.next()).resources) == 1
        assert control.ads.has_edge()
        inside = RawClient(channel, "worker-1")
        unknown = discovery.DiscoveryRequest(type_url="type.googleapis.com/envoy.service.runtime.v3.Runtime")
        await inside._call.write(unknown)
        await inside.ask(Kind.LISTENER, "worker.small", "nobody")
        assert len((await inside.next()).resources) == 1
        envoy.cancel(), inside.cancel()


async def test_a_client_that_stops_speaking_politely_ends_its_stream():
    """Half-close: the server ends the stream without an error."""
    async with served() as (control, channel):
        client = RawClient(channel, "brief")
        await client.ask(Kind.LISTENER, "worker.small")
        await client.next()
        await client._call.done_writing()
        assert await client._call.code() is grpc.StatusCode.OK
        assert control.ads.num_streams == 0


def topology(*instances, yaml: str = CONFIG):
    """What is drawn when these run."""
    return draw(declared_plan(parse_config(yaml)), instances, {}).topology


async def test_unchanged_resources_are_encoded_once(clock):
    """A weight change makes new routes and nothing else."""
    publisher = Publisher(Latest(), EdgeSettings(), Alarms(), clock)
    weights = "models: {small: {versions: {v1: {path: x, weight: %d}, v2: {path: y, weight: 1}}}}"
    await publisher.publish(topology(*pair("v1"), *pair("v2"), yaml=weights % 1))
    before = publisher.snapshots.value.resources
    await publisher.publish(topology(*pair("v1"), *pair("v2"), yaml=weights % 2))
    after = publisher.snapshots.value.resources
    differing = {
        (kind, name)
        for (audience, kind), found in after.items()
        for name, encoded in found.items()
        if encoded is not before[audience, kind][name]
    }
    assert differing == {(Kind.ROUTES, "worker.small"), (Kind.ROUTES, "tokenizer.small")}
    assert publisher.snapshots.version == 2
    await publisher.publish(topology(*pair("v1"), *pair("v2"), yaml=weights % 2))
    assert publisher.snapshots.version == 2, "the same again is no news"


async def test_clusters_that_nothing_names_linger(clock):
    """Calls on their way to an old version end well; then it is gone."""
    topologies: Latest = Latest()
    publisher = Publisher(topologies, EdgeSettings(), Alarms(), clock, linger_s=5)
    both = "models: {small: {versions: {v1: {path: x, weight: 1}, v2: {path: y, weight: 1}}}}"
    await publisher.publish(topology(*pair("v1"), *pair("v2"), yaml=both))
    await publisher.publish(topology(*pair("v2"), yaml=both))
    clusters = publisher.snapshots.value.resources[Audience.MESH, Kind.CLUSTER]
    routes = publisher.snapshots.value.resources[Audience.MESH, Kind.ROUTES]
    assert "worker.small@v1" in clusters
    assert routes["worker.small"].spec.clusters == {"worker.small@v2"}
    clock.advance(5.1)
    await publisher.publish(topology(*pair("v2"), yaml=both))
    assert "worker.small@v1" not in publisher.snapshots.value.resources[Audience.MESH, Kind.CLUSTER]


async def test_the_publisher_itself_ends_what_lingers():
    """Nothing needs to change in the mesh for an old cluster to go."""
    topologies: Latest = Latest()
    publisher = Publisher(topologies, EdgeSettings(), Alarms(), asyncio.get_running_loop().time, linger_s=0.05)
    running = asyncio.create_task(publisher.run())
    topologies.set(topology(*pair("v1")))
    _, first = await publisher.snapshots.after(0)
    assert "worker.small@v1" in first.resources[Audience.MESH, Kind.CLUSTER]
    topologies.set(topology(*pair("v9"), yaml="models: {small: {versions: {v9: {path: x}}}}"))
    seen = 1
    while True:
        seen, snapshot = await publisher.snapshots.after(seen)
        if "worker.small@v1" not in snapshot.resources[Audience.MESH, Kind.CLUSTER]:
            break
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_what_would_break_clients_is_not_published(clock, monkeypatch):
    """The last good snapshot serves on, an alarm says what is wrong, a good one clears it."""
    alarms = Alarms()
    publisher = Publisher(Latest(), EdgeSettings(), alarms, clock)
    assert await publisher.publish(topology(*pair("v1")))
    good, told = publisher.snapshots.value, publisher.served.value
    monkeypatch.setattr(
        publisher_module, "inconsistencies", lambda routing: ["target t names cluster b, which does not exist"]
    )
    assert not await publisher.publish(topology(*pair("v1", num_workers=2)))
    assert publisher.snapshots.value is good
    assert publisher.served.value is told  # whoever draws lanes goes by the same one
    assert alarms.sentences() == (
        "routing not published, the last one serves on: target t names cluster b, which does not exist",
    )
    monkeypatch.undo()
    assert await publisher.publish(topology(*pair("v1", num_workers=2)))
    assert alarms.sentences() == ()


async def test_every_kind_of_resource_encodes(clock):
    """Drains, caches, gateways, both edge listeners, certificates: messages that envoy-data-plane itself can read."""
    edge = EdgeSettings(
        mesh_port=0, public_certificate="/tls/cert.pem", public_key="/tls/key.pem", mesh_certificates="/tls/edge"
    )
    publisher = Publisher(Latest(), edge, Alarms(), clock)
    everything = [
        *pair("v1"),
        instance("w9", state=State.DRAINING, port=9),
        instance("c", Service.CACHE),
        instance("g", Service.GATEWAY, http_endpoint="127.0.0.1:1"),
    ]
    assert await publisher.publish(topology(*everything))
    found = publisher.snapshots.value.resources
    assert set(found) == {(audience, kind) for audience in Audience for kind in Kind} - {(Audience.MESH, Kind.SECRET)}
    for (_, kind), resources in found.items():
        for encoded in resources.values():
            (resource,) = discovery.DiscoveryResponse.parse(encoded.field).resources
            assert resource.type_url == kind.value
            assert resource.unpack() is not None
