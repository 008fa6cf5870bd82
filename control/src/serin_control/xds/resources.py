"""Every resource of a routing, for each kind of client: what it is called and how its message is made.

Pure. A blueprint's ``spec`` decides its message: equal specs need not be made, or encoded, twice.
"""

import enum
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from functools import partial

from betterproto2 import Message

from serin_control.xds.certificates import make_secrets
from serin_control.xds.clusters import make_assignment, make_cluster
from serin_control.xds.edge import EDGE, MESH, EdgeSettings, make_edge_routes, make_mesh_routes
from serin_control.xds.edge_listeners import make_edge_listeners
from serin_control.xds.listeners import make_listener
from serin_control.xds.routes import make_route_configuration
from serin_control.xds.routing import GATEWAY, GATEWAY_REST, Routing


class Kind(enum.Enum):
    """Kinds of resources in the order they are pushed: what a route names is there before the route."""

    SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"  # noqa: S105 - files are named, none is sent
    CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
    ASSIGNMENT = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
    LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
    ROUTES = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"


class Audience(enum.Enum):
    """Who asks: `xds:///` clients inside the mesh, or Envoy at its edge."""

    MESH = "mesh"
    EDGE = "edge"


@dataclass(frozen=True, slots=True)
class Blueprint:
    """One resource before it is made."""

    audience: Audience
    kind: Kind
    name: str
    spec: Hashable
    make: Callable[[], Message]


def blueprints(routing: Routing, edge: EdgeSettings) -> Iterator[Blueprint]:
    """Every resource of a routing."""
    yield from _for_mesh(routing)
    yield from _for_edge(routing, edge)


def _for_mesh(routing: Routing) -> Iterator[Blueprint]:
    at = partial(Blueprint, Audience.MESH)
    for target in routing.targets.values():
        if target.name == GATEWAY_REST:
            continue
        yield at(Kind.LISTENER, target.name, target.name, partial(make_listener, target.name))
        yield at(Kind.ROUTES, target.name, target, partial(make_route_configuration, target))
    for cluster in routing.clusters.values():
        if not cluster.http1:
            yield at(Kind.CLUSTER, cluster.name, cluster.service, partial(make_cluster, cluster))
            yield at(Kind.ASSIGNMENT, cluster.name, cluster, partial(make_assignment, cluster))


def _for_edge(routing: Routing, edge: EdgeSettings) -> Iterator[Blueprint]:
    at = partial(Blueprint, Audience.EDGE)
    for secret in make_secrets(edge):
        yield at(Kind.SECRET, secret.name, edge, lambda secret=secret: secret)  # type: ignore[misc]
    for message in make_edge_listeners(edge):
        yield at(Kind.LISTENER, message.name, edge, lambda message=message: message)  # type: ignore[misc]
    gateways = tuple(routing.targets[name] for name in (GATEWAY, GATEWAY_REST))
    yield at(Kind.ROUTES, EDGE, gateways, partial(make_edge_routes, routing.targets))
    reachable = frozenset().union(*(target.clusters for target in gateways))
    if edge.mesh_port is not None:
        everything = tuple(routing.targets.values())
        yield at(Kind.ROUTES, MESH, everything, partial(make_mesh_routes, everything))
        reachable = frozenset(routing.clusters)
    for cluster in routing.clusters.values():
        if cluster.name not in reachable and not cluster.name.startswith(GATEWAY):
            continue
        spec = (cluster.service, cluster.http1)
        yield at(
            Kind.CLUSTER,
            cluster.name,
            spec,
            partial(make_cluster, cluster, by_envoy=True, encrypted=bool(edge.mesh_certificates)),
        )
        yield at(Kind.ASSIGNMENT, cluster.name, cluster, partial(make_assignment, cluster))
