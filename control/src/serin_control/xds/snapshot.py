"""One consistent state of all resources, encoded: immutable, versioned, the same for everybody who asks.

Bytes of resources that did not change are taken over from the snapshot before. Knows nothing about clients.
"""

import hashlib
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from envoy_data_plane.envoy.service.discovery import v3 as discovery
from envoy_data_plane.google.protobuf import Any

from serin_control.xds.edge import EdgeSettings
from serin_control.xds.resources import Audience, Kind, blueprints
from serin_control.xds.routing import Routing, Target


@dataclass(frozen=True, slots=True)
class Encoded:
    """One resource as it travels.

    Attributes:
        spec: what it was made of.
        field: bytes of a DiscoveryResponse that holds this resource alone; such bytes can be joined, because protobuf
            concatenates repeated fields.
        digest: differs whenever the bytes do.
    """

    spec: Hashable
    field: bytes
    digest: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All resources by audience, kind and name. ``number`` grows with each snapshot of this process."""

    number: int
    resources: Mapping[tuple[Audience, Kind], Mapping[str, Encoded]] = field(repr=False)

    def select(self, audience: Audience, kind: Kind, names: Iterable[str] | None) -> dict[str, Encoded]:
        """Resources of these names that exist; ``names`` None: all."""
        everything = self.resources.get((audience, kind), {})
        if names is None:
            return dict(everything)
        return {name: everything[name] for name in names if name in everything}

    def clusters_of(self, lane: str) -> dict[str, str]:
        """Where the mesh's routes send calls that name a lane, by target."""
        return clusters_of(lane, self.resources.get((Audience.MESH, Kind.ROUTES), {}))


def clusters_of(lane: str, routes: Mapping[str, Encoded]) -> dict[str, str]:
    """Where routes send calls that name a lane, by target."""
    targets = (found.spec for found in routes.values())
    return {
        target.name: cluster
        for target in targets
        if isinstance(target, Target)
        for pinned, cluster in target.pinned
        if pinned == lane
    }


def encode(routing: Routing, edge: EdgeSettings, before: Snapshot | None) -> Snapshot:
    """Encode a routing. Takes milliseconds for each resource that is new: run it off the event loop."""
    resources: dict[tuple[Audience, Kind], dict[str, Encoded]] = {}
    for blueprint in blueprints(routing, edge):
        place = (blueprint.audience, blueprint.kind)
        old = before.resources.get(place, {}).get(blueprint.name) if before else None
        if old is None or old.spec != blueprint.spec:
            wire = bytes(discovery.DiscoveryResponse(resources=[Any.pack(blueprint.make())]))
            old = Encoded(blueprint.spec, wire, hashlib.blake2b(wire, digest_size=8).hexdigest())
        resources.setdefault(place, {})[blueprint.name] = old
    number = before.number + 1 if before else 1
    return Snapshot(number, MappingProxyType({place: MappingProxyType(found) for place, found in resources.items()}))


def version_of(selection: Mapping[str, Encoded]) -> str:
    """Version of a selection: the same resources have the same version, also after a restart."""
    state = hashlib.blake2b(digest_size=8)
    for name in sorted(selection):
        state.update(f"{name}={selection[name].digest};".encode())
    return state.hexdigest()
